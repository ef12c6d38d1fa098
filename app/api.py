"""The named endpoints: what the page does, for gradio_client and, with --mcp, for MCP.

Every endpoint takes the settings under the names that the page has, as the table of `hieramp.Settings` describes them.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import ablate, axes, distill_requests, kinds, plots, sheet_files, view_models, view_requests, visitors
from app.changed import choose_classes
from app.context import DEVICE, STUDY, AppContext, sentences
from app.jobs import Job
from app.names import name_of
from hieramp import Model, Settings
from hieramp.errors import UserError
from hieramp.fields import Number, Part

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """An argument of an endpoint: name, type, default and what it means."""

    name: str
    type: Any
    default: Any
    about: str


def settings_arguments(model: Model) -> tuple[Argument, ...]:
    """The settings, as the table of `hieramp.Settings` describes them."""
    fresh = view_requests.defaults(model)
    return tuple(
        Argument(part.name, part.kind.type, fresh[part.name], _about(part)) for part in Settings.parts(model.kind)
    )


def _about(part: Part) -> str:
    wanted = f" {part.kind.wanted.capitalize()}." if isinstance(part.kind, Number) else ""
    example = f" Like {part.kind.metavar}." if part.kind.type is str else ""
    return f"{part.help}{wanted}{example}"


CLASS = Argument("class_name", str, REQUIRED, "Name, number or ImageNet id of the class.")
SEED = Argument("seed", int, 0, "Seed of the first image, a whole number of at least 0; the next have seed+1, …")
COUNT = Argument("count", int, 1, f"Number of images of each kind, 1 to {view_requests.MAX_COUNT}.")


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

    def __init__(self, context: AppContext) -> None:
        self.context, self.model, self.limits = context, context.model, context.limits

    def classes(self) -> dict[str, Any]:
        return kinds.about(self.model)

    def generate(self, **settings: Any) -> dict[str, Any]:
        view_request = self._request(settings)
        return self.context.answer("generate", view_request)

    def saliency(self, **settings: Any) -> dict[str, Any]:
        view_request = self._request(settings)
        return self.context.answer("saliency", view_request)

    def count_tokens(self, samples: int, **settings: Any) -> dict[str, Any]:
        view_request, wanted = self._request(settings), self._samples(samples)
        *_, found = self.context.study("count_tokens", view_request, wanted)
        name = name_of(self.model, view_request.label)
        answer = {"csv": plots.usage_csv(found, self.model.var.scales.sides), "changed": list(found.changed)}
        findings = plots.usage_findings(found, view_request.settings)
        return answer | {"differences": plots.differences_csv({name: found.differences}), "findings": findings}

    def compare_schedules(self, classes: int, samples: int, **settings: Any) -> dict[str, Any]:
        view_request, wanted = self._request({"class_name": 0, **settings}), self._samples(samples)
        num_classes = len(self.model.class_names)
        chosen = view_requests.whole("the number of classes", classes, 1, min(self.limits.classes, num_classes))
        labels = choose_classes(num_classes, chosen, view_request.seeds[0])
        *_, found = self.context.study("compare_schedules", view_request, wanted, labels)
        names = [name_of(self.model, label) for label in labels]
        differences = plots.class_differences_csv(found, names)
        return {"csv": plots.risen_csv(found), "differences": differences, "findings": plots.class_findings(found)}

    def ablate(
        self, columns: str, column_values: str, rows: str, row_values: str, seeds: int, **settings: Any
    ) -> dict[str, Any]:
        view_request = self._request(settings)
        empty = ablate.plan(self.model, view_request, columns, column_values, rows, row_values, seeds)
        *_, found = self.context.study("ablate", view_request, empty)
        picture = sheet_files.as_figure(self.model, found, sheet_files.first_measure(found), "png")
        answer = {"sheet": view_models.png_uri(picture), "labels": list(found.labels)}
        return answer | {"csv": sheet_files.as_csv(self.model, found)}

    def estimate(self, **settings: Any) -> dict[str, Any]:
        distill_request = self._recipe(settings)
        *_, last = self.context.study("estimate", distill_request)
        return {"images": distill_request.num_images, "seconds": last.found.seconds, "bytes": last.found.bytes}

    def distill(self, **settings: Any) -> dict[str, Any]:
        return job_answer(self.context.jobs.start(self._recipe(settings), visitors.current()))

    def job(self, job_id: str) -> dict[str, Any]:
        return job_answer(self.context.jobs.get(job_id))

    def stop_job(self, job_id: str) -> dict[str, Any]:
        return job_answer(self.context.jobs.stop(job_id))

    def resume_job(self, job_id: str) -> dict[str, Any]:
        return job_answer(self.context.jobs.resume(job_id))

    def _request(self, settings: dict[str, Any]) -> view_requests.ViewRequest:
        return view_requests.read_request(self.model, view_requests.defaults(self.model) | settings)

    def _samples(self, samples: Any) -> int:
        return view_requests.whole("the number of samples", samples, 1, self.limits.samples)

    def _recipe(self, settings: dict[str, Any]) -> distill_requests.DistillRequest:
        return distill_requests.read_distill_request(
            self.model, self.limits, view_requests.defaults(self.model) | settings
        )


def build(context: AppContext) -> None:
    """All public endpoints of the page."""
    does, limits, num_classes = Endpoints(context), context.limits, len(context.model.class_names)
    drawing: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1}
    studying = {"concurrency_id": STUDY, "concurrency_limit": 2}
    asking = {"concurrency_limit": None}
    cheap = {"queue": False}
    settings = settings_arguments(context.model)
    sampled = {part.name for row in Settings.table().values() if row.group == "sampling" for part in row.parts}
    sampling = tuple(argument for argument in settings if argument.name in sampled)
    one = (CLASS, SEED, *settings)
    fields = ", ".join(name for _, name in axes.choices(context.model))
    plane = (
        Argument("columns", str, axes.SCHEDULE, f"The field across: {fields}."),
        Argument("column_values", str, "", "Its values, separated by commas; none for a choice of them."),
        Argument("rows", str, "", "The field down, or none."),
        Argument("row_values", str, "", "Its values, as those of the columns."),
        Argument("seeds", int, 1, f"Seeds, a row each, 1 to {view_requests.MAX_COUNT}."),
    )
    samples = Argument("samples", int, 16, f"Images drawn of each kind, 1 to {limits.samples}.")
    several = Argument("classes", int, min(10, num_classes), f"How many classes, at most {limits.classes}.")
    job_id = Argument("job_id", str, REQUIRED, "What distill answered.")
    made = (
        Argument("classes", str, "", "Names or numbers of the classes, separated by commas; none for all."),
        Argument("ipc", int, 10, f"Images per class, 1 to {limits.ipc}."),
        Argument("set_seed", int, 0, "Seed of the set."),
        Argument("soft_labels", bool, False, "Add the classifier's logits of every image."),
        *settings,
    )
    stands = "job_id, state, done, total, message; file: the zip, when it is finished."
    table: list[tuple[Callable[..., Any], dict[str, Any], Sequence[Argument], str, str]] = [
        (does.classes, cheap, (), "The model's classes and scales.", "model, classes, sides, stages."),
        (does.generate, drawing, (CLASS, SEED, COUNT, *settings),
         "Draw images of a class, plain and amplified, from the same seeds.",
         "settings, and under baseline and amplified one data: address of a PNG per seed."),
        (does.saliency, drawing, one, "Where each scale looks, and what its class token believes.",
         "settings; per scale both maps and likeliest classes, the positions chosen, the tokens that changed."),
        (does.count_tokens, studying, (samples, *one), "Entropy and coverage of a class's tokens in both.",
         "csv per scale and stage; changed: per scale the share of samples whose token differs; differences: amplified "
         "minus plain with 95 % intervals, as CSV; findings: whether the paper's direction holds, in sentences."),
        (does.compare_schedules, studying, (several, samples, SEED, *sampling),
         "The share of classes whose entropy or coverage rises under each schedule.",
         "csv per schedule and stage; differences per schedule, class and stage; findings, in sentences."),
        (does.ablate, studying, (*plane, *one), "Pictures along any two fields, as a sheet with its baselines.",
         "sheet: data: address of a PNG; labels of its pictures, row by row; csv of settings and figures."),
        (does.estimate, studying, made, "What a distilled set would take.", "images, seconds, bytes."),
        (does.distill, asking, made, "Make a distilled set in the background.", stands),
        (does.job, cheap, (job_id,), "Where a job stands.", stands),
        (does.stop_job, cheap, (job_id,), "Stop a job after the batch in hand; what is drawn is kept.", stands),
        (does.resume_job, asking, (job_id,), "Go on with a job that stopped.", stands),
    ]  # fmt: skip
    of_tokens = (does.count_tokens, does.compare_schedules)
    for function, event, arguments, about, returns in table:
        if context.model.kind != "var" and function in of_tokens:
            continue
        endpoint(function, function.__name__, about, arguments, returns, **event)


def job_answer(job: Job | None) -> dict[str, Any]:
    """Raises UserError where there is no such job."""
    if job is None:
        raise UserError("there is no such job: it was never started, or was removed")
    file = None
    if job.state == "done":
        file = {"path": str(job.path), "orig_name": job.path.name, "meta": {"_type": "gradio.FileData"}}
    answer = {"job_id": job.id, "state": job.state, "done": job.done, "total": job.distill_request.num_images}
    return {**answer, "message": job.message, "file": file}
