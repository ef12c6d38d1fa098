"""A second opinion under the pictures: the channel through which the viewer asks for it (app/verdicts.py)."""

from typing import Any

import gradio as gr

from app import orders
from app.controls import Controls
from app.desk import DRAWING, Desk, sentences
from app.recipes import has_classifier

CHANNEL = "watch('value', () => window.dispatchEvent(new CustomEvent('hieramp-opinion', { detail: props.value })));"


def build() -> gr.HTML:
    """The channel that the viewer listens to."""
    return gr.HTML(None, html_template="", js_on_load=CHANNEL, apply_default_css=False, elem_id="opinion")


def connect(desk: Desk, controls: Controls, viewer: gr.HTML, channel: gr.HTML) -> None:
    """Answer the viewer, where there is a classifier."""

    def opinion(event: gr.EventData, given: dict[Any, Any]) -> Any:
        with sentences():
            order = orders.read_order(desk.model, controls.values(given))
            return desk.answer("opinion", order, dict(event._data))

    if has_classifier(desk.model):
        viewer.opinion(opinion, controls.inputs, channel, trigger_mode="multiple", **DRAWING)
