"""THE generation loop, a generator that yields each scale. The app, the export and the tests all use it.

VAR's next-scale prediction (arXiv 2404.02905) with HierAmp's class tokens and amplification (arXiv 2603.06932,
Algorithm 1). Letters: U rows computed, B = U or (with classifier-free guidance) 2·U rows, L positions, P those of one
pass, V codes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hieramp.generation.captured import CudaGraphCache, acquire_graphs
from hieramp.generation.memory import PrefixCache
from hieramp.generation.request import PrefixTokens, Request
from hieramp.generation.rows import SharedRows
from hieramp.generation.sampling import filter_logits, guide, gumbel_noise, sample
from hieramp.generation.scale import (
    AmplifyHook,
    ReplayHook,
    ScaleResult,
    ScaleSettings,
    saliency_without_class_token,
)
from hieramp.generation.step import Step
from hieramp.var.model import VAR, Generation
from hieramp.var.passes import append_known_tokens
from hieramp.vqvae.model import VQVAE

__all__ = ["PrefixCache", "PrefixTokens", "Request", "Step", "draw"]


@torch.no_grad()
def draw(
    vqvae: VQVAE, var: VAR, request: Request, memory: PrefixCache | None = None, captured: CudaGraphCache | None = None
) -> Iterator[Step]:
    """Draw images scale by scale.

    Images that are the same up to a scale share one row until they part (`SharedRows`). With a memory, scales that an
    earlier drawing shares are not computed again. With `captured`, scales are CUDA graphs where they can be: the same
    computation with fewer launches.
    """
    rows = SharedRows(vqvae, var, request)
    steps = rows.resume_from(memory.best(request, var)) if memory is not None else []
    try:
        yield from tuple(steps)
        with acquire_graphs(captured if memory is None else None, rows, draw_scale) as graphs:
            for scale in range(len(steps), len(var.scales)):
                rows.split(scale)
                settings, prefix_UL = rows.settings(scale), rows.prefix_of_scale(scale)
                if graphs is None:
                    result = draw_scale(vqvae, var, settings, rows.state, rows.f_hat, rows.keys_U2, prefix_UL)
                    rows.f_hat = result.f_hat
                else:
                    result = graphs.draw_scale(settings)
                step = rows.step(settings, result, prefix_UL)
                if memory is not None:
                    steps.append(step)
                yield step
    finally:
        if memory is not None and steps:
            memory.keep(rows.prefix(steps), var)


def draw_scale(
    vqvae: VQVAE,
    var: VAR,
    settings: ScaleSettings,
    state: Generation,
    f_hat: Tensor,
    keys_U2: Tensor,
    prefix_UL: Tensor | None = None,
) -> ScaleResult:
    """Draw one scale, from what the scales before left to what this one adds. Nothing here waits for the device.

    `state` holds the class embeddings and the KV cache of the B rows, `f_hat` (U, code_dim, N, N) the sum of the scales
    before, `keys_U2` the noise keys. Tokens that are given are taken instead of drawn.
    Most scales are drawn in one pass. A model that draws its last scale in several takes the saliency from the first,
    when no token of the scale is known, and amplifies the same positions in all.
    """
    scale, sampling, num_rows = settings.scale, settings.sampling, len(keys_U2)
    # Condition: on the class, which `state` holds, and on the scales before.
    inputs = None if scale == 0 else settings.cfg_rows(vqvae.quantize.next_input(scale, f_hat))

    # Step, with saliency and amplification in it: in the amplified blocks the hook takes m_s from the class token's
    # attention (Algorithm 1, line 2), finds the top positions a_s (line 3) and adds β·a_s to the logits (line 4).
    hook = AmplifyHook(settings, keys_U2)
    out = var.step(state, scale, inputs, hook, class_logits=settings.return_attention, keep_entry=hook.rerun_from)
    logits_BLV = out.logits_BLV
    saliency_logits_BLV = logits_BLV if hook.saliency_BL is None and settings.use_cfg else None
    if hook.rerun_from is not None:  # no class token: m_s from the guidance of this run, amplified in a second one
        m_UL = saliency_without_class_token(logits_BLV[:num_rows], saliency_logits_BLV)
        hook.known_BL = settings.cfg_rows(m_UL)
        logits_BLV = var.step(
            state, scale, inputs, hook, first_block=hook.rerun_from, entry_BTC=out.entry_BTC
        ).logits_BLV

    noise_ULV = gumbel_noise(keys_U2, scale, *logits_BLV.shape[1:])
    if settings.temperature != 1:
        noise_ULV = noise_ULV * settings.temperature
    tokens_UL = torch.zeros(logits_BLV[:num_rows, :, 0].shape, dtype=torch.long, device=f_hat.device)
    passes: Sequence[Tensor | slice] = var.passes(scale) or (slice(None),)
    logits, filtered = [], []
    for number, positions in enumerate(passes):
        if number == 0:
            at_BPV = logits_BLV[:, positions]
        else:  # a later pass knows the tokens of those before it
            assert inputs is not None and isinstance(positions, Tensor)
            codes, known = vqvae.quantize.unit_codes(tokens_UL), (var.pass_N < number).expand_as(tokens_UL)
            inputs_BLC = settings.cfg_rows(append_known_tokens(inputs[:num_rows], codes, known))
            at_BPV = var.step(state, scale, inputs_BLC, ReplayHook(hook.key_biases), again=positions).logits_BLV
        # Guide: (1+t)·conditional - t·unconditional.
        guided_UPV = guide(at_BPV[:num_rows], at_BPV[num_rows:], settings.guidance) if settings.use_cfg else at_BPV
        # Sample: top-k, top-p, then one code per position by the Gumbel-max trick.
        kept_UPV = filter_logits(guided_UPV, sampling.top_k, sampling.top_p)
        tokens_UP = sample(kept_UPV, noise_ULV[:, positions]) if prefix_UL is None else prefix_UL[:, positions]
        tokens_UL[:, positions] = tokens_UP
        logits.append(guided_UPV)
        filtered.append(kept_UPV)

    # Add to the latent: codes, bicubic to the finest side, φ.
    f_hat = f_hat + vqvae.quantize.contribution(scale, tokens_UL)
    return ScaleResult(
        tokens=tokens_UL,
        logits=_by_position(logits, passes),
        filtered=_by_position(filtered, passes),
        noise=noise_ULV,
        f_hat=f_hat,
        attention=torch.stack(hook.attention, 1) if hook.attention else None,
        class_logits=None if out.class_logits_BK is None else _of_the_map(var, out.class_logits_BK, num_rows),
        class_saliency=hook.saliency_BL,
        cfg_logits=saliency_logits_BLV,
        ranked_maps=tuple(hook.ranked_maps),
    )


def _of_the_map(var: VAR, class_logits_BK: Tensor, num_rows: int) -> Tensor:
    """Those of the half whose saliency it is: own class tokens look where the label is hidden."""
    return class_logits_BK[-num_rows:] if var.config.own_class_tokens else class_logits_BK[:num_rows]


def _by_position(parts_UPV: Sequence[Tensor], passes: Sequence[Tensor | slice]) -> Tensor:
    """The parts that the passes drew, in the order of the positions."""
    if len(parts_UPV) == 1:
        return parts_UPV[0]
    return torch.cat(list(parts_UPV), dim=1)[:, torch.cat([p for p in passes if isinstance(p, Tensor)]).argsort()]
