"""The last tab: what all this is, its words, and where the tour begins (app/tour.py)."""

from typing import Any

import gradio as gr

from app import glossary, theme
from app.context import html

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


def build(has_tour: bool = True) -> gr.Button:
    """All of it; answers the button that starts the tour."""
    options: dict[str, Any] = {"variant": "primary", "scale": 0, "min_width": 160, "elem_id": "start-tour"}
    start = gr.Button("Start the tour", visible=has_tour, **options)
    gr.Markdown(theme.read("learn.md"), latex_delimiters=LATEX, elem_id="learn")
    html(glossary.as_html())
    return start
