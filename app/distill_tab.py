"""The fourth tab: a whole distilled set as a background job that is found again on coming back."""

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from app import distill_requests
from app.context import ASKING, CHEAP, DRAWING, AppContext, html, sentences, slider
from app.controls import Controls
from app.jobs import Job
from app.words import without_folders
from hieramp.errors import UserError

ABOUT = (
    "<h2>Distill</h2><p>A whole data set, made with the schedule and sampling of the controls: so many images of each "
    "class, in one zip with labels, settings and checksums. It is made in the background; close the page, come back, "
    "and the job is still here.</p>"
)
# The id of the visitor's job stays in their browser. A fixed secret, so that it is still understood after a restart.
STORAGE_KEY = SECRET = "hieramp-job"
POLL_SECONDS = 1.0
CLICK_FILE = "() => setTimeout(() => document.querySelector('#job-file').click(), 50)"


def build_memory(model_name: str) -> tuple[gr.BrowserState, gr.Timer]:
    """What must be there before the tab is opened: tabs are made in the browser when first looked at."""
    return gr.BrowserState("", storage_key=f"{STORAGE_KEY}-{model_name}", secret=SECRET), gr.Timer(
        POLL_SECONDS, active=False
    )


def build(context: AppContext, controls: Controls, demo: gr.Blocks, memory: tuple[gr.BrowserState, gr.Timer]) -> None:
    html(ABOUT, elem_classes="prose-line")
    names = [(name, label) for label, name in enumerate(context.model.class_names)]
    with gr.Row(elem_classes="ask"):
        classes = gr.Dropdown(names, value=[], multiselect=True, label="Classes (none chosen: all)", interactive=True)
    with gr.Row(elem_classes="ask"):
        ipc = slider(1, context.limits.ipc, min(10, context.limits.ipc), 1, "Images per class (IPC)", precision=0)
        seed = gr.Number(0, label="Seed of the set", precision=0, interactive=True, min_width=100)
        can = distill_requests.has_classifier(context.model)
        soft = gr.Checkbox(False, label="Soft labels", interactive=can, min_width=110, elem_id="soft-labels")
    guess = html(f"<p role='status'>{escape(_first_guess(context))}</p>", elem_id="estimate", elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        ask = gr.Button("Estimate", min_width=110, scale=0)
        start = gr.Button("Make the set", variant="primary", min_width=130, scale=0, elem_id="make-set")
        stop = gr.Button("Stop", interactive=False, min_width=80, scale=0)
        resume = gr.Button("Resume", interactive=False, min_width=80, scale=0)
        download = gr.Button("Download", interactive=False, min_width=100, scale=0)
    panel = html(job_html(None), elem_id="job")
    html(f'<p class="caps">{escape(distill_requests.caps_words(context.limits))}</p>', elem_classes="prose-line")
    file = gr.DownloadButton("File", visible="hidden", elem_id="job-file")
    remembered, timer = memory
    shown = [panel, start, stop, resume, download, timer]
    asked = {"classes": classes, "ipc": ipc, "set_seed": seed, "soft_labels": soft}
    fields = {*asked.values(), *controls.inputs}

    def values(given: dict[Any, Any]) -> dict[str, Any]:
        return {name: given[component] for name, component in asked.items()} | controls.values(given)

    does = Actions(context, values, remembered)
    ask.click(does.estimate, fields, guess, **DRAWING)
    gr.on([classes.input, ipc.input, soft.input], does.recount, fields, guess, trigger_mode="always_last", **ASKING)
    start.click(does.begin, {remembered, *fields}, [remembered, *shown], trigger_mode="once", **ASKING)
    stop.click(does.stop, remembered, shown, **CHEAP)
    resume.click(does.resume, remembered, shown, **ASKING)
    timer.tick(does.poll, remembered, shown, **CHEAP)
    demo.load(does.poll, remembered, shown, **CHEAP)
    handed = download.click(does.hand_out, remembered, file, **ASKING)
    handed.success(None, None, None, js=CLICK_FILE, api_visibility="private")


class Actions:
    """What the buttons do, with the id that the visitor's browser remembers; `values` names what the controls hold."""

    def __init__(
        self, context: AppContext, values: Callable[[dict[Any, Any]], dict[str, Any]], remembered: Any
    ) -> None:
        self.context, self.values, self.remembered = context, values, remembered

    def _recipe(self, given: dict[Any, Any]) -> distill_requests.DistillRequest:
        return distill_requests.read_distill_request(self.context.model, self.context.limits, self.values(given))

    def estimate(self, given: dict[Any, Any]) -> str:
        with sentences():
            distill_request = self._recipe(given)
            found = self.context.answer("estimate", distill_request)
        return f"<p role='status'>{escape(distill_requests.estimate_words(distill_request, found))}</p>"

    def recount(self, given: dict[Any, Any]) -> str:
        """How many images the form asks for now; an estimate of another form is gone."""
        try:
            count = f"{self._recipe(given).num_images:,}"
        except UserError as error:
            return f"<p role='status'>{escape(without_folders(str(error)))}.</p>"
        return f"<p role='status'>{count} images as it is. Estimate tells what they take in time and size.</p>"

    def begin(self, given: dict[Any, Any]) -> list[Any]:
        with sentences():
            before = self.context.jobs.get(given[self.remembered])
            if before and before.is_active:
                raise UserError("a set of yours is being made: stop it first, or wait for it")
            job = self.context.jobs.start(self._recipe(given))
        return [job.id, *_view(self.context, job)]

    def poll(self, job_id: str) -> list[Any]:
        return _view(self.context, self.context.jobs.get(job_id))

    def stop(self, job_id: str) -> list[Any]:
        return _view(self.context, self.context.jobs.stop(job_id))

    def resume(self, job_id: str) -> list[Any]:
        with sentences():
            return _view(self.context, self.context.jobs.resume(job_id))

    def hand_out(self, job_id: str) -> gr.DownloadButton:
        job = self.context.jobs.get(job_id)
        with sentences():
            if job is None or job.state != "done":
                raise UserError("there is no finished set to download")
        return gr.DownloadButton(value=str(job.path))


def _first_guess(context: AppContext) -> str:
    count = min(10, context.limits.ipc) * len(context.model.class_names)
    return f"{count:,} images as it is. Estimate tells what they take in time and size."


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
    label = f'role="progressbar" aria-label="The set" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0%}"'
    bar = f'<div class="bar" {label.replace("%", "")}><i style="width:{100 * share:.1f}%"></i></div>'
    return f'<section class="job" data-state="{state}"><p>{escape(words)}</p>{bar}<p>{escape(more)}</p></section>'
