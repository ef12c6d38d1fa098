"""A second opinion under the pictures (app/verdicts.py): verdicts at once, the occlusion map piece by piece."""

from typing import Any

import gradio as gr

from app import channel, view_requests
from app.context import DRAWING, AppContext, sentences
from app.controls import Controls
from app.distill_requests import has_classifier

Channels = tuple[gr.HTML, gr.HTML]


def build() -> Channels:
    """The channels of verdicts and of occlusion maps."""
    return channel.build("opinion"), channel.build("occlusion")


def connect(context: AppContext, controls: Controls, viewer: gr.HTML, channels: Channels) -> None:
    """Answer the viewer, where there is a classifier."""

    def opinion(event: gr.EventData, given: dict[Any, Any]) -> Any:
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
            return context.answer("opinion", view_request, dict(event._data))

    if has_classifier(context.model):
        verdicts, occlusion = channels
        viewer.opinion(opinion, controls.inputs, verdicts, trigger_mode="multiple", **DRAWING)
        channel.connect(context, controls, viewer.occlusion, occlusion)
