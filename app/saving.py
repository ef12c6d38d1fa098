"""Buttons of the viewer that save what is on screen (app/exports.py): the channel between the two."""

from base64 import b64encode
from typing import Any

import gradio as gr

from app import view_requests
from app.context import DRAWING, AppContext, sentences
from app.controls import Controls

CHANNEL = "watch('value', () => window.dispatchEvent(new CustomEvent('hieramp-saved', { detail: props.value })));"


def build() -> gr.HTML:
    """The channel that the viewer listens to."""
    return gr.HTML(None, html_template="", js_on_load=CHANNEL, apply_default_css=False, elem_id="saved")


def connect(context: AppContext, controls: Controls, viewer: gr.HTML, channel: gr.HTML) -> None:
    """Answer the viewer with the file as a data: address."""

    def save(event: gr.EventData, given: dict[Any, Any]) -> dict[str, Any]:
        asked = dict(event._data)
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
            found = context.answer("saved", view_request, asked)
        address = f"data:{found['media']};base64,{b64encode(found['bytes']).decode()}"
        return {"what": asked["what"], "name": found["name"], "address": address, "number": asked.get("number")}

    viewer.save(save, controls.inputs, channel, trigger_mode="multiple", **DRAWING)
