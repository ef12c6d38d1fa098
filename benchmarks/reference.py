"""python -m benchmarks.generate --reference DIR: the authors' code and ours in one run, on stand-in weights.

DIR is a checkout of github.com/FoundationVision/VAR; --reference-hieramp names one of HierAmp (VAR's files with theirs
on top). All models get the same random weights of the official sizes and take turns. Theirs run as their sampling
script runs them: on a GPU in float16 by autocast. Ours run in bfloat16 there, in float32 on a CPU.

The floor is the time that the operations and bytes of an image must cost on the device: for each scale, and then for
the decoder, the longer of the two, at the matrix and copy rates measured in the same run. Operations (2 a
multiply-add) of the linear layers are counted by their weights, of attention 4·C a query and key, of the decoder as
torch counts them. Bytes are the weights once a scale, and keys and values read and written; anything else might stay
on the chip.
"""

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import in_turns, peak_of
from hieramp import SCHEDULES, Amplification, Model, from_official
from hieramp.config import VARConfig
from hieramp.errors import UserError
from hieramp.files import markdown_table
from hieramp.var.class_tokens import is_class_token
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

BASE, TOKENS, AMPLIFIED = VARIANTS = ("base", "+ class tokens", "+ amplification")


@dataclass(frozen=True)
class Sizes:
    """What `build_vae_var` of the authors is asked for; the width is 64 a block."""

    depth: int = 16
    patch_nums: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    num_codes: int = 4096
    code_dim: int = 32
    channels: int = 160
    num_classes: int = 1000


SIZES = {
    "d16": Sizes(),
    "tiny": Sizes(2, (1, 2, 3), 1024, 8, 32, 10),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; of an image, at its batch size."""

    whose: str
    variant: str
    batch: int
    seconds: float  # median
    num_bytes: int  # weights, and by how much the peak grew from the first drawing on
    floor: float  # seconds


@dataclass(frozen=True)
class Rates:
    """What the device does in a second."""

    operations: float  # of a large matrix product
    num_bytes: float  # of a large copy, read and written


@contextmanager
def authors(folder: Path) -> Iterator[Any]:
    """Their `models` package, importable inside; what it changes in torch and sys is put back.

    Raises:
        UserError: there is no such package in the folder.
    """
    if not (folder / "models" / "__init__.py").is_file():
        raise UserError(f"{folder} has no models/__init__.py: give a checkout of the authors' repository")
    ours = {name for name in sys.modules if name.split(".")[0] in ("models", "dist", "utils")}
    kept = {name: sys.modules.pop(name) for name in ours}
    resets = {kind: kind.reset_parameters for kind in vars(nn).values() if hasattr(kind, "reset_parameters")}
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("models")
    finally:
        sys.path.remove(str(folder))
        for kind, reset in resets.items():
            kind.reset_parameters = reset
        for name in [name for name in sys.modules if name.split(".")[0] in ("models", "dist", "utils")]:
            del sys.modules[name]
        sys.modules.update(kept)


@torch.no_grad()
def fill(module: nn.Module, seed: int = 0) -> None:
    """Random weights that keep the size of what passes through; gains of norms stay at one, biases at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, x in module.named_parameters():
        if x.dim() < 2:
            x.fill_(1.0 if name.endswith("weight") else 0.0)
        elif not name.endswith("scale_mul_1H11"):
            x.copy_(torch.randn(x.shape, generator=generator) * x[0].numel() ** -0.5)


def built(folder: Path, sizes: Sizes, device: str, class_tokens: bool) -> tuple[nn.Module, Any]:
    """The authors' VQ-VAE and VAR with stand-in weights; with a class token at every scale, by HierAmp's code."""
    with authors(folder) as models:
        tokens = {"class_token_scales": tuple(range(len(sizes.patch_nums)))} if class_tokens else {}
        vae, var = models.build_vae_var(
            device=device,
            patch_nums=sizes.patch_nums,
            V=sizes.num_codes,
            Cvae=sizes.code_dim,
            ch=sizes.channels,
            num_classes=sizes.num_classes,
            depth=sizes.depth,
            **tokens,
        )
    fill(vae)
    fill(var)
    return vae.eval(), var.eval()


Draw = Callable[[int], Any]  # a batch of so many images, to pixels on the device


def theirs(var: Any, device: str, **options: Any) -> Draw:
    def draw(batch: int) -> Tensor:
        labels = torch.arange(batch, device=device) % var.num_classes
        half = torch.autocast("cuda", torch.float16) if device.startswith("cuda") else nullcontext()
        with torch.inference_mode(), half:
            return var.autoregressive_infer_cfg(B=batch, label_B=labels, cfg=4.0, top_k=900, top_p=0.95, **options)

    return draw


def ours(model: Model, amplification: Amplification | None) -> Draw:
    def draw(batch: int) -> Tensor:
        for step in model.steps([i % len(model.class_names) for i in range(batch)], range(batch), amplification):
            last = step
        return last.image

    return draw


def with_class_tokens(model: Model) -> Model:
    """The same weights and, at every scale, a random class token."""
    torch.manual_seed(0)
    config = replace(model.var.config, class_token_scales=tuple(range(len(model.var.scales))))
    var = VAR(config).eval()
    added = {key: value for key, value in var.state_dict().items() if is_class_token(key)}
    var.load_state_dict({**model.var.state_dict(), **added})
    return replace(model, var=var)


def contenders(
    reference: Path, hieramp: Path | None, sizes: Sizes, device: str
) -> dict[tuple[str, str], tuple[Draw, list[nn.Module]]]:
    """Whose code and which variant, to a way of drawing and the networks it needs."""
    runs: dict[tuple[str, str], tuple[Draw, list[nn.Module]]] = {}
    vae, var = built(reference, sizes, device, class_tokens=False)
    runs["VAR", BASE] = theirs(var, device), [vae, var]
    base = from_official(vae.state_dict(), var.state_dict(), sizes.patch_nums)
    tokens = with_class_tokens(base)
    if hieramp is not None:
        vae, var = built(hieramp, sizes, device, class_tokens=True)
        layers = {"amplify_layers": (max(0, sizes.depth - 2),)}
        runs["HierAmp", TOKENS] = theirs(var, device), [vae, var]
        runs["HierAmp", AMPLIFIED] = theirs(var, device, amplify=True, **layers), [vae, var]
        tokens = from_official(vae.state_dict(), var.state_dict(), sizes.patch_nums)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    for model in (base, tokens):
        model.to(device, dtype)
    runs["ours", BASE] = ours(base, None), [base.vqvae, base.var]
    runs["ours", TOKENS] = ours(tokens, None), [tokens.vqvae, tokens.var]
    runs["ours", AMPLIFIED] = ours(tokens, SCHEDULES["all"]), [tokens.vqvae, tokens.var]
    return runs


def timed(draw: Draw, batch: int) -> float:
    """Seconds for one batch, from labels to pixels."""
    started = time.perf_counter()
    draw(batch).sum().item()
    return time.perf_counter() - started


def memory(draw: Draw, networks: list[nn.Module], device: str, batch: int) -> int:
    """Bytes of the weights, and the growth of the peak over the first drawings of this batch size."""
    weights = sum(x.nbytes for network in networks for x in network.state_dict().values())
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):  # recorded scales and their buffers included
            timed(draw, batch)
        return weights + torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profiler:
        timed(draw, batch)
    return weights + peak_of(profiler)


def measured_rates(device: str, dtype: torch.dtype, side: int) -> Rates:
    """The fastest of nine products of random (side, side) matrices and of nine copies of 8·side² elements."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.randn(8, side, side, device=device).to(dtype)
    target = torch.empty_like(source)

    def seconds(run: Callable[[], Tensor]) -> float:
        taken = []
        for _ in range(9):
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            started = time.perf_counter()
            run()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        return min(taken)

    return Rates(2 * side**3 / seconds(lambda: a @ b), 2 * source.nbytes / seconds(lambda: target.copy_(source)))


def transformer_cost(config: VARConfig, batch: int, element: int) -> list[tuple[float, float]]:
    """Operations and bytes of every scale of a batch, with both halves of guidance; `element`: bytes of a number."""
    width, depth, rows = config.width, config.depth, 2 * batch
    block = width * width * (4 + 2 * config.ffn_ratio)  # weights of q, k, v, the projection and the two of the FFN
    ends = width * (config.code_dim + config.num_codes)
    once = 6 * width * width * depth + 2 * width * width  # adaptive norms: of a class, not of a token
    costs = []
    for span in config.scales.spans:
        tokens = rows * (span.stop - span.start)
        operations = 2 * tokens * (block * depth + ends) + 4 * tokens * span.stop * width * depth
        weights = block * depth + ends
        if span.start == 0:
            operations, weights = operations + 2 * rows * once, weights + once
        cached = 2 * rows * width * depth * (span.stop + span.stop - span.start)  # read to here, written from there
        costs.append((operations, (weights + cached) * element))
    return costs


def decoder_cost(vqvae: VQVAE, batch: int) -> tuple[float, float]:
    """Operations and bytes of decoding a batch, without computing it; its weights are float32."""
    config = vqvae.config
    with torch.device("meta"):
        shapes = VQVAE(config)
        f_hat = torch.zeros(1, config.code_dim, config.sides[-1], config.sides[-1])
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        shapes.decode(f_hat)
    weights = sum(x.nbytes for part in (shapes.decoder, shapes.post_quant_conv) for x in part.parameters())
    return batch * counter.get_total_flops(), weights + batch * 3 * config.image_size**2 * 4


def floor(model: Model, batch: int, rates: Rates) -> float:
    """Seconds that an image must cost at these rates (see the top of this file)."""
    element = model.var.head.weight.element_size()
    costs = [*transformer_cost(model.var.config, batch, element), decoder_cost(model.vqvae, batch)]
    return sum(max(ops / rates.operations, size / rates.num_bytes) for ops, size in costs) / batch


def measure(
    reference: Path, hieramp: Path | None, sizes: Sizes, device: str, batches: list[int], rounds: int
) -> tuple[list[Row], Rates]:
    """The whole table; every way of drawing takes its turn in each round, the order turned about."""
    runs = contenders(reference, hieramp, sizes, device)
    on_card = device.startswith("cuda")
    rates = measured_rates(device, torch.bfloat16 if on_card else torch.float32, 8192 if on_card else 1024)
    vqvae, var = runs["ours", BASE][1]
    assert isinstance(vqvae, VQVAE) and isinstance(var, VAR)
    model = Model(vqvae, var, ())
    rows = []
    for batch in batches:
        needed = {key: memory(draw, networks, device, batch) for key, (draw, networks) in runs.items()}
        seconds = in_turns({key: partial(timed, draw, batch) for key, (draw, _) in runs.items()}, rounds)
        least = floor(model, batch, rates)
        rows += [Row(*key, batch, statistics.median(seconds[key]) / batch, needed[key], least) for key in runs]
    return rows, rates


def table(rows: list[Row], rates: Rates) -> str:
    """The rows in Markdown, each beside the authors' base and over the floor."""
    first = {row.batch: row.seconds for row in reversed(rows)}
    columns = ["batch", "code", "variant", "s an image", "VAR's time over it", "peak memory", "floor, s"]
    columns.append("over the floor")
    cells = []
    for row in rows:
        times = [f"{row.seconds:.5f}", f"{first[row.batch] / row.seconds:.2f}"]
        rest = [f"{row.num_bytes / 1e6:.1f} MB", f"{row.floor:.5f}", f"{row.seconds / row.floor:.1f}"]
        cells.append([str(row.batch), row.whose, row.variant, *times, *rest])
    measured = f"Measured here: {rates.operations / 1e12:.2f} TFLOP/s, {rates.num_bytes / 1e9:.1f} GB/s."
    return f"{measured}\n\n{markdown_table(columns, cells)}"
