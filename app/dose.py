"""Dose and response, in the third tab: one stage's strength or ρ over nine values and eight seeds, as curves."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from app import kinds, study, theme, view_models, view_requests
from app.context import AppContext, html, sentences
from app.controls import Controls
from app.distill_requests import has_classifier
from app.kinds import AnyModel
from app.names import name_of
from app.study import said
from app.view_requests import ViewRequest
from hieramp import figures
from hieramp.analysis.dose import Response, Sweep, file_start, in_words, rows_of, summary, swept
from hieramp.analysis.doseplot import dose_figure, dose_title
from hieramp.captions import caption
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

    def drawn(given: dict[Any, Any]) -> Iterator[study.Answer]:
        with sentences():
            model, view_request = context.model, view_requests.read_request(context.model, controls.values(given))
            for one in context.study("dose", view_request, given[stage], given[knob]):
                text = words_of(name_of(model, view_request.label), one)
                links = links_of(model, view_request, one) if one.is_finished else ""
                words = said(text, links, view_requests.address(model, view_request))
                yield len(one.responses), len(one.doses), words, (view_of(one),)

    outputs = [words, curves]
    study.run(context, "dose", (draw, end), drawn, controls.inputs, [stage, knob], outputs, NOTHING, BEGUN)


def links_of(model: AnyModel, view_request: ViewRequest, found: Sweep) -> str:
    """A finished sweep to take away: the figure, the table, and all of it as JSON, as `python -m hieramp dose` does."""
    name, how = name_of(model, view_request.label), view_request.settings
    about = view_requests.described(model, replace(view_request, seeds=found.seeds)) | swept(found)
    start, title = file_start(found, name), caption(how, found.seeds, model.kind, swept=found.stage)
    figure = dose_figure(found, dose_title(found, name, model.name, title))
    data = json.dumps(about | summary(found), ensure_ascii=False, indent=1).encode()
    return (
        study.link(f"{start}.csv", csv_text(rows_of(found)), about, "dose.csv")
        + study.plot_links(start, figure, about, "dose")
        + study.file_link(f"{start}.json", data, "application/json", "dose.json")
    )


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
