"""Does the map M of a diffusion transformer follow its picture? The test that a VAR's maps pass, by stage of noise.

A picture's latent is noised to a few levels of each stage, each with noise of its own; there the two halves of guidance
are computed, as while drawing, and the maps of a stage averaged. What follows is `analysis.faithfulness`, as it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hieramp.amplification.output import RunningMap, guidance_difference
from hieramp.analysis.faithfulness import (
    BATCH,
    FAMILIES,
    Judge,
    Maps,
    Pictures,
    ceilings_of,
    fixed_share,
    judged,
)
from hieramp.diffusion.levels import NoiseLevel
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.noise import gaussian
from hieramp.scales import STAGES

# t of the linear path; the borders are at 0.88 and 0.62
TIMES = dict(zip(STAGES, ((0.96, 0.92), (0.8, 0.7), (0.5, 0.3)), strict=True))


def plain_pictures(images_NCHW: Tensor, labels_N: Tensor) -> Pictures:
    """Pictures, uint8; a diffusion transformer has no tokens of them."""
    return Pictures(images_NCHW, labels_N, ())


def drawn_plainly(model: DiffusionModel, per_class: int) -> Pictures:
    """Pictures that the model draws at its default settings, seeds 0, 1, … of every class."""
    labels = torch.arange(len(model.class_names)).repeat_interleave(per_class)
    seeds = torch.arange(per_class).repeat(len(model.class_names))
    parts = [
        model.generate(labels[rows].tolist(), seeds[rows].tolist()).images.mul(255).round().byte().cpu()
        for rows in torch.arange(len(labels)).split(BATCH)
    ]
    return plain_pictures(torch.cat(parts), labels)


def levels_near(model: DiffusionModel, t: float) -> NoiseLevel:
    """The noise level of the model that is nearest to a t of the linear path."""
    return min(model.denoiser.levels(1000)[1:-1], key=lambda level: abs(level.t - t))


@torch.no_grad()
def maps_of_dit(model: DiffusionModel, pictures: Pictures) -> Maps:
    """M of each picture, by family and stage, and whether the class token names the pictures there."""
    denoiser, token = model.denoiser, model.class_token
    parts: list[dict[str, list[Tensor]]] = []
    named: list[Tensor] = []
    for rows in torch.arange(len(pictures.labels)).split(BATCH):
        labels = pictures.labels[rows].to(model.device)
        x0 = model.latents.encode(pictures.images[rows].to(model.device).float() / 255)
        found: dict[str, list[Tensor]] = {family: [] for family in FAMILIES if token or family == "guidance"}
        right = torch.zeros(len(rows), len(STAGES))
        for stage, times in enumerate(TIMES.values()):
            running = {family: RunningMap() for family in found}
            for t in times:
                level = levels_near(model, t)
                noise = gaussian(labels.tolist(), rows.tolist(), denoiser.shape, model.device, f"saliency/{t}")
                z, entering = level.signal * x0 + level.noise * noise, dict[int, Tensor]()
                null = torch.full_like(labels, denoiser.null_label)
                told = denoiser.predict(z, level, labels)
                untold = denoiser.predict(z, level, null, watch=entering.__setitem__ if token else None)
                difference = guidance_difference(told.velocity, untold.velocity)
                if difference.shape[-1] != denoiser.token_side:
                    difference = torch.nn.functional.adaptive_avg_pool2d(difference, denoiser.token_side)
                running["guidance"].add(difference)
                if token:
                    t_B = torch.full((len(rows),), level.t, device=model.device)
                    seen = token(entering[token.config.class_token_block], t_B)
                    running["class tokens"].add(seen.map().unflatten(1, difference.shape[1:]))
                    right[:, stage] += (token.answer(seen).argmax(-1) == labels).float().cpu() / len(times)
            for family, value in running.items():
                ranks = value.ranks()
                assert ranks is not None
                found[family].append((ranks / ranks.sum(1, keepdim=True)).cpu())
        parts.append(found)
        named.append(right)
    by_family = {
        family: tuple(torch.cat(stage) for stage in zip(*(part[family] for part in parts), strict=True))
        for family in parts[0]
    }
    return Maps(by_family, tuple(torch.cat(named).mean(0).tolist()) if token else None)


def dit_saliency_figures(
    model: DiffusionModel,
    judges: Mapping[str, Judge],
    pictures: Pictures,
    rho: float,
    networks: Mapping[str, nn.Module] | None = None,
) -> Iterator[dict[str, Any]]:
    """The whole test on one set of pictures, a row for every stage; `networks` are those behind the judges, by name."""
    maps = maps_of_dit(model, pictures)
    own = {name: ceilings_of(judge, pictures, (networks or {}).get(name)) for name, judge in judges.items()}
    for number, stage in enumerate(STAGES):
        row: dict[str, Any] = {
            "stage": stage,
            "side": model.denoiser.token_side,
            "fixed_share": {family: fixed_share(of_stage[number]) for family, of_stage in maps.by_family.items()},
        }
        if maps.named:
            row["named"] = maps.named[number]
        row["judges"] = {
            name: judged(judge, pictures, maps.by_family, number, rho, own[name]) for name, judge in judges.items()
        }
        yield row
