"""Dose and response, in the third room: one stage's strength or ρ over nine values and eight seeds, as curves."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app import orders, scenes, study, theme
from app.controls import Controls
from app.desk import Desk, html, sentences
from app.recipes import has_classifier
from app.study import link, said
from hieramp import figures
from hieramp.analysis.dose import MEASURES, SEEDS, Response, Sweep, in_words, rows_of
from hieramp.files import csv_text
from hieramp.scales import STAGES

ABOUT = (
    "<h2>Dose and response</h2><p>One stage’s strength or ρ over nine values, eight seeds each, from the first seed of "
    "the controls on; all else is as the controls say. Every picture is compared with the plain one of its seed. Bands "
    "are 95 % intervals of the mean by Student’s t over the seeds: they speak of this class alone.</p>"
)
NONE = "<h2>Dose and response</h2><p>This needs a classifier, and this model has none.</p>"
NOTHING = "Nothing is drawn until you ask."
BEGUN = "Drawing: the plain pictures are on their way …"


def build(desk: Desk, controls: Controls) -> None:
    if not has_classifier(desk.model):
        html(NONE, elem_classes="prose-line")
        return
    html(ABOUT, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        stages = [(stage, stage) for stage in STAGES if desk.model.var.scales.stages[stage]]
        stage = gr.Radio(stages, value=stages[-1][1], label="Stage", elem_classes="chips", elem_id="dose-stage")
        knobs = [("strength", "strength"), ("ρ", "rho")]
        knob = gr.Radio(knobs, value="strength", label="Dose", elem_classes="chips", elem_id="dose-knob")
        draw = gr.Button("Draw the curves", variant="primary", scale=0, min_width=160)
        end = gr.Button("Stop", scale=0, min_width=80, interactive=False, elem_id="stop-dose")
    words = html(f"<p role='status'>{NOTHING}</p>", elem_classes="prose-line")
    curves = gr.HTML(
        None,
        html_template=theme.read("dose.html"),
        js_on_load=theme.read("dose.js"),
        apply_default_css=False,
        elem_id="dose",
    )

    def swept(given: dict[Any, Any]) -> Iterator[study.Found]:
        with sentences():
            model, order = desk.model, orders.read_order(desk.model, controls.values(given))
            seeds = range(order.seeds[0], order.seeds[0] + SEEDS)
            for one in desk.study("dose", order, given[stage], given[knob]):
                name, links = orders.short_name(model.class_names[order.label]), ""
                if one.is_finished:
                    about = orders.described(model, order) | {"seeds": list(seeds), "interval": "95 %, Student's t"}
                    file = scenes.file_name(name, f"{one.stage}-{one.knob}-seed{seeds[0]}.csv")
                    links = link(file, csv_text(rows_of(one)), about)
                text = words_of(name, one)
                words = said(text, links, orders.address(model, order))
                yield len(one.responses), len(one.doses), words, (view_of(one),)

    study.run(desk, "dose", (draw, end), swept, {stage, knob, *controls.inputs}, [words, curves], NOTHING, BEGUN)


def words_of(name: str, found: Sweep) -> str:
    done = f"{name}: {len(found.responses)} of {len(found.doses)} doses, {len(found.seeds)} seeds each."
    return f"{done} {in_words(found)}" if found.responses else done


def view_of(found: Sweep) -> dict[str, Any]:
    """The curves and the pictures under them, as the browser takes them."""
    return {
        "stage": found.stage,
        "knob": found.knob,
        "doses": list(found.doses),
        "seeds": list(found.seeds),
        "measures": MEASURES,
        "plain": _point(found.plain),
        "points": [_point(response) for response in found.responses],
    }


def _point(response: Response) -> dict[str, Any]:
    return {
        "dose": response.dose,
        "estimates": {name: [round(x, 5) for x in vars(response.estimate(name)).values()] for name in MEASURES},
        "images": [scenes.data_uri(scenes.thumb(figures.to_picture(image))) for image in response.images],
    }
