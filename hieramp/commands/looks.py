"""The networks that --perceptual names."""

from torch import Tensor, nn

from hieramp.errors import UserError
from hieramp.evaluation.teachers import load_teacher
from hieramp.perceptual import Distance, PerceptualDistance


def load_perceptual(spec: str) -> Distance:
    """`lpips`, or what `--teacher` takes: a model with a classifier, NAME=FILE, timm/NAME, FILE.safetensors.

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
        raise UserError("--perceptual lpips needs the package lpips: pip install lpips, or give timm/NAME") from error
    network = lpips.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)

    class Lpips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images_BCHW: Tensor, others_BCHW: Tensor) -> Tensor:
            return self.network(images_BCHW, others_BCHW).mean()

    return Lpips()
