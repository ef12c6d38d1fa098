"""The last tab: what all this is, with a short tour that drives the real controls."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from app import glossary, theme, view_requests
from app.context import CHEAP, AppContext, html
from app.controls import Controls
from app.explore import Drawing

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


FOCUS = "() => setTimeout(() => document.querySelector('#tour-text h2')?.focus(), 200)"


@dataclass(frozen=True)
class Stop:
    """One stop of the tour: what to look at, and the settings that show it."""

    title: str
    text: str
    schedule: str


STOPS = (
    Stop(
        "A scale at a time",
        "Press Play. One token sets the ground, 2×2 tokens place the light and dark, and each scale adds what the ones "
        "before could not say. The two pictures are the same: amplification is off.",
        "off",
    ),
    Stop(
        "Where it looks",
        "Move “Saliency over the pictures” to the right. Bright positions are those that the class token of this scale "
        "attends to; point at one to read its value. Below it: which classes the token takes the picture for.",
        "off",
    ),
    Stop(
        "ρ and β, coarse",
        "Now the coarse stage is amplified: ρ 50 % of its positions, β 5. Tick “Outline chosen positions” and step to "
        "the coarse scale. The strip counts the tokens that differ: where one does, all after it follows and the "
        "layout may move; where none does, as with some seeds, the two pictures stay alike. Then try another seed.",
        "coarse",
    ),
    Stop(
        "Fine scales",
        "The same at the fine stage only: the layout is drawn before it and stays, details may change. Compare the "
        "counts under the strip with "
        "those of the stop before, and try the slider in Compare.",
        "fine",
    ),
    Stop(
        "All stages",
        "All three, as the paper distills. Change ρ and β as you like; Ablate shows all schedules at once, and Distill "
        "makes the set.",
        "all",
    ),
)


def build_card() -> tuple[gr.Column, gr.HTML, gr.Button, gr.Button, gr.Button]:
    """The card above the pictures while the tour runs."""
    with gr.Column(visible=False, elem_id="tour") as card:
        text = html("", elem_id="tour-text")
        with gr.Row(elem_classes="tour-buttons"):
            back = gr.Button("Back", size="sm", scale=0, min_width=72)
            onward = gr.Button("Next", size="sm", scale=0, min_width=72, variant="primary")
            end = gr.Button("End the tour", size="sm", scale=0, min_width=104)
    return card, text, back, onward, end


def build(has_tour: bool = True) -> gr.Button:
    options: dict[str, Any] = {"variant": "primary", "scale": 0, "min_width": 160, "elem_id": "start-tour"}
    start = gr.Button("Start the tour", visible=has_tour, **options)
    gr.Markdown(theme.read("learn.md"), latex_delimiters=LATEX, elem_id="learn")
    html(glossary.as_html())
    return start


def connect(
    context: AppContext, controls: Controls, drawing: Drawing, tabs: gr.Tabs, card: Any, start: gr.Button
) -> None:
    column, text, back, onward, end = card
    at = gr.State(0)
    outputs = [
        at,
        column,
        text,
        tabs,
        back,
        onward,
        *(controls.named[name] for name in view_requests.schedule_values("all", context.model.kind)),
    ]

    def show(i: int) -> dict[Any, Any]:
        i = max(0, min(len(STOPS) - 1, i))
        shown = {at: i, column: gr.Column(visible=True), text: as_html(i), tabs: gr.Tabs(selected="explore")}
        shown |= {back: gr.Button(interactive=i > 0), onward: gr.Button(interactive=i < len(STOPS) - 1)}
        return shown | controls.updates(view_requests.schedule_values(STOPS[i].schedule, context.model.kind))

    shown = start.click(lambda: show(0), None, outputs, **CHEAP)
    earlier = back.click(lambda i: show(i - 1), at, outputs, **CHEAP)
    later = onward.click(lambda i: show(i + 1), at, outputs, **CHEAP)
    end.click(lambda: gr.Column(visible=False), None, column, **CHEAP)
    shown.then(None, None, None, js=FOCUS, api_visibility="private")
    for event in (shown, earlier, later):
        drawing.then_after(event)


def as_html(i: int) -> str:
    stop = STOPS[i]
    heading = f'<p class="count">{i + 1} of {len(STOPS)}</p><h2 tabindex="-1">{escape(stop.title)}</h2>'
    return f'{heading}<p role="status">{escape(stop.text)}</p>'
