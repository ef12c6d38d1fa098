"""The second tab: what amplification changes in the tokens, of one class and across classes."""

import json
import random
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

import hieramp
from app import plots, view_models, view_requests
from app.context import CHEAP, STUDYING, AppContext, html, sentences, slider, stale_note
from app.controls import Controls
from hieramp import Settings

ABOUT = (
    "<h2>What changed</h2><p>Samples of the class are drawn as the controls say, plain and amplified from the "
    "same seeds, and their tokens are counted: entropy H = −Σ p log p of the codes used, coverage the share of the "
    "codebook that occurs.</p>"
)
ABOUT_CLASSES = (
    "<h2>Across classes</h2><p>The eight schedules of the paper on many classes, each against “off”: the share of "
    "classes whose entropy or coverage rises (Figures 3, 8 and 9). The stages are those of the tokens counted.</p>"
)
NOTHING = "Nothing is counted until you ask."
BEGUN = "Counting: the first samples are being drawn …"


def build(context: AppContext, controls: Controls) -> None:
    html(ABOUT, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        samples = slider(1, context.limits.samples, 16, 1, "Samples", precision=0)
        count = gr.Button("Count tokens", variant="primary", scale=0, min_width=160)
        end = gr.Button("Stop", scale=0, min_width=80, interactive=False, elem_id="stop-count")
    usage_words = html(f"<p role='status'>{NOTHING}</p>", elem_classes="prose-line")
    usage = gr.Plot(plots.empty("Entropy and coverage"), show_label=False, elem_classes="plot", buttons=[])
    changed = gr.Plot(
        plots.empty("Share of samples whose token differs"), show_label=False, elem_classes="plot map", buttons=[]
    )
    html(ABOUT_CLASSES, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        most = min(context.limits.classes, len(context.model.class_names))
        classes = slider(1, most, min(10, most), 1, "Classes", precision=0)
        per_class = slider(1, context.limits.samples, 8, 1, "Samples of each", precision=0)
        compare = gr.Button("Compare schedules", variant="primary", scale=0, min_width=180)
        end_comparison = gr.Button("Stop", scale=0, min_width=80, interactive=False, elem_id="stop-compare")
    risen_words = html(f"<p role='status'>{NOTHING}</p>", elem_classes="prose-line")
    risen = gr.Plot(plots.empty("Share of classes that rose"), show_label=False, elem_classes="plot", buttons=[])
    _connect(context, controls, [count, end, samples], [usage_words, usage, changed])
    _connect_classes(context, controls, [compare, end_comparison, classes, per_class], [risen_words, risen])


def run_study(
    context: AppContext, name: str, buttons: list[gr.Button], study: Any, inputs: set[Any], outputs: list[Any]
) -> None:
    """A study on two buttons: the first says at once that it began, the second ends it after the batch in hand.

    `study` yields its outputs, the words first, as HTML.
    """
    button, end = buttons

    def key(request: gr.Request) -> str:
        return f"{request.session_hash}/{name}"

    def ask(request: gr.Request) -> tuple[int, str, gr.Button]:
        return context.scheduling.take(key(request)), said(BEGUN), gr.Button(interactive=True)

    def stop(request: gr.Request) -> gr.Button:
        context.scheduling.take(key(request))
        return gr.Button(interactive=False)

    def study_on(request: gr.Request, given: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        mine = given[ticket]
        try:
            with closing(study(given)) as found:
                for words, *others in found:
                    has_stopped = context.scheduling.is_stale(key(request), mine)
                    more = '<p class="stopped">Stopped: this is as far as it came.</p>' if has_stopped else ""
                    yield dict(zip(outputs, (words + more, *others), strict=True))
                    if has_stopped:
                        return
        except gr.Error:
            yield {outputs[0]: said(NOTHING)}
            raise
        finally:
            context.scheduling.forget(key(request))

    ticket = gr.Number(0, visible=False, precision=0)
    asked = button.click(ask, None, [ticket, outputs[0], end], trigger_mode="once", **CHEAP)
    studied = asked.then(study_on, {ticket, *inputs}, outputs, **STUDYING)
    studied.then(lambda: gr.Button(interactive=False), None, end, **CHEAP)
    end.click(stop, None, end, **CHEAP)


def _connect(context: AppContext, controls: Controls, inputs: list[Any], outputs: list[Any]) -> None:
    button, end, samples = inputs
    sides = context.model.var.scales.sides

    def count(given: dict[Any, Any]) -> Iterator[tuple[str, Any, Any]]:
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
            wanted = view_requests.whole("the number of samples", given[samples], 1, context.limits.samples)
            name = view_requests.short_name(context.model.class_names[view_request.label])
            for found in context.study("count_tokens", view_request, wanted):
                links = ""
                if found.is_finished:
                    about = view_requests.described(context.model, view_request) | {"samples": found.num_samples}
                    start = view_models.file_name(name, f"seed{view_request.seeds[0]}")
                    links = link(f"{start}-usage.csv", plots.usage_csv(found, sides), about) + link(
                        f"{start}-changed.csv", plots.changed_csv(found, sides), about
                    )
                words = said(plots.usage_words(name, found), links, view_requests.address(context.model, view_request))
                yield words, plots.usage_figure(found, sides), plots.changed_figure(found, sides)

    run_study(context, "count", [button, end], count, {samples, *controls.inputs}, outputs)


def _connect_classes(context: AppContext, controls: Controls, inputs: list[Any], outputs: list[Any]) -> None:
    button, end, classes, per_class = inputs
    sampled = [part.name for row in Settings.table().values() if row.group == "sampling" for part in row.parts]

    def compare(given: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
            most = min(context.limits.classes, len(context.model.class_names))
            wanted = view_requests.whole("the number of classes", given[classes], 1, most)
            each = view_requests.whole("the number of samples", given[per_class], 1, context.limits.samples)
            labels = choose_classes(len(context.model.class_names), wanted, view_request.seeds[0])
            for comparison in context.study("compare_schedules", view_request, each, labels):
                links, seed = "", view_request.seeds[0]
                if comparison.is_finished:
                    about = {"model": context.model.name, "classes": labels, "samples": each, "seed": seed}
                    about |= view_request.settings.plain.to_json() | {"hieramp": hieramp.__version__}
                    links = link(f"{wanted}-classes-seed{seed}-schedules.csv", plots.risen_csv(comparison), about)
                query = view_requests.address(context.model, view_request)
                of = {name: query[name] for name in ("seed", *map(view_requests.in_address, sampled))}
                yield said(plots.risen_words(comparison), links, of), plots.risen_figure(comparison)

    run_study(context, "compare", [button, end], compare, {classes, per_class, *controls.inputs}, outputs)


def choose_classes(num_classes: int, wanted: int, seed: int) -> list[int]:
    """All classes, or so many of them, drawn by the seed."""
    return sorted(random.Random(seed).sample(range(num_classes), wanted))


def said(words: str, links: str = "", of: Mapping[str, str | None] | None = None) -> str:
    note = stale_note(of) if of else ""
    return f'<p role="status">{escape(words)}</p>{note}<p class="plain links">{links}</p>'


def link(name: str, text: str, about: Mapping[str, Any]) -> str:
    """A table to take away, inside its link; `about`, what it was made by, is above it in lines that begin with #."""
    text = "".join(f"# {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in about.items()) + text
    source = "data:text/csv;charset=utf-8;base64," + b64encode(text.encode()).decode()
    return f'<a download="{escape(name)}" href="{source}">{escape(name)}</a> '
