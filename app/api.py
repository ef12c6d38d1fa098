"""The named endpoints: what the page does, for gradio_client and, with --mcp, for MCP.

Every endpoint takes the settings of the page under their own names, described once, in `SETTINGS`.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from app import ablate, handlers, orders, plots, recipes, scenes, sheets
from app.changed import choose_classes
from app.desk import DEVICE, STUDY, Desk, sentences
from app.jobs import Job
from hieramp.analysis.schedules import compare_schedules, count_tokens
from hieramp.distillation.distill import estimate
from hieramp.scales import STAGES

Mode = Literal["logit", "attention"]
Kind = Literal["schedules", "coarse", "mid", "fine"]
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """An argument of an endpoint: name, type, default and what it means."""

    name: str
    type: Any
    default: Any
    about: str


_ABOUT = {
    "class_name": "Name, number or ImageNet id of the class.",
    "seed": "Seed of the first image, a whole number of at least 0; the next images have seed+1, seed+2, …",
    "count": f"Number of images of each kind, 1 to {orders.MAX_COUNT}.",
    "guidance": "Strength of classifier-free guidance at the last scale, at least 0.",
    "guidance_power": "How guidance grows with the scale, at least 0: 1 evenly, 0.5 with its root, 0 the same for all.",
    "top_k": "Tokens are drawn from the likeliest so many codes; 0 is off.",
    "top_p": "Tokens are drawn from the smallest set of codes with this probability, at most 1; 0 is off.",
    "coarse_temperature": "Of the draw at the coarse scales, at least 0: under 1 the likelier codes win more often.",
    "mid_temperature": "Of the draw at the mid scales.",
    "fine_temperature": "Of the draw at the fine scales.",
    "coarse_rho": "Share of positions amplified at the coarse scales, over 0 and at most 1.",
    "coarse_strength": "Strength at the coarse scales: β (mode logit, 0 is off) or γ (mode attention, 1 is off).",
    "mid_rho": "Share of positions amplified at the mid scales.",
    "mid_strength": "Strength at the mid scales, β or γ.",
    "fine_rho": "Share of positions amplified at the fine scales.",
    "fine_strength": "Strength at the fine scales, β or γ.",
    "mode": 'How: "logit" adds β to the logits of salient keys, "attention" multiplies their weights by γ.',
    "painted": 'Positions to amplify instead of the salient ones: "3:1f;4:ff0", per scale a hexadecimal number whose '
    "bit i is position i.",
}
SETTINGS = tuple(
    Argument(
        name,
        Mode if name == "mode" else str if name == "class_name" else type(default),
        REQUIRED if name == "class_name" else default,
        _ABOUT[name],
    )
    for name, default in orders.DEFAULTS.items()
)
_SHARED = tuple(a for a in SETTINGS if a.name not in ("class_name", "seed", "count"))
_SAMPLING = tuple(a for a in _SHARED if a.name in orders.SAMPLING_FIELDS)
_ONE = tuple(a for a in SETTINGS if a.name != "count")


def endpoint(
    function: Callable[..., Any], name: str, about: str, arguments: Sequence[Argument], returns: str, **event: Any
) -> None:
    """A public endpoint. `function` gets the arguments by name; what a caller got wrong comes back as a sentence."""

    def call(*values: Any) -> dict[str, Any]:
        with sentences():
            return function(**dict(zip([a.name for a in arguments], values, strict=True)))

    arguments = sorted(arguments, key=lambda a: a.default is not REQUIRED)
    lines = "\n".join(f"    {a.name}: {a.about}" for a in arguments)
    call.__name__ = name
    call.__doc__ = f"{about}\n\n" + (f"Args:\n{lines}\n\n" if lines else "") + f"Returns:\n    {returns}"
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(a.name, kind, default=a.default, annotation=a.type) for a in arguments]
    call.__signature__ = inspect.Signature(parameters, return_annotation=dict[str, Any])  # type: ignore[attr-defined]
    call.__annotations__ = {**{a.name: a.type for a in arguments}, "return": dict[str, Any]}
    # Gradio would show the first line only.
    gr.api(call, api_name=name, api_description=call.__doc__, **event)


class Endpoints:
    """What the endpoints do; each gets its arguments by name."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.model, self.limits = desk, desk.model, desk.limits

    def classes(self) -> dict[str, Any]:
        scales = self.model.var.scales
        stages = {stage: list(scales.stages[stage]) for stage in STAGES}
        names = list(self.model.class_names)
        return {"model": self.model.name, "classes": names, "sides": list(scales.sides), "stages": stages}

    def generate(self, **settings: Any) -> dict[str, Any]:
        order = self._order(settings)
        with self.desk.device.drawing():
            return handlers.generate(self.model, order)

    def saliency(self, **settings: Any) -> dict[str, Any]:
        order = self._order(settings)
        with self.desk.device.drawing():
            return handlers.saliency(self.model, order)

    def count_tokens(self, samples: int, **settings: Any) -> dict[str, Any]:
        order, wanted = self._order(settings), self._samples(samples)
        counts = count_tokens(self.model, order.label, wanted, order.amplification, order.seeds[0], order.sampling)
        *_, found = self.desk.device.in_gaps(counts)
        return {"csv": plots.usage_csv(found, self.model.var.scales.sides), "changed": list(found.changed)}

    def compare_schedules(self, classes: int, samples: int, **settings: Any) -> dict[str, Any]:
        order, wanted = self._order({"class_name": 0, **settings}), self._samples(samples)
        num_classes = len(self.model.class_names)
        chosen = orders.whole("the number of classes", classes, 1, min(self.limits.classes, num_classes))
        labels = choose_classes(num_classes, chosen, order.seeds[0])
        compared = compare_schedules(self.model, labels, wanted, order.seeds[0], order.sampling)
        *_, found = self.desk.device.in_gaps(compared)
        return {"csv": plots.risen_csv(found)}

    def ablate(self, kind: str, **settings: Any) -> dict[str, Any]:
        order = self._order(settings)
        *_, found = self.desk.device.in_gaps(sheets.draw_sheet(self.model, ablate.plan(order, kind)))
        uri = scenes.data_uri(found.as_picture(), orders.settings_of(self.model, order))
        return {"sheet": uri, "labels": [found.label(i) for i in range(len(found.orders))]}

    def estimate(self, **settings: Any) -> dict[str, Any]:
        recipe = self._recipe(settings)
        with self.desk.device.drawing():
            found = estimate(self.model, recipe.num_images, recipe.soft_labels)
        return {"images": recipe.num_images, "seconds": found.seconds, "bytes": found.bytes}

    def distil(self, **settings: Any) -> dict[str, Any]:
        return job_answer(self.desk.jobs.start(self._recipe(settings)))

    def job(self, job_id: str) -> dict[str, Any]:
        return job_answer(self.desk.jobs.get(job_id))

    def stop_job(self, job_id: str) -> dict[str, Any]:
        return job_answer(self.desk.jobs.stop(job_id))

    def resume_job(self, job_id: str) -> dict[str, Any]:
        return job_answer(self.desk.jobs.resume(job_id))

    def _order(self, settings: dict[str, Any]) -> orders.Order:
        return orders.read_order(self.model, *({**orders.DEFAULTS, **settings}[name] for name in orders.FIELDS))

    def _samples(self, samples: Any) -> int:
        return orders.whole("the number of samples", samples, 1, self.limits.samples)

    def _recipe(self, settings: dict[str, Any]) -> recipes.Recipe:
        own = [settings.pop(name) for name in ("classes", "ipc", "set_seed", "soft_labels")]
        fields = [{**orders.DEFAULTS, **settings}[name] for name in orders.FIELDS]
        return recipes.read_recipe(self.model, self.limits, *own, *fields)


def build(desk: Desk) -> None:
    """All public endpoints of the page."""
    does, limits, num_classes = Endpoints(desk), desk.limits, len(desk.model.class_names)
    drawing: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1}
    studying = {"concurrency_id": STUDY, "concurrency_limit": 2}
    asking = {"concurrency_limit": None}
    cheap = {"queue": False}
    kind = Argument("kind", Kind, "schedules", "The eight schedules, or strength by ρ of one stage.")
    samples = Argument("samples", int, 16, f"Images drawn of each kind, 1 to {limits.samples}.")
    several = Argument("classes", int, min(10, num_classes), f"How many classes, at most {limits.classes}.")
    job_id = Argument("job_id", str, REQUIRED, "What distil answered.")
    made = (
        Argument("classes", str, "", "Names or numbers of the classes, separated by commas; none for all."),
        Argument("ipc", int, 10, f"Images per class, 1 to {limits.ipc}."),
        Argument("set_seed", int, 0, "Seed of the set."),
        Argument("soft_labels", bool, False, "Add the classifier's logits of every image."),
        *_SHARED,
    )
    stands = "job_id, state, done, total, message; file: the zip, when it is finished."
    table: list[tuple[Callable[..., Any], dict[str, Any], Sequence[Argument], str, str]] = [
        (does.classes, cheap, (), "The model's classes and scales.", "model, classes, sides, stages."),
        (does.generate, drawing, SETTINGS, "Draw images of a class, plain and amplified, from the same seeds.",
         "settings, and under baseline and amplified one data: address of a PNG per seed."),
        (does.saliency, drawing, _ONE, "Where each scale looks, and what its class token believes.",
         "settings; per scale both maps and likeliest classes, the positions chosen, the tokens that changed."),
        (does.count_tokens, studying, (samples, *_ONE), "Entropy and coverage of a class's tokens in both.",
         "csv per scale and stage; changed: per scale the share of samples whose token differs."),
        (does.compare_schedules, studying, (several, samples, SETTINGS[1], *_SAMPLING),
         "The share of classes whose entropy or coverage rises under each schedule.", "csv per schedule and stage."),
        (does.ablate, studying, (kind, *_ONE), "One class and seed under many settings, as a sheet.",
         "sheet: data: address of a PNG; labels of its pictures, row by row."),
        (does.estimate, drawing, made, "What a distilled set would take.", "images, seconds, bytes."),
        (does.distil, asking, made, "Make a distilled set in the background.", stands),
        (does.job, cheap, (job_id,), "Where a job stands.", stands),
        (does.stop_job, cheap, (job_id,), "Stop a job after the batch in hand; what is drawn is kept.", stands),
        (does.resume_job, asking, (job_id,), "Go on with a job that stopped.", stands),
    ]  # fmt: skip
    for function, event, arguments, about, returns in table:
        endpoint(function, function.__name__, about, arguments, returns, **event)


def job_answer(job: Job | None) -> dict[str, Any]:
    """Raises ValueError where there is no such job."""
    if job is None:
        raise ValueError("there is no such job: it was never started, or was removed")
    file = None
    if job.state == "done":
        file = {"path": str(job.path), "orig_name": job.path.name, "meta": {"_type": "gradio.FileData"}}
    answer = {"job_id": job.id, "state": job.state, "done": job.done, "total": job.recipe.num_images}
    return {**answer, "message": job.message, "file": file}
