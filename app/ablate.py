"""The third room: one class and seed under many settings, as a labelled sheet of pictures, each of them a link."""

from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from PIL import Image

from app import orders, scenes, sheets
from app.controls import Controls
from app.desk import STUDYING, Desk, html, sentences, stale_note
from app.sheets import SCHEDULES, Sheet, plan
from hieramp import Model
from hieramp.scales import STAGES

ABOUT = (
    "<h2>Ablate</h2><p>The class and first seed of the controls, under the eight schedules of the paper, or under a "
    "grid of strength and ρ for one stage while the others stay put. Every picture is a link to its settings.</p>"
)
KINDS = [("The eight schedules", SCHEDULES), *((f"Strength × ρ, {stage}", stage) for stage in STAGES)]


def build(desk: Desk, controls: Controls) -> None:
    html(ABOUT, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        kind = gr.Radio(KINDS, value=SCHEDULES, show_label=False, container=False, elem_classes="chips", elem_id="kind")
        draw = gr.Button("Draw the sheet", variant="primary", scale=0, min_width=160)
    start = sheets.schedule_sheet(orders.first_order(desk.model))
    sheet = html(as_html(desk.model, start, "", asked=False), elem_id="sheet")

    def drawn(given: dict[Any, Any]) -> Iterator[str]:
        with sentences():
            order = orders.read_order(desk.model, controls.values(given))
            empty = plan(order, given[kind])
            about = orders.short_name(desk.model.class_names[order.label])
            yield as_html(desk.model, empty, about)
            for found in desk.study("ablate", order, given[kind]):
                yield as_html(desk.model, found, about)

    draw.click(drawn, {kind, *controls.inputs}, sheet, trigger_mode="once", **STUDYING)


def as_html(model: Model, sheet: Sheet, name: str, asked: bool = True) -> str:
    """The sheet as far as it has come: a grid of links with the place of those to come kept."""
    order = sheet.orders[0]
    heading = f"{name}, seed {order.seeds[0]}" if asked else "Nothing is drawn until you ask."
    of = stale_note({"class": orders.to_query(model, order)["class"], "seed": str(order.seeds[0])}) if asked else ""
    tiles = "".join(_tile(model, sheet, i, name) for i in range(len(sheet.orders)))
    busy = str(asked and not sheet.is_finished).lower()
    body = f'<p role="status">{escape(heading)}</p>{of}<div class="tiles">{tiles}</div>'
    saved = f'<p class="plain links">{_save(model, sheet)}</p>'
    return f'<section class="sheet" aria-busy="{busy}">{body}{saved}</section>'


def _tile(model: Model, sheet: Sheet, i: int, name: str) -> str:
    label, order = sheet.label(i).replace("-", " "), sheet.orders[i]
    if i >= len(sheet.pictures):
        return f'<figure><div class="empty"></div><figcaption>{escape(label)}</figcaption></figure>'
    source = scenes.data_uri(scenes.thumb(sheet.pictures[i]))
    alt = escape(f"{name}, seed {order.seeds[0]}, {label}")
    address = escape("?" + urlencode(orders.to_query(model, order)))
    picture = f'<a href="{address}" target="_self"><img src="{source}" alt="{alt}"></a>'
    return f"<figure>{picture}<figcaption>{escape(label)}</figcaption></figure>"


def saved(model: Model, sheet: Sheet) -> tuple[Image.Image, dict[str, Any]]:
    """A finished sheet that says what it is, and the settings inside: those of its first picture, and all labels."""
    order = sheet.orders[0]
    about = f"{orders.short_name(model.class_names[order.label])}, seed {order.seeds[0]}, {model.name}"
    return sheet.as_picture(about), orders.described(model, order) | {orders.SHEET: sheet.labels}


def _save(model: Model, sheet: Sheet) -> str:
    if not sheet.is_finished:
        return ""
    order = sheet.orders[0]
    source = scenes.data_uri(*saved(model, sheet))
    name = scenes.file_name(model.class_names[order.label], f"seed{order.seeds[0]}-sheet.png")
    return f'<a download="{name}" href="{source}">Save the sheet as PNG</a>'
