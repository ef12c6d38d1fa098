"""The inside of one token, under the pictures: click a position, and its attention and its code are shown."""

from base64 import b64encode
from typing import Any

import gradio as gr

from app import theme, view_requests
from app.context import DRAWING, AppContext, sentences
from app.controls import Controls
from hieramp import figures


def build(context: AppContext) -> gr.HTML:
    """The place of the view; it stays small until a position is chosen."""
    return gr.HTML(
        None,
        html_template=theme.read("mechanism.html"),
        js_on_load=theme.read("mechanism.js"),
        apply_default_css=False,
        elem_id="mechanism",
        palette=b64encode(figures.palette()).decode(),
    )


def connect(context: AppContext, controls: Controls, place: gr.HTML) -> None:
    """Look where a visitor points."""

    def look(event: gr.EventData, given: dict[Any, Any]) -> Any:
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
            return context.answer("position", view_request, dict(event._data))

    place.look(look, controls.inputs, place, trigger_mode="multiple", **DRAWING)
