"""Dose and response: what a picture does as one stage's strength (β, γ, or α of a diffusion transformer), or its ρ,
grows, over several seeds.

Every dose is compared with the plain picture of the same seed. Intervals are Student's t over the seeds: with eight, a
percentile bootstrap is too narrow by about a quarter. They are of the mean over seeds of this one class.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hieramp.amplification.settings import OUTPUT_SCHEDULES, SCHEDULES, Amplification
from hieramp.captions import signed
from hieramp.class_names import slug
from hieramp.classifier import Classifier
from hieramp.diffusion.latents import vqvae_of
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.figures import STUDY
from hieramp.generation.model import Model
from hieramp.scales import STAGES
from hieramp.settings import Settings

Knob = Literal["strength", "rho"]
DOSES, SEEDS = 9, 8
MEASURES = {
    "probability": "classifier’s probability of the class",
    "pixels": "distance of the pixels, root mean square, of 1",
    "features": "distance of the classifier’s features",
    "entropy": "entropy of the stage’s token distributions, nats",  # of a VAR
    "codes": "different codes of the picture, encoded by the VQ-VAE",  # of a diffusion transformer on its latents
}
# the pair that a stage which is off is swept at, by kind of model
_ON: dict[str, Amplification] = {"var": SCHEDULES["all"], "dit": OUTPUT_SCHEDULES["all"]}


@dataclass(frozen=True)
class MeanInterval:
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Response:
    """What one dose gave, seed by seed."""

    dose: float
    values: dict[str, tuple[float, ...]]  # by measure, one for each seed
    images: Tensor  # (seeds, 3, H, W) in [0, 1]

    def estimate(self, measure: str) -> MeanInterval:
        low, high = (0.0, 1.0) if measure == "probability" else (0.0, float("inf"))
        found = t_interval(self.values[measure])
        return MeanInterval(found.mean, max(low, found.low), min(high, found.high))

    def change(self, plain: "Response", measure: str) -> MeanInterval:
        """The mean of the paired differences from the plain pictures, with its interval."""
        pairs = zip(self.values[measure], plain.values[measure], strict=True)
        return t_interval([mine - theirs for mine, theirs in pairs])


@dataclass(frozen=True)
class Sweep:
    """The doses so far."""

    stage: str
    knob: Knob
    seeds: tuple[int, ...]
    doses: tuple[float, ...]  # all that are wanted
    held: float  # the ρ, or the strength, that all of them have
    plain: Response
    responses: tuple[Response, ...]  # those that are drawn

    @property
    def measures(self) -> dict[str, str]:
        """Those of MEASURES that there are of this kind of model."""
        return {name: text for name, text in MEASURES.items() if name in self.plain.values}

    @property
    def is_finished(self) -> bool:
        return len(self.responses) == len(self.doses)


def doses_of(settings: Settings, knob: Knob, count: int = DOSES) -> tuple[float, ...]:
    """Evenly spaced doses: β, γ or α from 0 to 8, ρ from 1/count to 1.

    Raises:
        UserError: another knob, or fewer than two doses.
    """
    if knob not in ("strength", "rho"):
        raise UserError(f"the knob is {knob!r}: sweep strength or rho")
    if count < 2:
        raise UserError(f"{count} doses are no sweep: take at least 2")
    if knob == "rho":
        return tuple(round((i + 1) / count, 4) for i in range(count))
    return tuple(round(8 * i / (count - 1), 4) for i in range(count))


def sweep(
    model: Model | DiffusionModel,
    classifier: Classifier,
    label: int,
    stage: str,
    knob: Knob,
    settings: Settings,
    seeds: Sequence[int],
    doses: Sequence[float] | None = None,
) -> Iterator[Sweep]:
    """Draw the plain pictures, then every dose, the other settings as they are; yields after each.

    Where the stage is off, ρ is swept at the default strength (β 5, α 1), and the strength at ρ = 50 %. With the same
    seed, all doses share their noise.

    Raises:
        UserError: a stage or knob that is not there, a stage in which nothing can be amplified, fewer than two seeds or
            doses, or a dose that no picture can have.
    """
    if stage not in STAGES:
        raise UserError(f"stage is {stage!r}: sweep one of {', '.join(STAGES)}")
    if isinstance(model, DiffusionModel) and not _acts(model, stage, settings.steps):
        raise UserError(f"in {settings.steps} steps there is none of the stage {stage} to amplify: take more steps")
    if isinstance(model, Model) and not model.var.scales.stages[stage]:
        raise UserError(f"{model.name} has no scale in stage {stage}: sweep another")
    if len(seeds) < 2:
        raise UserError(f"{len(seeds)} seed has no interval: take at least 2")
    wanted = doses_of(settings, knob) if doses is None else tuple(doses)
    default_rho, default_strength = getattr(_ON[model.kind], stage)
    rho, strength = getattr(settings, stage) or (default_rho, settings.neutral)
    if knob == "rho" and strength == settings.neutral:
        strength = default_strength
    if len(wanted) < 2:
        raise UserError(f"{len(wanted)} dose is no sweep: take at least 2")
    held = rho if knob == "strength" else strength
    pairs: list[Any] = [(rho, dose) if knob == "strength" else (dose, strength) for dose in wanted]
    dosed = [replace(settings, **{stage: pair}) for pair in pairs]
    seeds = tuple(seeds)
    images, tokens = _draw(model, label, seeds, settings.plain, stage)
    about = classifier.mean.device
    plain_features = _features(classifier, images.to(about))
    plain = _response(classifier, label, 0.0, images, tokens, images, plain_features)
    responses: list[Response] = []
    yield Sweep(stage, knob, seeds, wanted, held, plain, ())
    for dose, how in zip(wanted, dosed, strict=True):
        some, tokens = _draw(model, label, seeds, how, stage)
        responses.append(_response(classifier, label, dose, some, tokens, images, plain_features))
        yield Sweep(stage, knob, seeds, wanted, held, plain, tuple(responses))


def _acts(model: DiffusionModel, stage: str, steps: int) -> bool:
    """Whether a stage has a step that can be amplified: the first one cannot, there being no map before it."""
    return any(level.stage == stage for level in model.denoiser.levels(steps)[1:-1])


def _draw(
    model: Model | DiffusionModel, label: int, seeds: Sequence[int], settings: Settings, stage: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures, and by its name what there is to count of tokens, (seeds,)."""
    how = label, seeds, settings
    return _draw_denoised(model, *how) if isinstance(model, DiffusionModel) else _draw_tokens(model, *how, stage)


@torch.no_grad()
def _draw_denoised(
    model: DiffusionModel, label: int, seeds: Sequence[int], settings: Settings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures, and where the latents are those of a VQ-VAE as many codes as each encodes to, (seeds,).

    No token is drawn, so that there is no distribution whose entropy could be told.
    """
    images = model.generate([label] * len(seeds), list(seeds), settings).images
    vqvae = vqvae_of(model.latents)
    if vqvae is None:
        return images.cpu(), {}
    per_scale = vqvae.encode(images * 2 - 1)
    codes_BT = torch.cat([tokens.flatten(1) for tokens in per_scale], dim=1)
    return images.cpu(), {"codes": torch.tensor([float(len(row.unique())) for row in codes_BT])}


def _draw_tokens(
    model: Model, label: int, seeds: Sequence[int], settings: Settings, stage: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures, and the mean entropy in nats of what their tokens at this stage were drawn from, (seeds,)."""
    sums, count, scales = torch.zeros(len(seeds)), 0, model.var.scales.stages[stage]
    for step in model.steps([label] * len(seeds), list(seeds), settings):
        if step.scale not in scales:
            continue
        result, rows = step.rows.result, step.row_of_image
        temperature = settings.sampling.temperature_at(step.scale, model.var.scales)
        if temperature > 0:  # else there is nothing to choose
            log_p = (result.filtered[rows].float() / temperature).log_softmax(-1)
            sums += -(log_p.exp() * log_p.clamp_min(-1e4)).sum((1, 2)).cpu()
        count += step.side**2
    return step.image.cpu(), {"entropy": sums / max(1, count)}


@torch.no_grad()
def _features(classifier: Classifier, images: Tensor) -> Tensor:
    return classifier.features(images).cpu()


@torch.no_grad()
def _response(
    classifier: Classifier,
    label: int,
    dose: float,
    images: Tensor,
    tokens: Mapping[str, Tensor],
    plain: Tensor,
    theirs: Tensor,
) -> Response:
    features = classifier.features(images.to(classifier.mean.device))
    probability = classifier.network.fc(features).softmax(-1)[:, label].cpu()
    found: dict[str, Any] = {
        "probability": probability,
        "pixels": (images - plain).square().mean((1, 2, 3)).sqrt(),
        "features": (features.cpu() - theirs).norm(dim=1),
        **tokens,
    }
    return Response(dose, {name: tuple(values.tolist()) for name, values in found.items()}, images)


def t_interval(values: Sequence[float]) -> MeanInterval:
    """The mean and its 95 % interval by Student's t.

    Raises:
        UserError: fewer than two values.
    """
    if len(values) < 2:
        raise UserError("an interval takes at least two values")
    x = np.asarray(values, np.float64)
    half = t_quantile(len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5
    return MeanInterval(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


@cache
def t_quantile(freedom: int) -> float:
    """What Student's t with so many degrees of freedom exceeds in 2.5 % of cases.

    With t = √ν · tan θ the density becomes cos^(ν-1) θ, whose integral is summed here.
    """
    theta = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(theta) ** (freedom - 1)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(freedom**0.5 * np.tan(np.interp(0.95, mass / mass[-1], theta)))


def rows_of(found: Sweep) -> list[list[Any]]:
    """The sweep as a table: a line for each dose and seed, the plain pictures first, with an empty dose."""
    rows: list[list[Any]] = [["stage", "knob", "dose", "seed", *found.measures]]
    for name, response in (("", found.plain), *((f"{r.dose:g}", r) for r in found.responses)):
        for i, seed in enumerate(found.seeds):
            values = (round(response.values[measure][i], 6) for measure in found.measures)
            rows.append([found.stage, found.knob, name, seed, *values])
    return rows


def in_words(found: Sweep, measure: str = "probability") -> str:
    """What the last dose did against the plain pictures, in one sentence."""
    last, n = found.responses[-1], len(found.seeds)
    change, letter = last.change(found.plain, measure), "ρ" if found.knob == "rho" else "strength"
    return (
        f"{found.stage}, {letter} {last.dose:g}: {MEASURES[measure]} {found.plain.estimate(measure).mean:.3f} → "
        f"{last.estimate(measure).mean:.3f}, paired difference {signed(change.mean)} "
        f"({signed(change.low)} to {signed(change.high)}, 95 % by Student's t, n = {n} seeds)."
    )


def summary(found: Sweep) -> dict[str, Any]:
    """The sweep for JSON: means with 95 % intervals, and by how much each dose differs from the plain pictures."""
    points = [
        {
            "dose": response.dose,
            **{m: vars(response.estimate(m)) for m in found.measures},
            "change": {m: vars(response.change(found.plain, m)) for m in found.measures},
        }
        for response in found.responses
    ]
    plain = {m: vars(found.plain.estimate(m)) for m in found.measures}
    return {"measures": found.measures, "plain": plain, "doses": points, "in_words": in_words(found)}


def swept(found: Sweep) -> dict[str, Any]:
    """What a file of the sweep says of it, beside the settings."""
    other = "strength" if found.knob == "rho" else "rho"
    about = {"stage": found.stage, "knob": found.knob, "doses": list(found.doses), other: found.held}
    return {STUDY: {"what": "dose and response", **about, "interval": "95 %, Student's t over the seeds"}}


def file_start(found: Sweep, class_name: str) -> str:
    """What the names of its files begin with: "cat-seed0-n8-dose-fine-strength"."""
    n = len(found.seeds)
    return f"{slug(class_name)}-seed{found.seeds[0]}-n{n}-dose-{found.stage}-{found.knob}"
