"""Dose and response: what a picture does as one stage's β (or γ), or its ρ, grows, over several seeds.

Every dose is compared with the plain picture of the same seed. Intervals are Student's t over the seeds: with eight, a
percentile bootstrap is too narrow by about a quarter. They are of the mean over seeds of this one class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hieramp.class_names import slug
from hieramp.classifier import Classifier
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
    "entropy": "entropy of the stage’s token distributions, nats",
}


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
    def is_finished(self) -> bool:
        return len(self.responses) == len(self.doses)


def doses_of(settings: Settings, knob: Knob, count: int = DOSES) -> tuple[float, ...]:
    """Evenly spaced doses: β from 0 to 8, γ from 0 to 8, ρ from 1/count to 1.

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
    model: Model,
    classifier: Classifier,
    label: int,
    stage: str,
    knob: Knob,
    settings: Settings,
    seeds: Sequence[int],
    doses: Sequence[float] | None = None,
) -> Iterator[Sweep]:
    """Draw the plain pictures, then every dose, the other settings as they are; yields after each.

    Where the stage is off, ρ is swept at its default β of 5, and β at ρ = 50 %. With the same seed, all doses share
    their noise.

    Raises:
        UserError: a stage or knob that is not there, fewer than two seeds or doses, or a dose that no picture can have.
    """
    if stage not in STAGES:
        raise UserError(f"stage is {stage!r}: sweep one of {', '.join(STAGES)}")
    if len(seeds) < 2:
        raise UserError(f"{len(seeds)} seed has no interval: take at least 2")
    wanted = doses_of(settings, knob) if doses is None else tuple(doses)
    rho, strength = getattr(settings, stage) or (0.5, settings.neutral)
    if knob == "rho" and strength == settings.neutral:
        strength = 5.0
    if len(wanted) < 2:
        raise UserError(f"{len(wanted)} dose is no sweep: take at least 2")
    held = rho if knob == "strength" else strength
    pairs: list[Any] = [(rho, dose) if knob == "strength" else (dose, strength) for dose in wanted]
    dosed = [replace(settings, **{stage: pair}) for pair in pairs]
    scales, seeds = model.var.scales.stages[stage], tuple(seeds)
    if not scales:
        raise UserError(f"{model.name} has no scale in stage {stage}: sweep another")
    images, entropy = _draw(model, label, seeds, settings.plain, scales)
    about = classifier.mean.device
    plain_features = _features(classifier, images.to(about))
    plain = _response(classifier, label, 0.0, images, entropy, images, plain_features)
    responses: list[Response] = []
    yield Sweep(stage, knob, seeds, wanted, held, plain, ())
    for dose, how in zip(wanted, dosed, strict=True):
        some, entropy = _draw(model, label, seeds, how, scales)
        responses.append(_response(classifier, label, dose, some, entropy, images, plain_features))
        yield Sweep(stage, knob, seeds, wanted, held, plain, tuple(responses))


def _draw(
    model: Model, label: int, seeds: Sequence[int], settings: Settings, scales: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Pictures, and the mean entropy in nats of what their tokens at these scales were drawn from, (seeds,)."""
    sums, count = torch.zeros(len(seeds)), 0
    for step in model.steps([label] * len(seeds), list(seeds), settings):
        if step.scale not in scales:
            continue
        result, rows = step.rows.result, step.row_of_image
        temperature = settings.sampling.temperature_at(step.scale, model.var.scales)
        if temperature > 0:  # else there is nothing to choose
            log_p = (result.filtered[rows].float() / temperature).log_softmax(-1)
            sums += -(log_p.exp() * log_p.clamp_min(-1e4)).sum((1, 2)).cpu()
        count += step.side**2
    return step.image.cpu(), sums / max(1, count)


@torch.no_grad()
def _features(classifier: Classifier, images: Tensor) -> Tensor:
    return classifier.features(images).cpu()


@torch.no_grad()
def _response(
    classifier: Classifier, label: int, dose: float, images: Tensor, entropy: Tensor, plain: Tensor, theirs: Tensor
) -> Response:
    features = classifier.features(images.to(classifier.mean.device))
    probability = classifier.network.fc(features).softmax(-1)[:, label].cpu()
    found: dict[str, Any] = {
        "probability": probability,
        "pixels": (images - plain).square().mean((1, 2, 3)).sqrt(),
        "features": (features.cpu() - theirs).norm(dim=1),
        "entropy": entropy,
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
    rows: list[list[Any]] = [["stage", "knob", "dose", "seed", *MEASURES]]
    for name, response in (("", found.plain), *((f"{r.dose:g}", r) for r in found.responses)):
        for i, seed in enumerate(found.seeds):
            rows.append([found.stage, found.knob, name, seed, *(round(response.values[m][i], 6) for m in MEASURES)])
    return rows


def in_words(found: Sweep, measure: str = "probability") -> str:
    """What the last dose did against the plain pictures, in one sentence."""
    last, n = found.responses[-1], len(found.seeds)
    change, letter = last.change(found.plain, measure), "ρ" if found.knob == "rho" else "strength"
    return (
        f"{found.stage}, {letter} {last.dose:g}: {MEASURES[measure]} {found.plain.estimate(measure).mean:.3f} → "
        f"{last.estimate(measure).mean:.3f}, paired difference {change.mean:+.3f} "
        f"({change.low:+.3f} to {change.high:+.3f}, 95 % by Student's t, n = {n} seeds)."
    )


def summary(found: Sweep) -> dict[str, Any]:
    """The sweep for JSON: means with 95 % intervals, and by how much each dose differs from the plain pictures."""
    points = [
        {
            "dose": response.dose,
            **{m: vars(response.estimate(m)) for m in MEASURES},
            "change": {m: vars(response.change(found.plain, m)) for m in MEASURES},
        }
        for response in found.responses
    ]
    plain = {m: vars(found.plain.estimate(m)) for m in MEASURES}
    return {"measures": MEASURES, "plain": plain, "doses": points, "in_words": in_words(found)}


def swept(found: Sweep) -> dict[str, Any]:
    """What a file of the sweep says of it, beside the settings."""
    other = "strength" if found.knob == "rho" else "rho"
    about = {"stage": found.stage, "knob": found.knob, "doses": list(found.doses), other: found.held}
    return {STUDY: {"what": "dose and response", **about, "interval": "95 %, Student's t over the seeds"}}


def file_start(found: Sweep, class_name: str) -> str:
    """What the names of its files begin with: "cat-seed0-n8-dose-fine-strength"."""
    n = len(found.seeds)
    return f"{slug(class_name)}-seed{found.seeds[0]}-n{n}-dose-{found.stage}-{found.knob}"
