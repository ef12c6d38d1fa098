"""The third tab: one class and seed under many settings, as a labelled sheet of pictures, each of them a link."""

from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from PIL import Image

from app import sheets, view_models, view_requests
from app.context import STUDYING, AppContext, html, sentences, stale_note
from app.controls import Controls
from app.names import name_of
from app.sheets import SCHEDULES, Sheet, plan
from hieramp import Model
from hieramp.scales import STAGES

ABOUT = (
    "<h2>Ablate</h2><p>The class and first seed of the controls, under the eight schedules of the paper, or under a "
    "grid of strength and ρ for one stage while the others stay put. Every picture is a link to its settings.</p>"
)
KINDS = [("The eight schedules", SCHEDULES), *((f"Strength × ρ, {stage}", stage) for stage in STAGES)]


def build(context: AppContext, controls: Controls) -> None:
    html(ABOUT, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        kind = gr.Radio(KINDS, value=SCHEDULES, show_label=False, container=False, elem_classes="chips", elem_id="kind")
        draw = gr.Button("Draw the sheet", variant="primary", scale=0, min_width=160)
    start = sheets.schedule_sheet(view_requests.first_request(context.model))
    sheet = html(as_html(context.model, start, "", asked=False), elem_id="sheet")

    def drawn(given: dict[Any, Any]) -> Iterator[str]:
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
            empty = plan(view_request, given[kind])
            about = name_of(context.model, view_request.label)
            yield as_html(context.model, empty, about)
            for found in context.study("ablate", view_request, given[kind]):
                yield as_html(context.model, found, about)

    draw.click(drawn, {kind, *controls.inputs}, sheet, trigger_mode="once", **STUDYING)


def as_html(model: Model, sheet: Sheet, name: str, asked: bool = True) -> str:
    """The sheet as far as it has come: a grid of links with the place of those to come kept."""
    view_request = sheet.view_requests[0]
    heading = f"{name}, seed {view_request.seeds[0]}" if asked else "Nothing is drawn until you ask."
    of = (
        stale_note({"class": view_requests.to_query(model, view_request)["class"], "seed": str(view_request.seeds[0])})
        if asked
        else ""
    )
    tiles = "".join(_tile(model, sheet, i, name) for i in range(len(sheet.view_requests)))
    busy = str(asked and not sheet.is_finished).lower()
    body = f'<p role="status">{escape(heading)}</p>{of}<div class="tiles">{tiles}</div>'
    saved = f'<p class="plain links">{_save(model, sheet)}</p>'
    return f'<section class="sheet" aria-busy="{busy}">{body}{saved}</section>'


def _tile(model: Model, sheet: Sheet, i: int, name: str) -> str:
    label, view_request = sheet.label(i).replace("-", " "), sheet.view_requests[i]
    if i >= len(sheet.pictures):
        return f'<figure><div class="empty"></div><figcaption>{escape(label)}</figcaption></figure>'
    source = view_models.data_uri(view_models.thumb(sheet.pictures[i]))
    alt = escape(f"{name}, seed {view_request.seeds[0]}, {label}")
    address = escape("?" + urlencode(view_requests.to_query(model, view_request)))
    picture = f'<a href="{address}" target="_self"><img src="{source}" alt="{alt}"></a>'
    return f"<figure>{picture}<figcaption>{escape(label)}</figcaption></figure>"


def saved(model: Model, sheet: Sheet) -> tuple[Image.Image, dict[str, Any]]:
    """A finished sheet that says what it is, and the settings inside: those of its first picture, and all labels."""
    view_request = sheet.view_requests[0]
    about = f"{name_of(model, view_request.label)}, seed {view_request.seeds[0]}, {model.name}"
    return sheet.as_picture(about), view_requests.described(model, view_request) | {view_requests.SHEET: sheet.labels}


def _save(model: Model, sheet: Sheet) -> str:
    if not sheet.is_finished:
        return ""
    view_request = sheet.view_requests[0]
    source = view_models.data_uri(*saved(model, sheet))
    name = view_models.file_name(name_of(model, view_request.label), f"seed{view_request.seeds[0]}-sheet.png")
    return f'<a download="{name}" href="{source}">Save the sheet as PNG</a>'
