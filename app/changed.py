"""The second room: what amplification changes in the tokens, of one class and across classes."""

import random
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from app import orders, plots
from app.controls import Controls
from app.desk import STUDYING, Desk, html, sentences, slider
from hieramp.analysis.schedules import compare_schedules, count_tokens

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


def build(desk: Desk, controls: Controls) -> None:
    html(ABOUT, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        samples = slider(1, desk.limits.samples, 16, 1, "Samples", precision=0)
        count = gr.Button("Count tokens", variant="primary", scale=0, min_width=160)
    usage_words = html(f"<p role='status'>{NOTHING}</p>", elem_classes="prose-line")
    usage = gr.Plot(plots.empty("Entropy and coverage"), show_label=False, elem_classes="plot", buttons=[])
    changed = gr.Plot(
        plots.empty("Share of samples whose token differs", 230), show_label=False, elem_classes="plot map", buttons=[]
    )
    html(ABOUT_CLASSES, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        most = min(desk.limits.classes, len(desk.model.class_names))
        classes = slider(1, most, min(10, most), 1, "Classes", precision=0)
        per_class = slider(1, desk.limits.samples, 8, 1, "Samples of each", precision=0)
        compare = gr.Button("Compare schedules", variant="primary", scale=0, min_width=160)
    risen_words = html(f"<p role='status'>{NOTHING}</p>", elem_classes="prose-line")
    risen = gr.Plot(plots.empty("Share of classes that rose"), show_label=False, elem_classes="plot", buttons=[])
    _connect(desk, controls, count, samples, [usage_words, usage, changed])
    compared = [compare, classes, per_class]
    _connect_classes(desk, controls, compared, [risen_words, risen])


def _connect(desk: Desk, controls: Controls, button: gr.Button, samples: gr.Slider, outputs: list[Any]) -> None:
    sides = desk.model.var.scales.sides

    def count(given: dict[Any, Any]) -> Iterator[tuple[str, Any, Any]]:
        with sentences():
            order = orders.read_order(desk.model, controls.values(given))
            wanted = orders.whole("the number of samples", given[samples], 1, desk.limits.samples)
            name = orders.short_name(desk.model.class_names[order.label])
            counts = count_tokens(
                desk.model, order.label, wanted, order.settings.amplification, order.seeds[0], order.settings.sampling
            )
            for found in desk.device.in_gaps(counts):
                links = ""
                if found.is_finished:
                    links = link("usage.csv", plots.usage_csv(found, sides)) + link(
                        "changed.csv", plots.changed_csv(found, sides)
                    )
                words = said(plots.usage_words(name, found), links)
                yield words, plots.usage_figure(found, sides), plots.changed_figure(found, sides)

    button.click(count, {samples, *controls.inputs}, outputs, trigger_mode="once", **STUDYING)


def _connect_classes(desk: Desk, controls: Controls, inputs: list[Any], outputs: list[Any]) -> None:
    button, classes, per_class = inputs

    def compare(given: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
        with sentences():
            order = orders.read_order(desk.model, controls.values(given))
            most = min(desk.limits.classes, len(desk.model.class_names))
            wanted = orders.whole("the number of classes", given[classes], 1, most)
            each = orders.whole("the number of samples", given[per_class], 1, desk.limits.samples)
            labels = choose_classes(len(desk.model.class_names), wanted, order.seeds[0])
            found = compare_schedules(desk.model, labels, each, order.seeds[0], order.settings.sampling)
            for comparison in desk.device.in_gaps(found):
                links = link("schedules.csv", plots.risen_csv(comparison)) if comparison.is_finished else ""
                yield said(plots.risen_words(comparison), links), plots.risen_figure(comparison)

    button.click(compare, {classes, per_class, *controls.inputs}, outputs, trigger_mode="once", **STUDYING)


def choose_classes(num_classes: int, wanted: int, seed: int) -> list[int]:
    """All classes, or so many of them, drawn by the seed."""
    return sorted(random.Random(seed).sample(range(num_classes), wanted))


def said(words: str, links: str = "") -> str:
    return f'<p role="status">{escape(words)}</p><p class="plain links">{links}</p>'


def link(name: str, text: str) -> str:
    """A file to take away, inside its link."""
    source = "data:text/csv;charset=utf-8;base64," + b64encode(text.encode()).decode()
    return f'<a download="{name}" href="{source}">{name}</a> '
