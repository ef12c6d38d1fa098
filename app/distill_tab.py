"""The fourth tab: a whole distilled set as a background job that is found again on coming back."""

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from app import distill_requests, estimate_tab, set_pictures, theme, verdict_tab, visitors
from app.context import ASKING, CHEAP, AppContext, as_given, html, progress_bar, sentences, slider
from app.controls import Controls
from app.jobs import Job
from app.names import full_names
from app.words import without_folders
from hieramp.errors import UserError

ABOUT = (
    "<h2>Distill</h2><p>A whole data set, made with the schedule and sampling of the controls: so many images of each "
    "class, in one zip with labels, settings and checksums. It is made in the background; close the page, come back, "
    "and the job is still here.</p>"
)
MOST_SETS = 20  # that the page remembers
# The ids of the visitor's jobs stay in their browser. A fixed secret, so that it is still understood after a restart.
STORAGE_KEY = SECRET = "hieramp-job"
POLL_SECONDS = 1.0
CLICK_FILE = "() => setTimeout(() => document.querySelector('#job-file').click(), 50)"


Remembering = tuple[gr.BrowserState, gr.Timer, gr.BrowserState]


def build_memory(model_name: str) -> Remembering:
    """The visitor's sets, what asks after them, and the form as it was filled in.

    They must be there before the tab is opened: tabs are made in the browser when first looked at.
    """
    nothing: dict[str, Any] = {"ids": [], "shown": ""}
    kept = gr.BrowserState(nothing, storage_key=f"{STORAGE_KEY}-{model_name}", secret=SECRET)
    form = gr.BrowserState([], storage_key=f"{STORAGE_KEY}-form-{model_name}", secret=SECRET)
    return kept, gr.Timer(POLL_SECONDS, active=False), form


def mine(remembered: Any) -> tuple[list[str], str]:
    """The ids of a visitor's jobs, the newest first, and which of them is on screen."""
    if isinstance(remembered, str):  # as the version before kept the one that there was
        return ([remembered], remembered) if remembered else ([], "")
    if not isinstance(remembered, dict):
        return [], ""
    ids = [one for one in remembered.get("ids", ()) if isinstance(one, str)][:MOST_SETS]
    shown = remembered.get("shown")
    return ids, shown if isinstance(shown, str) else ""


def build(context: AppContext, controls: Controls, demo: gr.Blocks, memory: Remembering) -> None:
    html(ABOUT, elem_classes="prose-line")
    names = [(name, label) for label, name in enumerate(full_names(context.model))]
    with gr.Row(elem_classes="ask"):
        classes = gr.Dropdown(names, value=[], multiselect=True, label="Classes (none chosen: all)", interactive=True)
    with gr.Row(elem_classes="ask"):
        ipc = slider(1, context.limits.ipc, min(10, context.limits.ipc), 1, "Images per class (IPC)", precision=0)
        seed = as_given(gr.Number(0, label="Seed of the set", interactive=True, min_width=100))
        can = distill_requests.has_classifier(context.model)
        soft = gr.Checkbox(False, label="Soft labels", interactive=can, min_width=110, elem_id="soft-labels")
    count = html(_count_words(_first_count(context)), elem_id="set-count", elem_classes="prose-line")
    estimated = estimate_tab.build()
    with gr.Row(elem_classes="ask"):
        start = gr.Button("Make the set", variant="primary", min_width=130, scale=0, elem_id="make-set")
        stop = gr.Button("Stop", interactive=False, min_width=80, scale=0)
        resume = gr.Button("Resume", interactive=False, min_width=80, scale=0)
        download = gr.Button("Download", interactive=False, min_width=100, scale=0)
    panel = html(job_html(None), elem_id="job")
    sets = gr.Radio([], label="My sets", visible=False, interactive=True, elem_id="my-sets")
    pictures = gr.HTML(
        None,
        html_template=theme.read("pictures.html"),
        js_on_load=theme.read("pictures.js"),
        apply_default_css=False,
        elem_id="pictures",
    )
    verdict = verdict_tab.build(context)
    html(f'<p class="caps">{escape(distill_requests.caps_words(context.limits))}</p>', elem_classes="prose-line")
    file = gr.DownloadButton("File", visible="hidden", elem_id="job-file")
    remembered, timer, form = memory
    listed = gr.State([])
    shown = [panel, start, stop, resume, download, timer, pictures, sets, listed]
    asked = {"classes": classes, "ipc": ipc, "set_seed": seed, "soft_labels": soft}
    fields = {*asked.values(), *controls.inputs}

    def values(given: dict[Any, Any]) -> dict[str, Any]:
        return {name: given[component] for name, component in asked.items()} | controls.values(given)

    does = Actions(context, values, remembered)
    fill: list[Any] = list(asked.values())  # what is filled in outlives a reload
    gr.on([field.input for field in fill], lambda *values: list(values), fill, form, **CHEAP)
    filled = demo.load(lambda values: form_of(context, values), form, fill, **CHEAP)
    filled.success(does.recount, fields, count, **CHEAP)
    kept = [remembered, listed]
    estimate_tab.connect(context, estimated, does.recipe, controls, [classes, ipc, soft], {seed})
    gr.on([classes.input, ipc.input], does.recount, fields, count, trigger_mode="always_last", **CHEAP)
    start.click(does.begin, {remembered, *fields}, [remembered, *shown], trigger_mode="once", **ASKING)
    stop.click(does.stop, kept, shown, **CHEAP)
    resume.click(does.resume, kept, shown, **ASKING)
    timer.tick(does.poll, kept, shown, **CHEAP)
    demo.load(does.poll, kept, shown, **CHEAP)
    sets.input(does.choose, [sets, remembered], [remembered, *shown], **ASKING)
    pictures.more(does.more, remembered, pictures, trigger_mode="multiple", **ASKING)
    verdict_tab.connect(context, verdict, lambda given: does.job(given[remembered]), remembered, pictures.finished)
    handed = download.click(does.hand_out, remembered, file, **ASKING)
    handed.success(None, None, None, js=CLICK_FILE, api_visibility="private")


def form_of(context: AppContext, kept: Any) -> list[Any]:
    """Classes, images per class, seed and soft labels as a browser kept them; what no form could hold is left aside."""
    if not isinstance(kept, list) or len(kept) != 4:
        return [gr.skip()] * 4
    labels, per_class, seed, soft = kept
    count = len(context.model.class_names)
    is_known = isinstance(labels, list) and all(type(one) is int and 0 <= one < count for one in labels)
    is_number = [type(one) in (int, float) for one in (per_class, seed)]
    return [
        labels if is_known else gr.skip(),
        per_class if is_number[0] else gr.skip(),
        seed if is_number[1] else gr.skip(),
        soft if type(soft) is bool and distill_requests.has_classifier(context.model) else gr.skip(),
    ]


class Actions:
    """What the buttons do, with the id that the visitor's browser remembers; `values` names what the controls hold."""

    def __init__(
        self, context: AppContext, values: Callable[[dict[Any, Any]], dict[str, Any]], remembered: Any
    ) -> None:
        self.context, self.values, self.remembered = context, values, remembered

    def recipe(self, given: dict[Any, Any]) -> distill_requests.DistillRequest:
        return distill_requests.read_distill_request(self.context.model, self.context.limits, self.values(given))

    def recount(self, given: dict[Any, Any]) -> str:
        """How many images the form asks for now."""
        try:
            return _count_words(self.recipe(given).num_images)
        except UserError as error:
            return f"<p role='status'>{escape(without_folders(str(error)))}.</p>"

    def begin(self, given: dict[Any, Any]) -> list[Any]:
        with sentences():
            before = [job for job in map(self.context.jobs.get, mine(given[self.remembered])[0]) if job]
            if any(job.is_active for job in before):
                raise UserError("a set of yours is being made: stop it first, or wait for it")
            job = self.context.jobs.start(self.recipe(given), visitors.current())
        kept = {"ids": [job.id, *(one.id for one in before)][:MOST_SETS], "shown": job.id}
        return [kept, *self._view(kept, [])]

    def choose(self, job_id: Any, remembered: Any) -> list[Any]:
        """Put another of the visitor's sets on screen."""
        ids, shown = mine(remembered)
        kept = {"ids": ids, "shown": job_id if job_id in ids else shown}
        return [kept, *self._view(kept, [])]

    def poll(self, remembered: Any, listed: list[Any]) -> list[Any]:
        return self._view(remembered, listed)

    def stop(self, remembered: Any, listed: list[Any]) -> list[Any]:
        self.context.jobs.stop(mine(remembered)[1])
        return self._view(remembered, listed)

    def resume(self, remembered: Any, listed: list[Any]) -> list[Any]:
        with sentences():
            self.context.jobs.resume(mine(remembered)[1])
            return self._view(remembered, listed)

    def job(self, remembered: Any) -> Job | None:
        """The job on screen."""
        return self.context.jobs.get(mine(remembered)[1])

    def more(self, event: gr.EventData, remembered: Any) -> dict[str, Any]:
        """Pictures that the visitor's browser lacks."""
        job, asked = self.job(remembered), event._data
        with sentences():
            if job is None or asked.get("job") != job.id:
                return {"job": "", "pictures": [], "more": False}
            found, has_more = set_pictures.pictures(job, asked.get("have") or ())
            frame = None if asked.get("framed") else set_pictures.frame(self.context.model, job)
        return {"job": job.id, "frame": frame, "pictures": found, "more": has_more}

    def _view(self, remembered: Any, listed: list[Any]) -> list[Any]:
        """Panel, buttons, timer, pictures and list as the job on screen stands; `listed` is the list as it is shown."""
        ids, shown = mine(remembered)
        jobs = [job for job in map(self.context.jobs.get, ids) if job]
        job = self.context.jobs.get(shown)
        told: dict[str, Any] = {"job": "", "done": 0, "isDone": False}
        if job:
            told = {"job": job.id, "done": job.done, "isDone": job.state == "done"}
        rows = [[set_words(one), one.id] for one in jobs]
        radio = gr.skip()
        if [*rows, shown] != listed:
            radio = gr.Radio(choices=[(text, value) for text, value in rows], value=shown, visible=bool(rows))
        return [*_view(self.context, job), {"told": told}, radio, [*rows, shown]]

    def hand_out(self, remembered: Any) -> gr.DownloadButton:
        job = self.job(remembered)
        with sentences():
            if job is None or job.state != "done":
                raise UserError("there is no finished set to download")
        return gr.DownloadButton(value=str(job.path))


def _first_count(context: AppContext) -> int:
    return min(10, context.limits.ipc) * len(context.model.class_names)


def _count_words(count: int) -> str:
    return f"<p role='status'>{count:,} image{'s' if count > 1 else ''} as it is.</p>"


def _view(context: AppContext, job: Job | None) -> list[Any]:
    """Panel, buttons and timer as the job stands."""
    is_active, state = bool(job and job.is_active), job.state if job else ""
    others = context.jobs.num_before(job) if job else 0
    return [
        job_html(job, others),
        gr.Button(interactive=not is_active),
        gr.Button(interactive=bool(job and is_active and not job.is_to_stop)),
        gr.Button(interactive=state in ("stopped", "failed")),
        gr.Button(interactive=state == "done"),
        gr.Timer(active=is_active),
    ]


def set_words(job: Job) -> str:
    """A set in the list of a visitor's own."""
    asked = job.distill_request
    soft = ", soft labels" if asked.soft_labels else ""
    classes = f"{len(asked.labels)} class{'es' if len(asked.labels) > 1 else ''}"
    return f"{asked.name}: {asked.num_images:,} images of {classes}{soft}, {job.state}"


def job_html(job: Job | None, others: int = 0) -> str:
    """Where a job stands; always of the same height."""
    if job is None:
        return _panel("No set is being made.", "", 0.0, "idle")
    distill_request = job.distill_request
    share = job.done / distill_request.num_images
    count = f"{job.done:,} of {distill_request.num_images:,} images"
    if job.state == "done":
        size = distill_requests.size_words(job.path.stat().st_size) if job.path.exists() else "gone"
        return _panel(f"{count}: finished, {size}.", f"{job.path.name}, ready to download.", 1.0, job.state)
    if not job.is_active:
        return _panel(f"{count}: {job.state}.", job.message, share, job.state)
    waiting = f" {others} other job{'s take' if others > 1 else ' takes'} turns with it." if others else ""
    if job.is_to_stop:
        return _panel(f"{count}: stopping after the batch in hand.", "", share, job.state)
    if job.seconds_left is None:
        return _panel(f"{count}: about to begin.{waiting}", "", share, job.state)
    rate = f"{job.images_per_second:.1f} images a second, {distill_requests.time_words(job.seconds_left)} left."
    return _panel(f"{count}. {rate}{waiting}", "You may close this page and come back.", share, job.state)


def _panel(words: str, more: str, share: float, state: str) -> str:
    bar = progress_bar(share, "The set")
    return f'<section class="job" data-state="{state}"><p>{escape(words)}</p>{bar}<p>{escape(more)}</p></section>'
