"""The page: its rooms put together, and how it is served."""

from typing import Any

import gradio as gr

from app import ablate, api, changed, distil, explore, learn, theme
from app import controls as column
from app.desk import Desk, html
from app.limits import Limits
from hieramp import Model

INTRO = (
    "<a class='skip' href='#rooms'>Skip to the pictures</a>"
    "<h1>HierAmp</h1><p>A VAR model draws from coarse to fine. Its class tokens show where each scale looks; "
    "amplify what they look at and compare.</p>"
)


def build(model: Model, limits: Limits | None = None, **options: Any) -> gr.Blocks:
    """The page on a model; options as of `Desk.make`. Launch it with `launch`."""
    desk = Desk.make(model, limits, **options)
    # Uploads and copies that nobody fetched go too, a day after the last set that could need them.
    clearing = (3600, 3600 * (desk.limits.keep_hours + 24))
    with gr.Blocks(title="HierAmp", analytics_enabled=False, delete_cache=clearing) as demo:
        api.build(desk)  # first: private events take up names too
        html(INTRO, elem_id="intro")
        memory = distil.build_memory()
        with gr.Row(elem_id="desk"):
            with gr.Column(scale=0, min_width=304, elem_id="controls"):
                controls = column.build(desk)
            with gr.Column(scale=1, min_width=320, elem_id="rooms"):
                tabs = gr.Tabs(selected="explore")
        with tabs:
            with gr.Tab("Explore", id="explore") as first:
                card = learn.build_card()
                viewer, closer, place = explore.build(desk)
            with gr.Tab("What changed", id="changed") as second:
                changed.build(desk, controls)
            with gr.Tab("Ablate", id="ablate") as third:
                ablate.build(desk, controls)
            with gr.Tab("Distil", id="distil") as fourth:
                distil.build(desk, controls, demo, memory)
            with gr.Tab("Learn", id="learn") as fifth:
                start_tour = learn.build()
        drawing = explore.Drawing(desk, controls, viewer, place)
        rooms = {str(tab.id): tab for tab in (first, second, third, fourth, fifth)}
        explore.connect(demo, desk, controls, drawing, closer, tabs, rooms)
        learn.connect(desk, controls, drawing, tabs, card, start_tour)
    return demo


def launch(demo: gr.Blocks, **options: Any) -> None:
    """Serve the page with its looks; options as of `gr.Blocks.launch`."""
    demo.queue(max_size=256).launch(
        theme=theme.THEME,
        css_paths=[theme.WEB / "style.css", theme.WEB / "figures.css"],
        head=f"<script>{theme.read('page.js')}</script><script>{theme.read('sheet.js')}</script>",
        footer_links=["api"],
        show_error=False,
        ssr_mode=False,
        max_file_size=Limits.upload_bytes,
        **options,
    )
