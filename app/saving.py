"""Buttons of the viewer that save what is on screen: as a data: address, on their channel."""

from base64 import b64encode
from typing import Any

import gradio as gr

from app import channel
from app.context import AppContext
from app.controls import Controls

NAME = "saved"


def connect(context: AppContext, controls: Controls, viewer: gr.HTML, told: gr.HTML) -> None:
    """Answer the viewer with the file (app/saved_files.py)."""

    def as_told(found: dict[str, Any]) -> dict[str, Any]:
        address = f"data:{found['media']};base64,{b64encode(found['bytes']).decode()}"
        return {"name": found["name"], "address": address}

    channel.connect(context, controls, viewer.saved, told, as_told)
