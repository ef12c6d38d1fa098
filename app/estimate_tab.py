"""What a set would take, in the fourth tab: a few images are drawn as it would be, and timed."""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from app import distill_requests, study, view_requests
from app.context import AppContext, html, sentences, stale_note
from app.controls import Controls
from app.distill_requests import DistillRequest
from app.kinds import AnyModel
from app.view_requests import ViewRequest

NOTHING = "Estimate draws a few images, and tells what the set takes in time and size."
BEGUN = "Timing: the first image is being drawn …"


def build() -> tuple[gr.Button, gr.Button, gr.HTML]:
    """The buttons that begin and end it, and the place of its words."""
    with gr.Row(elem_classes="ask"):
        button = gr.Button("Estimate", min_width=110, scale=0)
        end = gr.Button("Stop estimating", scale=0, min_width=130, interactive=False, elem_id="stop-estimate")
    return button, end, html(study.said(NOTHING), elem_classes="prose-line", elem_id="estimate")


def connect(
    context: AppContext,
    parts: tuple[gr.Button, gr.Button, gr.HTML],
    recipe: Callable[[dict[Any, Any]], DistillRequest],
    controls: Controls,
    form: Sequence[Any],
    others: set[Any],
) -> None:
    """Estimate the set that `recipe` reads from the controls and the form; `others` are fields that do not matter."""
    button, end, words = parts

    def timed(given: dict[Any, Any]) -> Iterator[study.Answer]:
        with sentences():
            asked = recipe(given)
            of = stale_of(context.model, asked)
            for one in context.study("estimate", asked):
                said = BEGUN
                if one.found:
                    said = distill_requests.estimate_words(asked, one.found)
                    said += "" if one.is_finished else " So far: timing goes on …"
                yield one.done, one.of, f'<p role="status">{escape(said)}</p>{stale_note(of)}', ()

    study.run(context, "estimate", (button, end), timed, others | controls.inputs, form, [words], NOTHING, BEGUN)


def stale_of(model: AnyModel, asked: DistillRequest) -> dict[str, str | None]:
    """The part of an address that a set is made by: class, seed and count of the controls are not its own."""
    address = view_requests.address(model, ViewRequest(0, (0,), asked.settings))
    gone = set(map(view_requests.in_address, view_requests.REQUEST))
    return {name: value for name, value in address.items() if name not in gone}
