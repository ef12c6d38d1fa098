"""Part equal: does the card compute what the CPU does, and a recording what the plain code does?

What must hold is checked and fails the part; what is only to be known is emitted.
"""

from dataclasses import replace
from typing import Any

import torch

import hieramp
from benchmarks.card.graphs import is_recorded, plain, recorded
from benchmarks.card.models import TINY_VAR, TINY_VQVAE, built, labels_of, share_alike, stand_in, with_class_tokens
from benchmarks.card.part import Part
from hieramp import SCHEDULES, Amplification, Model
from hieramp.generation.sampling import gumbel_noise, noise_keys

NOISE_GAP = 1e-4
KINDS: dict[str, dict[str, Any]] = {
    "class tokens": {},
    "read-only class tokens": {"read_only_class_tokens": True},
    "no class tokens": {"class_token_scales": ()},
    "no l2 attention": {"l2_attention": False},
    "four passes": {"read_only_class_tokens": True, "last_passes": 4},
}


def run(part: Part) -> None:
    with part.attempt("noise"):
        noise(part)
    for name, change in list(KINDS.items())[:: 4 if part.tiny else 1]:
        with part.attempt(f"tiny, {name}"):
            tiny(part, name, change)
    with part.attempt("shipped model"):
        shipped(part)
    with part.attempt("logits"):
        logits(part)
    for dtype in (torch.float32, torch.bfloat16):
        with part.attempt("an image alone and among others"):
            among_others(part, dtype)


def tokens(model: Model, count: int, amplification: Amplification | None) -> tuple[torch.Tensor, ...]:
    return model.generate(labels_of(model, count), range(count), amplification).tokens


def noise(part: Part) -> None:
    keys = noise_keys([0, 3], [7, 2**31 + 5], torch.device("cpu"))
    host, card = (gumbel_noise(keys.to(device), 5, 64, 1024).cpu() for device in ("cpu", part.device))
    gap = (host - card).abs().max().item()
    part.check("noise, CPU and here", gap < NOISE_GAP, largest_gap=gap)


def tiny(part: Part, name: str, change: dict[str, Any]) -> None:
    """One kind of model: the CPU and here, plain and recorded, in float32 and bfloat16, at several strengths."""
    host = built(replace(with_class_tokens(TINY_VAR), **change), TINY_VQVAE, "cpu")
    here = built(host.var.config, host.vqvae.config, "cpu").to(part.device)
    strong, weak = SCHEDULES["all"], SCHEDULES["weak-mid"]
    slow, fast = plain(here), recorded(here)
    drawings: list[tuple[int, Amplification | None]] = [(3, strong), (3, weak), (5, None), (17, strong), (3, strong)]
    recording = [share_alike(tokens(slow, n, amp), tokens(fast, n, amp)) for n, amp in drawings]
    part.check(f"tiny, {name}, plain and recorded", min(recording) == 1, alike=recording)
    alike = share_alike(tokens(host, 3, strong), tokens(slow, 3, strong))
    part.check(f"tiny, {name}, CPU and here", alike > 0.99, alike=alike)
    half = built(host.var.config, host.vqvae.config, "cpu").to(part.device, torch.bfloat16)
    fast_half = recorded(half)
    recording = [share_alike(tokens(plain(half), n, amp), tokens(fast_half, n, amp)) for n, amp in drawings[:2]]
    part.check(f"tiny, {name}, plain and recorded in bfloat16", min(recording) == 1, alike=recording)
    if part.on_card:
        part.check(f"tiny, {name}, was recorded", is_recorded(fast) and is_recorded(fast_half))


def shipped(part: Part) -> None:
    """The default model: how many tokens differ between the CPU, here, and bfloat16 here."""
    count, strong = (2 if part.tiny else 10), SCHEDULES["all"]
    host, here = hieramp.load("cifar10", "cpu"), hieramp.load("cifar10", part.device)
    half = hieramp.load("cifar10", part.device, torch.bfloat16)
    found = [tokens(model, count, strong) for model in (host, here, half)]
    alike, half_alike = share_alike(found[0], found[1]), share_alike(found[1], found[2])
    part.check("shipped model, CPU and here", alike > 0.99, alike=alike)
    part.emit("shipped model, float32 and bfloat16", alike=half_alike)


@torch.no_grad()
def logits(part: Part) -> None:
    """How far logits are from float64's: what LOGIT_ERROR of generation/ has to cover (d16 unless tiny)."""
    model = stand_in(part, class_tokens=True)
    var, batch = model.var, 2
    given = [torch.randint(0, var.config.num_codes, (batch, n * n), device=part.device) for n in var.scales.sides]
    labels, inputs = torch.arange(batch, device=part.device), model.vqvae.teacher_input(given)
    single, alone = var(labels, inputs).logits_BLV, var(labels[:1], inputs[:1]).logits_BLV
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    coarse = var(labels, inputs).logits_BLV
    torch.backends.cuda.matmul.allow_tf32 = allowed
    exact = var.double()(labels, inputs.double()).logits_BLV.double()
    half = var.to(torch.bfloat16)(labels, inputs.bfloat16()).logits_BLV
    found = {"float32": single, "tf32": coarse, "bfloat16": half}
    errors = {name: (x.double() - exact).abs().max().item() for name, x in found.items()}
    part.emit("logits, largest error", spread=exact.std().item(), **errors)
    gap, same = (single[:1] - alone).abs().max().item(), bool(torch.equal(single[:1], alone))
    part.emit("logits, batch 1 and 2", largest_gap=gap, bit_for_bit=same)


def among_others(part: Part, dtype: torch.dtype) -> None:
    """Whether an image depends on the batch it is drawn in; bfloat16 may, so this is no check."""
    model = stand_in(part, class_tokens=True).to(part.device, dtype)
    many = 3 if part.tiny else 8
    wide = model.generate(labels_of(model, many), range(many), SCHEDULES["all"])
    alone = model.generate([0], [0], SCHEDULES["all"])
    alike = [bool((w[:1] == a).all()) for w, a in zip(wide.tokens, alone.tokens, strict=True)]
    gap = (wide.images[:1] - alone.images).abs().max().item()
    part.emit("an image alone and among others", dtype=str(dtype), scales_alike=alike, largest_gap=gap)
