"""Work on many small things takes a fixed number of kernels, as a GPU wants it, and gives what one by one gave."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import TINY_VQVAE
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from hieramp.evaluation.augment import Box, augmented, cropped
from hieramp.evaluation.protocols import PROTOCOLS, Training, training_of
from hieramp.training.recipe import Muon, orthogonalize
from hieramp.training.tokens import Tokenizer
from hieramp.vqvae.model import VQVAE
from hieramp.vqvae.quantizer import Phi


class Operations(TorchDispatchMode):
    """The names of all operations inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def matrices(count: int) -> list[nn.Parameter]:
    """With gradients; the last one a convolution's."""
    torch.manual_seed(0)
    shapes = [(8, 24)] * (count - 1) + [(6, 4, 3, 3)]
    made = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def test_muon_steps_all_matrices_of_a_shape_at_once() -> None:
    counts = []
    for number in (3, 12):
        muon = Muon(matrices(number), 0.02, weight_decay=0.1)
        muon.step()
        with Operations() as operations:
            muon.step()
        # a view of each matrix is no kernel
        counts.append(len([name for name in operations.names if "view" not in name and "unbind" not in name]))
    assert counts[0] == counts[1]


def test_muon_steps_as_its_formula() -> None:
    """Momentum 0.95 by Nesterov, orthogonalised, scaled by sqrt(max(1, rows / columns)), with decoupled decay."""
    muon = Muon(matrices(4), 0.02, weight_decay=0.1)
    expected = [parameter.detach().clone() for parameter in matrices(4)]
    momenta = [torch.zeros_like(x) for x in expected]
    for _ in range(3):
        muon.step()
        for x, momentum, parameter in zip(expected, momenta, matrices(4), strict=True):
            gradient = parameter.grad
            assert gradient is not None
            momentum.copy_(0.95 * momentum + 0.05 * gradient)
            update = orthogonalize((0.05 * gradient + 0.95 * momentum).flatten(1))
            scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
            x.mul_(1 - 0.02 * 0.1).sub_(0.02 * scale * update.view_as(x))
    for ours, theirs in zip(muon.param_groups[0]["params"], expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def training(**changes: object) -> Training:
    return replace(training_of(PROTOCOLS["hard"], "small", 32, 4, 32), **changes)  # type: ignore[arg-type]


def one_by_one(images_BCHW: Tensor, settings: Training) -> Tensor:
    """Patches shuffled, then cropped, by torchvision and image by image; then flipped."""
    x = images_BCHW.float() / 255
    side = x.shape[-1]
    if settings.shuffle_patches == 2:
        x = torch.stack([i.roll([side // 2 * int(s < 0.5) for s in torch.rand(2).tolist()], (-2, -1)) for i in x])
    if settings.min_crop < 1:
        crop = v2.RandomResizedCrop(side, scale=(settings.min_crop, 1.0), antialias=True)
        x = torch.stack([crop(image) for image in x])
    flip_B = torch.rand(len(x)) < 0.5
    return torch.where(flip_B[:, None, None, None], x.flip(-1), x)


@pytest.mark.parametrize(("least", "patches"), [(0.08, 1), (0.5, 2), (1.0, 2)])
def test_a_seed_gives_the_crops_that_it_always_gave(least: float, patches: int) -> None:
    settings = training(min_crop=least, shuffle_patches=patches)
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8)
    results = []
    for make in (augmented, one_by_one):
        torch.manual_seed(5)
        results.append((make(images, settings), torch.rand(1)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


BOXES: list[Box] = [(0, 0, 32, 32), (3, 5, 10, 20), (12, 0, 20, 7), (31, 31, 1, 1), (0, 16, 32, 16)]


def test_crops_of_a_batch_are_torchvisions() -> None:
    images = torch.rand(len(BOXES), 3, 32, 32)
    expected = [v2.functional.resized_crop(i, *box, [32, 32], antialias=True) for i, box in zip(images, BOXES)]
    assert torch.allclose(cropped(images, BOXES), torch.stack(expected), atol=1e-5)


def test_crops_take_few_kernels() -> None:
    counts = []
    for boxes in (BOXES[:1], BOXES):
        with Operations() as operations:
            cropped(torch.rand(len(boxes), 3, 32, 32), boxes)
        counts.append(len(operations.names))
    assert counts[0] == counts[1]


def test_the_vqvae_behind_a_tokenizer_is_moved_where_its_images_are_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    looked_at: list[nn.Module] = []
    apply = nn.Module._apply
    monkeypatch.setattr(nn.Module, "_apply", lambda self, *args: looked_at.append(self) or apply(self, *args))
    Tokenizer(VQVAE(TINY_VQVAE))(images)
    assert not looked_at
    with pytest.raises(NotImplementedError, match="meta"):  # weights without values cannot be moved
        Tokenizer(VQVAE(TINY_VQVAE).to("meta"))(images)


def test_a_drawing_on_a_gpu_never_rounds_phi_to_tf32() -> None:
    """cuDNN's convolutions round to TF32 unless the whole process forbids it; matrix products do not."""
    with FakeTensorMode(), torch.device("cuda"):
        phi, h = Phi(8, 0.5), torch.zeros(3, 8, 6, 6)
        with torch.no_grad(), Operations() as operations:
            assert phi(h).shape == h.shape
        with Operations() as learning:
            phi(h)
    assert not any("conv" in name for name in operations.names) and any("mm" in name for name in operations.names)
    assert any("conv" in name for name in learning.names)


def test_phi_as_a_product_is_the_convolution() -> None:
    torch.manual_seed(0)
    phi, h = Phi(8, 0.5).double(), torch.randn(3, 8, 5, 7, dtype=torch.float64)
    assert torch.allclose(phi.as_product(h), nn.functional.conv2d(h, phi.weight, phi.bias, padding=1), atol=1e-12)
