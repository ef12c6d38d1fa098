"""The inside of one token, under the pictures: click a position, and its attention and its code are shown."""

from base64 import b64encode

import gradio as gr

from app import channel, theme
from hieramp import figures


def build() -> gr.HTML:
    """The place of the view, which stays small until a position is chosen; and the channel of what it shows."""
    gr.HTML(
        None,
        html_template=theme.read("mechanism.html"),
        js_on_load=theme.read("mechanism.js"),
        apply_default_css=False,
        elem_id="mechanism",
        palette=b64encode(figures.palette()).decode(),
    )
    return channel.build("position")
