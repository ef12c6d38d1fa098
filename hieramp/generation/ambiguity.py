"""Which images rounding could turn: a check beside the loop, of decisions that were too close to call.

Two kinds of decisions are made: which code wins at a position, and which positions are the most salient ones. Float32
arithmetic rounds differently at another batch size, thread count or machine; where a decision was closer than a
tolerance, `hieramp.distill` draws the image again in float64.

What is promised: the tolerance of a model is the larger of a constant and MARGIN times the largest error that float32
made against float64 on the images of a pilot, on this device. A decision is turned only where its error is larger than
the tolerance *and* than the gap itself. This is a measured bound and not a proven one: settings far from the pilot's
(off, and amplified with β = 5) may err more.

Letters: U rows, B rows of both halves, L positions, V codes.
"""

import copy
import threading
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hieramp.amplification.settings import OFF, Amplification
from hieramp.generation.request import Request
from hieramp.generation.sampling import Sampling, filter_logits
from hieramp.generation.scale import ScaleResult, ScaleSettings
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

# The least tolerances, from the shipped model on a CPU: of the difference of two logits before guidance, and of a
# saliency relative to it. Most models need more.
LOGIT_ERROR = 1.5e-5
SALIENCY_ERROR = 2e-5
PILOT_IMAGES, RIVALS = 8, 8
PILOT_AT_ONCE = 2  # one of them amplified; more would fill a small GPU where the model is large
# A kept code of more mass, further above the cut than logits err, stays kept whatever they do to the tail.
SAFE_MASS = 1e-4


class Tolerances(NamedTuple):
    """Decisions closer than this are ambiguous."""

    logit: float  # of the difference of two logits, before guidance
    saliency: float  # relative


MARGIN = Tolerances(logit=2.0, saliency=3.0)  # on the largest errors of the pilot; those of saliencies vary more


def is_unambiguous(vqvae: VQVAE, settings: ScaleSettings, result: ScaleResult, is_drawn: bool) -> Tensor:
    """Whether each row would be drawn the same under any error within the model's tolerances, (U,) bool.

    Tokens that were given (`is_drawn` False) cannot be turned; the salient positions of their scale can.
    """
    measured = tolerances(vqvae, settings.var)
    is_safe_U = _same_positions(settings, result, max(SALIENCY_ERROR, measured.saliency))
    if not is_drawn:
        return is_safe_U
    tolerance = max(LOGIT_ERROR, measured.logit) * (1 + 2 * settings.guidance)
    return is_safe_U & _same_tokens(result, settings.sampling, tolerance)


def _same_positions(settings: ScaleSettings, result: ScaleResult, tolerance: float) -> Tensor:
    """Whether the same positions would be salient in both halves of each row, (U,) bool."""
    num_rows = len(result.tokens)
    is_safe_B = torch.ones(num_rows * (1 + settings.use_cfg), dtype=torch.bool, device=result.tokens.device)
    for amplified, m_BL in zip(settings.amplified.values(), result.ranked_maps, strict=True):
        is_safe_B = is_safe_B & amplified.is_unambiguous(m_BL, tolerance)
    return is_safe_B.view(-1, num_rows).all(0)


def _same_tokens(result: ScaleResult, sampling: Sampling, tolerance: float) -> Tensor:
    """Whether each row would draw the same tokens from logits that err by less than `tolerance`, (U,) bool.

    Most positions are safe at a glance: the code drawn is far ahead of all others, kept or not, and safely above the
    cut. Only the rest is filtered again, with slack. The device is waited for once.
    """
    logits, filtered, noise = result.logits, result.filtered, result.noise
    first, second = (logits + noise).topk(2, dim=-1).values.unbind(-1)
    drawn = (filtered + noise).max(-1)
    code_UL1 = drawn.indices[..., None]
    cut_UL1 = filtered.masked_fill(filtered == -torch.inf, torch.inf).amin(-1, keepdim=True)
    above_cut = logits.gather(-1, code_UL1) - cut_UL1
    mass = logits.softmax(-1).gather(-1, code_UL1)
    is_kept = ((above_cut > 2 * tolerance) & (mass > SAFE_MASS))[..., 0]
    is_safe_UL = is_kept & (drawn.values == first) & (first - second > tolerance)
    rest_N = (~is_safe_UL).flatten().nonzero()[:, 0]
    rest_logits, rest_noise = (x.flatten(0, 1)[rest_N] for x in (logits, noise))
    is_safe_UL.view(-1)[rest_N] = _same_token(rest_logits, rest_noise, sampling, tolerance)
    return is_safe_UL.all(-1)


def _same_token(logits_NV: Tensor, noise_NV: Tensor, sampling: Sampling, tolerance: float) -> Tensor:
    """The same for single positions, by what such errors could keep and what they must, (N,) bool."""
    loose, tight = (
        filter_logits(logits_NV, sampling.top_k, sampling.top_p, slack) + noise_NV for slack in (tolerance, -tolerance)
    )
    first, second = loose.topk(2, dim=-1).values.unbind(-1)
    return (first - second > tolerance) & (loose.argmax(-1) == tight.argmax(-1))


_measured: "WeakKeyDictionary[VAR, dict[tuple[torch.device, torch.dtype], Tolerances]]" = WeakKeyDictionary()
_lock = threading.Lock()


def tolerances(vqvae: VQVAE, var: VAR) -> Tolerances:
    """MARGIN times the largest errors in a pilot of this model; measured once for each device and type of number.

    The weights are taken to stay as they are. In float64 itself nothing is measured: the errors are zero.
    """
    key = var.pos_start.device, var.pos_start.dtype
    if key[1] == torch.float64:
        return Tolerances(0.0, 0.0)
    with _lock:
        known = _measured.setdefault(var, {})
        if key not in known:
            worst = pilot_errors(vqvae, var, range(PILOT_IMAGES))
            known[key] = Tolerances(MARGIN.logit * worst.logit, MARGIN.saliency * worst.saliency)
        return known[key]


@torch.no_grad()
def pilot_errors(vqvae: VQVAE, var: VAR, seeds: range) -> Tolerances:
    """The largest errors against float64 of one image per seed, half of them amplified.

    The float64 copy is given the tokens that were drawn, and what is amplified are positions named by hand: no decision
    can turn, so that what differs is rounding. Of the logits it is the difference of any two of the RIVALS codes that
    come closest to being drawn, of the saliency the more salient half of each map, where a share of up to 50 % ends.
    """
    exact_vqvae, exact_var = copy.deepcopy(vqvae).double(), copy.deepcopy(var).double()
    parts = [seeds[i : i + PILOT_AT_ONCE] for i in range(0, len(seeds), PILOT_AT_ONCE)]
    errors = [_errors((vqvae, var), (exact_vqvae, exact_var), part) for part in parts]
    return Tolerances(*(max(worst) for worst in zip(*errors, strict=True)))


def _errors(ours: tuple[VQVAE, VAR], exact: tuple[VQVAE, VAR], seeds: range) -> Tolerances:
    """The same of a few seeds, drawn at once; `exact` is the copy in float64."""
    from hieramp.generation.loop import draw  # not above: the loop imports this file

    config, sides = ours[1].config, ours[1].scales.sides
    every_second = {scale: range(0, side * side, 2) for scale, side in enumerate(sides)}
    amplified = Amplification((0.5, 5.0), (0.5, 5.0), (0.5, 5.0), positions=every_second)
    labels = tuple(seed % config.num_classes for seed in seeds)
    request = Request(labels, tuple(seeds), tuple(amplified if seed % 2 else OFF for seed in seeds), Sampling())
    steps = list(draw(*ours, request))
    prefix_tokens = zip(*([tuple(row) for row in step.tokens.tolist()] for step in steps), strict=True)
    exact_steps = draw(*exact, replace(request, prefix_tokens=tuple(prefix_tokens)))
    logit_error, saliency_error = 0.0, 0.0
    for step, exact_step in zip(steps, exact_steps, strict=True):
        mine, theirs, t = step.rows.result, exact_step.rows.result, step.rows.settings.guidance
        rivals_ULR = (mine.filtered + mine.noise).topk(min(RIVALS, mine.noise.shape[-1]), dim=-1).indices
        error_ULR = (mine.logits.double() - theirs.logits).gather(-1, rivals_ULR)
        logit_error = max(logit_error, float((error_ULR.amax(-1) - error_ULR.amin(-1)).max()) / (1 + 2 * t))
        if mine.class_saliency is not None and theirs.class_saliency is not None:  # of both halves
            m_BL, exact_BL = mine.class_saliency, theirs.class_saliency
        else:
            m_BL, exact_BL = mine.saliency(), theirs.saliency()
        is_upper_half_BL = exact_BL >= exact_BL.median(dim=-1, keepdim=True).values
        saliency_error = max(saliency_error, float((m_BL.double() / exact_BL - 1)[is_upper_half_BL].abs().max()))
    return Tolerances(logit_error, saliency_error)
