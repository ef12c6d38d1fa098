"""The page: its tabs put together, and how it is served."""

import os
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from app import (
    ablate,
    api,
    changed,
    channel,
    distill_tab,
    dose,
    explore,
    glossary,
    kinds,
    learn,
    mechanism,
    opinion,
    picker,
    saving,
    theme,
    tour,
    visitors,
)
from app import controls as column
from app.context import AppContext, html
from app.page_head import PageHead
from app.visitor_limits import VisitorLimits
from hieramp import Model

INTRO = (
    "<a class='skip' href='#tabs'>Skip to the pictures</a><h1>HierAmp</h1>"
    "<div id='level' role='group' aria-label='How much is shown'>"
    "<button type='button' data-level='simple' aria-pressed='false'>Simple</button>"
    "<button type='button' data-level='expert' aria-pressed='true'>Expert</button></div><p>{}</p>"
    "<button type='button' id='sheet-handle' aria-controls='controls' aria-expanded='false'>Controls</button>"
)

STYLES = ("style", "mechanism", "names", "figures", "lecture", "short")  # what comes later outweighs


def build(model: Model, limits: VisitorLimits | None = None, **options: Any) -> gr.Blocks:
    """The page on a model; options as of `AppContext.make`. Launch it with `launch`."""
    return build_on(AppContext.make(model, limits, **options))


def build_on(context: AppContext) -> gr.Blocks:
    """The page in its context."""
    model = context.model
    is_var = model.kind == "var"  # what counts tokens and looks into them is for a VAR
    # Uploads and copies that nobody fetched go too, a day after the last set that could need them.
    clearing = (3600, 3600 * (context.limits.keep_hours + 24))
    with gr.Blocks(title="HierAmp", analytics_enabled=False, delete_cache=clearing) as demo:
        api.build(context)  # first: private events take up names too
        html(INTRO.format(kinds.INTRO[model.kind]), elem_id="intro")
        memory = distill_tab.build_memory(model.name)
        with gr.Row(elem_id="workspace"):
            with gr.Column(scale=0, min_width=304, elem_id="controls"):
                choice = picker.build(context)
                controls = column.build(context)
            with gr.Column(scale=1, min_width=320, elem_id="tabs"):
                tabs = gr.Tabs(selected="explore")
        with tabs:
            with gr.Tab("Explore", id="explore") as first:
                card = tour.build()
                viewer, closer, place = explore.build(context)
                saved = channel.build(saving.NAME)
                judged = opinion.build()
                if is_var:
                    inside = mechanism.build()
            with gr.Tab("What changed", id="changed", visible=is_var) as second:
                if is_var:
                    changed.build(context, controls)
            with gr.Tab("Ablate", id="ablate") as third:
                ablate.build(context, controls)
                dose.build(context, controls)
            with gr.Tab("Distill", id="distill") as fourth:
                distill_tab.build(context, controls, demo, memory)
            with gr.Tab("Learn", id="learn") as fifth:
                start_tour = learn.build(context.model)
        drawing = explore.DrawChain(context, controls, viewer, place)
        tab_of = {str(tab.id): tab for tab in (first, second, third, fourth, fifth) if tab.visible}
        picker.connect(context, controls, choice)
        explore.connect(demo, context, controls, drawing, closer, tabs, tab_of)
        saving.connect(context, controls, viewer, saved)
        opinion.connect(context, controls, viewer, judged)
        if is_var:
            channel.connect(context, controls, viewer.position, inside)
        tour.connect(context, controls, drawing, tabs, card, start_tour)
    return demo


def looks() -> dict[str, Any]:
    """What every page of a server is served with, beside its address."""
    scripts = theme.read("page.js"), theme.read("lecture.js"), glossary.script(), theme.read("sheet.js")
    return {
        "theme": theme.THEME,
        "css_paths": [theme.WEB / f"{name}.css" for name in STYLES],
        "head": "".join(f"<script>{code}</script>" for code in scripts),
        "footer_links": ["api"],
        "show_error": False,
        "ssr_mode": False,
        "max_file_size": VisitorLimits.upload_bytes,
    }


def launch(demo: gr.Blocks, **options: Any) -> None:
    """Serve the page with its looks; options as of `gr.Blocks.launch`."""
    # Gradio 6.31 counts all events anew after each one (0.04 s, and nobody reads it), and an idle queue looks for
    # events a thousand times a second (a tenth of a core).
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
    demo.queue(max_size=256)
    demo._queue.sleep_when_free = 0.01
    visitors.limit_waiting(demo._queue, VisitorLimits.waiting)
    # the allowance of uploads is for all pages of a server together
    allowance = (visitors.UploadAllowance, (), {"most": VisitorLimits.uploads_each})
    given = dict(options.pop("app_kwargs", {}))
    given["middleware"] = [
        allowance,
        Middleware(PageHead),
        *given.get("middleware", ()),
    ]
    demo.launch(app_kwargs=given, **looks(), **options)
