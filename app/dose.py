"""Dose and response, in the third tab: one stage's strength or ρ over nine values and eight seeds, as curves."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app import kinds, study, theme, view_models, view_requests
from app.context import AppContext, html, sentences
from app.controls import Controls
from app.distill_requests import has_classifier
from app.names import name_of
from app.study import link, said
from hieramp import figures
from hieramp.analysis.dose import SEEDS, Response, Sweep, in_words, rows_of
from hieramp.files import csv_text

ABOUT = (
    "<h2>Dose and response</h2><p>One stage’s strength or ρ over nine values, eight seeds each, from the first seed of "
    "the controls on; all else is as the controls say. Every picture is compared with the plain one of its seed. Bands "
    "are 95 % intervals of the mean by Student’s t over the seeds: they speak of this class alone.{}</p>"
)
TOKENS = {
    "var": "",
    "dit": " A diffusion transformer draws no tokens, so there is no entropy of their distributions: counted are the "
    "different codes of each finished picture, encoded by the VQ-VAE.",
}
NONE = "<h2>Dose and response</h2><p>This needs a classifier, and this model has none.</p>"
NOTHING = "Nothing is drawn until you ask."
BEGUN = "Drawing: the plain pictures are on their way …"


def build(context: AppContext, controls: Controls) -> None:
    if not has_classifier(context.model):
        html(NONE, elem_classes="prose-line")
        return
    html(ABOUT.format(TOKENS[context.model.kind]), elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        stages = kinds.stage_choices(context.model)
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
            model, view_request = context.model, view_requests.read_request(context.model, controls.values(given))
            seeds = range(view_request.seeds[0], view_request.seeds[0] + SEEDS)
            for one in context.study("dose", view_request, given[stage], given[knob]):
                name, links = name_of(model, view_request.label), ""
                if one.is_finished:
                    about = view_requests.described(model, view_request) | {
                        "seeds": list(seeds),
                        "interval": "95 %, Student's t",
                    }
                    file = view_models.file_name(name, f"{one.stage}-{one.knob}-seed{seeds[0]}.csv")
                    links = link(file, csv_text(rows_of(one)), about)
                text = words_of(name, one)
                words = said(text, links, view_requests.address(model, view_request))
                yield len(one.responses), len(one.doses), words, (view_of(one),)

    study.run(context, "dose", (draw, end), swept, {stage, knob, *controls.inputs}, [words, curves], NOTHING, BEGUN)


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
        "measures": found.measures,
        "plain": _point(found.plain),
        "points": [_point(response) for response in found.responses],
    }


def _point(response: Response) -> dict[str, Any]:
    return {
        "dose": response.dose,
        "estimates": {name: [round(x, 5) for x in vars(response.estimate(name)).values()] for name in response.values},
        "images": [view_models.data_uri(view_models.thumb(figures.to_picture(image))) for image in response.images],
    }
