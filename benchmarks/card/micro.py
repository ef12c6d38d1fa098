"""Part micro: single operations that decide a drawing's and a step's time."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.card import attention
from benchmarks.card.models import TINY_VQVAE, fill
from benchmarks.card.part import Part
from hieramp.config import VQVAEConfig
from hieramp.generation.sampling import filter_logits, gumbel_noise, noise_keys
from hieramp.vqvae.model import VQVAE
from hieramp.vqvae.quantizer import bicubic


def run(part: Part) -> None:
    with part.attempt("bicubic"):
        interpolation(part)
    torch.backends.cuda.enable_cudnn_sdp(True)  # each way names its kernel
    with part.attempt("attention of training"):
        attention.teacher_forcing(part)
    part.forget()
    with part.attempt("attention of drawing"):
        attention.drawing(part)
    torch.backends.cuda.enable_cudnn_sdp(part.cudnn_attention)
    part.forget()
    with part.attempt("sampling"):
        sampling(part)
    part.forget()
    with part.attempt("decoder"):
        decoder(part)


def interpolation(part: Part) -> None:
    """8 × 8 to 16 × 16 of 32 channels, by PyTorch's kernel and as the product that is used instead on CUDA."""
    for batch in (1, 2) if part.tiny else (1, 25, 256):
        x = torch.randn(batch, 32, 8, 8, device=part.device)
        matrix = bicubic(8, 16, x.device, x.dtype)

        def product(x: Tensor = x, matrix: Tensor = matrix) -> Tensor:
            return (x.flatten(2) @ matrix).unflatten(2, (16, 16))

        kernel = partial(F.interpolate, x, size=(16, 16), mode="bicubic")
        gap = (product() - kernel()).abs().max().item()
        times = {"kernel_ms": part.milliseconds(kernel, 5), "product_ms": part.milliseconds(product, 5)}
        part.check("bicubic", gap < 1e-2, batch=batch, largest_gap=gap, **times)  # TF32 errs by 1e-3


def sampling(part: Part) -> None:
    """The last scale of var-d16 at batch 25: noise for every code, then top-k and top-p, which sort."""
    batch, positions, codes = (2, 16, 64) if part.tiny else (25, 256, 4096)
    logits = torch.randn(batch, positions, codes, device=part.device)
    keys = noise_keys(range(batch), range(batch), part.device)
    acts: dict[str, Callable[[], object]] = {
        "noise_ms": partial(gumbel_noise, keys, 9, positions, codes),
        "filter_ms": partial(filter_logits, logits, min(900, codes // 2), 0.95),
        "sort_ms": partial(logits.sort, -1),
        "topk_2_ms": partial(logits.topk, 2),
    }
    part.emit("sampling", batch=batch, **{name: part.milliseconds(act) for name, act in acts.items()})


@torch.no_grad()
def decoder(part: Part) -> None:
    """Latent grids to images in several precisions, and by how many levels of 255 pixels move."""
    batch = 2 if part.tiny else 25
    with torch.device(part.device):
        vqvae = VQVAE(TINY_VQVAE if part.tiny else VQVAEConfig()).eval()
    fill(vqvae)
    side = vqvae.config.sides[-1]
    f_hat = torch.randn(batch, vqvae.config.code_dim, side, side, device=part.device)
    found: dict[str, Tensor] = {}

    def measure(precision: str) -> None:
        with part.attempt(f"decoder, {precision}"):
            first = part.seconds(lambda: found.update({precision: vqvae.to_images(f_hat)}))
            taken = part.milliseconds(partial(vqvae.to_images, f_hat), 5, 1)
            part.emit("decoder", precision=precision, batch=batch, ms=taken, first_s=first)

    allowed = torch.backends.cudnn.allow_tf32
    for precision, tf32 in (("float32", False), ("tf32", True)):
        torch.backends.cudnn.allow_tf32 = tf32
        measure(precision)
    torch.backends.cudnn.allow_tf32 = allowed
    for half in (torch.bfloat16, torch.float16) if part.on_card else (torch.bfloat16,):
        vqvae.set_decoder(half)
        measure(str(half).removeprefix("torch."))
    if part.left > 40 and part.on_card:  # compiling takes half a minute
        vqvae.set_decoder(torch.bfloat16)
        vqvae.decoder.compile()
        measure("bfloat16, compiled")
    exact = found.pop("float32")
    gaps = {name: 255 * (images - exact).abs().max().item() for name, images in found.items()}
    part.emit("decoder, largest gap in levels of 255", **gaps)
