"""Work on many small things takes a fixed number of kernels, as a GPU wants it, and gives what one by one gave."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from conftest import TINY_VAR, TINY_VQVAE
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from hieramp.evaluation.augment import Box, augmented, cropped
from hieramp.evaluation.protocols import PROTOCOLS, Training, training_of
from hieramp.training.recipe import Muon, Recipe, build_optimizers, orthogonalize
from hieramp.training.tokens import Tokenizer
from hieramp.var.attention import SelfAttention
from hieramp.vqvae import quantizer
from hieramp.vqvae.autoencoder import AttentionBlock
from hieramp.vqvae.model import VQVAE
from hieramp.vqvae.quantizer import Phi, bicubic


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


@pytest.fixture
def fake_gpu() -> Iterator[None]:
    """A GPU whose tensors have no values: what is asked of it can be seen without one."""
    bicubic.cache_clear()
    with FakeTensorMode():
        yield
    bicubic.cache_clear()


@pytest.mark.usefixtures("fake_gpu")
def test_maps_are_enlarged_by_a_product_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's bicubic kernel works through batch and channels one after the other (up to 2.11)."""
    monkeypatch.setattr(quantizer, "to_device_async", lambda x, device: x.to(device))  # a fake cannot be pinned
    with torch.device("cuda"):
        ours, tokens = quantizer.Quantizer(TINY_VQVAE), torch.zeros(5, 9, dtype=torch.long)
    with torch.no_grad():
        ours.contribution(2, tokens)  # makes the matrix
        with Operations() as operations:
            assert ours.contribution(2, tokens).shape == (5, 8, 8, 8)
    assert any("mm" in name for name in operations.names) and not any("bicubic" in name for name in operations.names)


@pytest.mark.usefixtures("fake_gpu")
def test_queries_and_keys_are_normalised_by_one_kernel_on_a_gpu() -> None:
    """`F.normalize` takes several, and under autocast goes through float32."""
    with torch.device("cuda"):
        attention, x = SelfAttention(TINY_VAR, 0), torch.zeros(2, 5, TINY_VAR.width)
    with Operations() as operations:
        q, k, v = attention._qkv(x)
    assert q.shape == k.shape == v.shape
    assert not any("vector_norm" in name or "clamp_min" in name for name in operations.names)


@pytest.mark.usefixtures("fake_gpu")
def test_the_vqvaes_attention_is_one_that_the_fused_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four dimensions, the last one side by side in memory."""
    asked: list[Tensor] = []
    attend = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", lambda *qkv: asked.extend(qkv) or attend(*qkv))
    with torch.device("cuda"):
        block, x = AttentionBlock(TINY_VQVAE, 32), torch.zeros(2, 32, 4, 4)
    assert block(x).shape == x.shape
    assert len(asked) == 3 and all(x.dim() == 4 and x.stride(-1) == 1 for x in asked)


@pytest.mark.usefixtures("fake_gpu")
def test_adamw_is_fused_on_a_gpu() -> None:
    """Else it reads its step counts back, which lie on the GPU once a run was resumed."""
    with torch.device("cuda"):
        optimizers = build_optimizers(nn.Linear(4, 4), Recipe(4, 1, 1e-3))
    assert [optimizer.defaults["fused"] for optimizer in optimizers] == [True]
