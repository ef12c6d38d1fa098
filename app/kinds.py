"""What the page asks of a model that may be a VAR, which grows by scale, or a diffusion transformer, by noise level.

Pure: without Gradio, and without anything else of the page.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hieramp import SCHEDULES, Model, Settings
from hieramp.amplification.settings import OUTPUT_SCHEDULES, Amplification
from hieramp.commands.arguments import some_of
from hieramp.diffusion.amplifier import strength_at
from hieramp.diffusion.levels import COARSE_UNTIL, MID_UNTIL, t_of
from hieramp.diffusion.model import DiffusionModel
from hieramp.fields import Part
from hieramp.scales import STAGES

AnyModel = Model | DiffusionModel
SHOWN = 25  # steps of a diffusion transformer that the strip shows at most, evenly spread, the last among them
INTRO = {
    "var": "A VAR model draws from coarse to fine. Its class tokens show where each scale looks; "
    "amplify what they look at and compare.",
    "dit": "A diffusion transformer draws from noise (t = 1) to picture (t = 0). The difference that the class makes "
    "shows where each step looks; amplify it and compare.",
}
# what the word for one step of growing is, and what the numbers over a map are
UNIT = {"var": "scale", "dit": "step"}
MAP = {"var": "saliency of the class token", "dit": "M, what the class moves"}
LEGEND = {
    "var": "Share of the class token’s attention at a position; the shares of a scale sum to 1",
    "dit": "Share of what the class moves at a position, averaged over the steps so far; the shares of a step sum to 1",
}


def schedules(kind: str) -> Mapping[str, Amplification]:
    """The schedules that a kind of model has, by their names."""
    return OUTPUT_SCHEDULES if kind == "dit" else SCHEDULES


def schedule_name(settings: Settings, kind: str) -> str | None:
    """The schedule that these stages and mode are, wherever they apply; None of another one."""
    if kind == "var":
        return settings.schedule
    stages = {stage: getattr(settings, stage) for stage in STAGES}
    acting: dict[str, Any] = {stage: value for stage, value in stages.items() if value and value[1]}
    return next((name for name, one in OUTPUT_SCHEDULES.items() if one == Amplification(**acting)), None)


def frame(model: AnyModel, settings: Settings) -> dict[str, Any]:
    """What a view model holds of its steps before they are drawn: positions a side, stage, name, whether amplified."""
    if isinstance(model, DiffusionModel):
        levels = model.denoiser.levels(settings.steps)
        at = shown_steps(settings)
        sides = [model.denoiser.token_side] * len(at)
        return {
            "sides": sides,
            "stages": [levels[i].stage for i in at],
            "titles": [f"t {levels[i + 1].t:.2f}" for i in at],
            "numbers": at,
            "live": [strength_at(settings.amplification, levels[i]) is not None for i in at],
        }
    scales = model.var.scales
    return {
        "sides": list(scales.sides),
        "stages": [scales.stage_of(scale) for scale in range(len(scales))],
        "titles": [f"{side}×{side}" for side in scales.sides],
        "numbers": list(range(len(scales))),
        "live": [settings.at(scale, scales) is not None for scale in range(len(scales))],
    }


def shown_steps(settings: Settings) -> list[int]:
    """The steps of a diffusion transformer that are shown, from 0."""
    return some_of(settings.steps, SHOWN)


def is_offered(model: AnyModel, part: Part) -> bool:
    """Whether there is a choice: without a class token the map M comes from guidance."""
    return part.name != "map_from" or getattr(model, "class_token", None) is not None


def stage_range(model: AnyModel, stage: str) -> str:
    """Which steps a stage means: "scales 2–3", "t 0.88–0.62"."""
    if isinstance(model, DiffusionModel):
        edges = (1.0, t_of(COARSE_UNTIL), t_of(MID_UNTIL), 0.0)
        borders = dict(zip(STAGES, pairwise(edges), strict=True))
        return "t {:.2g}–{:.2g}".format(*borders[stage])
    scales = model.var.scales.stages[stage]
    if not scales:
        return "no scale"
    return f"scale {scales[0]}" if len(scales) == 1 else f"scales {scales[0]}–{scales[-1]}"


def stage_choices(model: AnyModel) -> list[tuple[str, str]]:
    """The stages that there are, each by what it is called: that of noise levels with its range."""
    if isinstance(model, DiffusionModel):
        return [(f"{stage} ({stage_range(model, stage)})", stage) for stage in STAGES]
    return [(stage, stage) for stage in STAGES if model.var.scales.stages[stage]]


def about(model: AnyModel) -> dict[str, Any]:
    """Its classes and how it grows, as the endpoint `classes` answers."""
    found: dict[str, Any] = {"model": model.name, "classes": list(model.class_names)}
    if isinstance(model, DiffusionModel):
        return found | {"sides": [model.denoiser.token_side], "stages": {s: stage_range(model, s) for s in STAGES}}
    scales = model.var.scales
    return found | {"sides": list(scales.sides), "stages": {stage: list(scales.stages[stage]) for stage in STAGES}}


def with_schedule(settings: Settings, name: str, kind: str) -> Settings:
    """These settings with the stages and the mode of a schedule; blocks and the choice of positions stay."""
    schedule = schedules(kind)[name]
    stages: dict[str, Any] = {stage: getattr(schedule, stage) for stage in STAGES}
    return replace(settings, **stages, mode=schedule.mode, positions=None)
