"""The page: its rooms put together, and how it is served."""

from typing import Any

import gradio as gr

from app import ablate, api, changed, distil, dose, explore, glossary, kinds, learn, mechanism, opinion, theme
from app import controls as column
from app.desk import Desk, html
from app.limits import Limits
from hieramp import Model

INTRO = "<a class='skip' href='#rooms'>Skip to the pictures</a><h1>HierAmp</h1><p>{}</p>"


def build(model: Model, limits: Limits | None = None, **options: Any) -> gr.Blocks:
    """The page on a model; options as of `Desk.make`. Launch it with `launch`."""
    is_var = model.kind == "var"  # what counts tokens, and the tour of them, is for a VAR
    desk = Desk.make(model, limits, **options)
    # Uploads and copies that nobody fetched go too, a day after the last set that could need them.
    clearing = (3600, 3600 * (desk.limits.keep_hours + 24))
    with gr.Blocks(title="HierAmp", analytics_enabled=False, delete_cache=clearing) as demo:
        api.build(desk)  # first: private events take up names too
        html(INTRO.format(kinds.INTRO[model.kind]), elem_id="intro")
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
                if is_var:
                    inside, judged = mechanism.build(desk), opinion.build()
            with gr.Tab("What changed", id="changed", visible=is_var) as second:
                if is_var:
                    changed.build(desk, controls)
            with gr.Tab("Ablate", id="ablate", visible=is_var) as third:
                if is_var:
                    ablate.build(desk, controls)
                    dose.build(desk, controls)
            with gr.Tab("Distil", id="distil") as fourth:
                distil.build(desk, controls, demo, memory)
            with gr.Tab("Learn", id="learn") as fifth:
                start_tour = learn.build(has_tour=is_var)
        drawing = explore.Drawing(desk, controls, viewer, place)
        rooms = {str(tab.id): tab for tab in (first, second, third, fourth, fifth) if tab.visible}
        explore.connect(demo, desk, controls, drawing, closer, tabs, rooms)
        if is_var:
            mechanism.connect(desk, controls, inside)
            opinion.connect(desk, controls, viewer, judged)
        learn.connect(desk, controls, drawing, tabs, card, start_tour)
    return demo


def launch(demo: gr.Blocks, **options: Any) -> None:
    """Serve the page with its looks; options as of `gr.Blocks.launch`."""
    scripts = (theme.read("page.js"), glossary.script(), theme.read("sheet.js"))
    demo.queue(max_size=256).launch(
        theme=theme.THEME,
        css_paths=[theme.WEB / name for name in ("style.css", "mechanism.css", "figures.css")],
        head="".join(f"<script>{text}</script>" for text in scripts),
        footer_links=["api"],
        show_error=False,
        ssr_mode=False,
        max_file_size=Limits.upload_bytes,
        **options,
    )
