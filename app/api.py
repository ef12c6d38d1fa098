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
from app.desk import DEVICE, Desk, sentences
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
    "guidance": "Strength of classifier-free guidance, at least 0.",
    "top_k": "Tokens are drawn from the likeliest so many codes; 0 is off.",
    "top_p": "… and of these from the smallest set with this probability, at most 1; 0 is off.",
    "coarse_rho": "Share of positions amplified at the coarse scales, over 0 and at most 1.",
    "coarse_strength": "β (mode logit, 0 is off) or γ (mode attention, 1 is off) at the coarse scales.",
    "mid_rho": "Share of positions amplified at the mid scales.",
    "mid_strength": "β or γ at the mid scales.",
    "fine_rho": "Share of positions amplified at the fine scales.",
    "fine_strength": "β or γ at the fine scales.",
    "mode": '"logit" adds β to the logits of salient keys, "attention" multiplies their weights by γ.',
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


def build(desk: Desk) -> None:
    """All public endpoints of the page."""
    model, limits = desk.model, desk.limits
    drawing = {"concurrency_id": DEVICE, "concurrency_limit": 1}
    studying = {"concurrency_id": "study", "concurrency_limit": 2}
    asking = {"concurrency_limit": None}
    samples = Argument("samples", int, 16, f"Images drawn of each kind, 1 to {limits.samples}.")
    job_id = Argument("job_id", str, REQUIRED, "What distil answered.")

    def order_of(settings: dict[str, Any]) -> orders.Order:
        return orders.read_order(model, *({**orders.DEFAULTS, **settings}[name] for name in orders.FIELDS))

    def classes() -> dict[str, Any]:
        scales = model.var.scales
        return {"model": model.name, "classes": list(model.class_names), "sides": list(scales.sides),
                "stages": {stage: list(scales.stages[stage]) for stage in STAGES}}  # fmt: skip

    def generate(**settings: Any) -> dict[str, Any]:
        order = order_of(settings)
        with desk.device.drawing():
            return handlers.generate(model, order)

    def saliency(**settings: Any) -> dict[str, Any]:
        order = order_of(settings)
        with desk.device.drawing():
            return handlers.saliency(model, order)

    def count(samples: int, **settings: Any) -> dict[str, Any]:
        order = order_of(settings)
        wanted = orders.whole("the number of samples", samples, 1, limits.samples)
        counts = count_tokens(model, order.label, wanted, order.amplification, order.seeds[0], order.sampling)
        *_, found = desk.device.in_gaps(counts)
        return {"csv": plots.usage_csv(found, model.var.scales.sides), "changed": list(found.changed)}

    def compare(classes: int, samples: int, **settings: Any) -> dict[str, Any]:
        order = order_of({"class_name": 0, **settings})
        num = orders.whole("the number of classes", classes, 1, min(limits.classes, len(model.class_names)))
        wanted = orders.whole("the number of samples", samples, 1, limits.samples)
        labels = choose_classes(len(model.class_names), num, order.seeds[0])
        *_, found = desk.device.in_gaps(compare_schedules(model, labels, wanted, order.seeds[0], order.sampling))
        return {"csv": plots.risen_csv(found)}

    def sheet(kind: str, **settings: Any) -> dict[str, Any]:
        order = order_of(settings)
        *_, found = desk.device.in_gaps(sheets.draw_sheet(model, ablate.plan(order, kind)))
        uri = scenes.data_uri(found.as_picture(), orders.settings_of(model, order))
        return {"sheet": uri, "labels": [found.label(i) for i in range(len(found.orders))]}

    def recipe_of(settings: dict[str, Any]) -> recipes.Recipe:
        own = [settings.pop(name) for name in ("classes", "ipc", "set_seed", "soft_labels")]
        fields = [{**orders.DEFAULTS, **settings}[name] for name in orders.FIELDS]
        return recipes.read_recipe(model, limits, *own, *fields)

    def estimated(**settings: Any) -> dict[str, Any]:
        recipe = recipe_of(settings)
        with desk.device.drawing():
            found = estimate(model, recipe.num_images, recipe.soft_labels)
        return {"images": recipe.num_images, "seconds": found.seconds, "bytes": found.bytes}

    def distil(**settings: Any) -> dict[str, Any]:
        return job_answer(desk.jobs.start(recipe_of(settings)))

    def job(job_id: str) -> dict[str, Any]:
        return job_answer(desk.jobs.get(job_id))

    def stop_job(job_id: str) -> dict[str, Any]:
        return job_answer(desk.jobs.stop(job_id))

    def resume_job(job_id: str) -> dict[str, Any]:
        return job_answer(desk.jobs.resume(job_id))

    made = (
        Argument("classes", str, "", "Names or numbers of the classes, separated by commas; none for all."),
        Argument("ipc", int, 10, f"Images per class, 1 to {limits.ipc}."),
        Argument("set_seed", int, 0, "Seed of the set."),
        Argument("soft_labels", bool, False, "Add the classifier's logits of every image."),
        *_SHARED,
    )
    pictures = "settings, and under baseline and amplified one data: address of a PNG per seed."
    endpoint(classes, "classes", "The model's classes and scales.", (), "model, classes, sides, stages.", **asking)
    endpoint(
        generate,
        "generate",
        "Draw images of a class, plain and amplified, from the same seeds.",
        SETTINGS,
        pictures,
        **drawing,
    )
    endpoint(saliency, "saliency", "Where each scale looks, and what its class token believes.", _ONE,
             "settings, and per scale the maps and likeliest classes of both pictures, the positions chosen and the "
             "tokens that changed.", **drawing)  # fmt: skip
    endpoint(count, "count_tokens", "Entropy and coverage of a class's tokens, plain and amplified.", (samples, *_ONE),
             "csv per scale and stage; changed: per scale the share of samples whose token differs.", **studying)  # fmt: skip
    num_classes = Argument(
        "classes", int, min(10, len(model.class_names)), f"How many classes, at most {limits.classes}."
    )
    several = (num_classes, samples, SETTINGS[1], *SETTINGS[3:6])
    endpoint(compare, "compare_schedules", "The share of classes whose entropy or coverage rises under each schedule.",
             several, "csv per schedule and stage.", **studying)  # fmt: skip
    kind = Argument("kind", Kind, "schedules", "The eight schedules, or strength by ρ of one stage.")
    endpoint(sheet, "ablate", "One class and seed under many settings, as a sheet.", (kind, *_ONE),
             "sheet: data: address of a PNG; labels of its pictures, row by row.", **studying)  # fmt: skip
    endpoint(estimated, "estimate", "What a distilled set would take.", made, "images, seconds, bytes.", **drawing)
    endpoint(distil, "distil", "Make a distilled set in the background.", made, "job_id and where it stands.", **asking)
    stands = "state, done, total, message; file: the zip, when it is finished."
    endpoint(job, "job", "Where a job stands.", (job_id,), stands, **asking)
    endpoint(
        stop_job, "stop_job", "Stop a job after the batch in hand; what is drawn is kept.", (job_id,), stands, **asking
    )
    endpoint(resume_job, "resume_job", "Go on with a job that stopped.", (job_id,), stands, **asking)


def job_answer(job: Job | None) -> dict[str, Any]:
    """Raises ValueError where there is no such job."""
    if job is None:
        raise ValueError("there is no such job: it was never started, or was removed")
    file = None
    if job.state == "done":
        file = {"path": str(job.path), "orig_name": job.path.name, "meta": {"_type": "gradio.FileData"}}
    answer = {"job_id": job.id, "state": job.state, "done": job.done, "total": job.recipe.num_images}
    return {**answer, "message": job.message, "file": file}
