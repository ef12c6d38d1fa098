"""A second opinion under the pictures: the channel through which the viewer asks for it (app/verdicts.py)."""

from typing import Any

import gradio as gr

from app import view_requests
from app.context import DRAWING, AppContext, sentences
from app.controls import Controls
from app.distill_requests import has_classifier

CHANNEL = "watch('value', () => window.dispatchEvent(new CustomEvent('hieramp-opinion', { detail: props.value })));"


def build() -> gr.HTML:
    """The channel that the viewer listens to."""
    return gr.HTML(None, html_template="", js_on_load=CHANNEL, apply_default_css=False, elem_id="opinion")


def connect(context: AppContext, controls: Controls, viewer: gr.HTML, channel: gr.HTML) -> None:
    """Answer the viewer, where there is a classifier."""

    def opinion(event: gr.EventData, given: dict[Any, Any]) -> Any:
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
            return context.answer("opinion", view_request, dict(event._data))

    if has_classifier(context.model):
        viewer.opinion(opinion, controls.inputs, channel, trigger_mode="multiple", **DRAWING)
