"""The networks that --perceptual names."""

from torch import Tensor, nn

from hieramp.errors import UserError
from hieramp.evaluation.teachers import load_teacher
from hieramp.perceptual import Distance, PerceptualDistance


def load_perceptual(spec: str) -> Distance:
    """`lpips` (Zhang et al., arXiv 1801.03924, on VGG16), or what `--teacher` takes: a model with a classifier,
    NAME=FILE, timm/NAME, FILE.safetensors.

    Raises:
        UserError: nothing of the kind is there, or it has no stages.
    """
    if spec == "lpips":
        return _lpips()
    try:
        teacher = load_teacher(spec)
        return PerceptualDistance(teacher.network, teacher.name)
    except UserError as error:
        raise UserError(f"{error}, or go without: --perceptual none") from error


def _lpips() -> Distance:
    try:
        import lpips
    except ImportError as error:
        raise UserError(
            f"--perceptual lpips needs the package lpips ({error}): pip install lpips, or give timm/NAME"
        ) from error
    try:
        network = lpips.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)
    except (OSError, RuntimeError) as error:  # the package brings its own layers; VGG16's weights it fetches
        raise UserError(
            f"--perceptual lpips needs torchvision's weights of VGG16, which cannot be had ({error}): put "
            "vgg16-397923af.pth into the folder checkpoints of torch.hub.get_dir(), or give NAME=FILE"
        ) from error

    class Lpips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images_BCHW: Tensor, others_BCHW: Tensor) -> Tensor:
            return self.network(images_BCHW, others_BCHW).mean()

    return Lpips()
