"""The last room: what all this is, with a short tour that drives the real controls."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from app import orders
from app.controls import Controls
from app.desk import CHEAP, Desk, html
from app.explore import Drawing

TEXT = r"""
## What you see

**Scales.** A VAR model draws a picture as a pyramid of token maps $r_0, r_1, \dots, r_{S-1}$ of growing sides: first one
token for the whole picture, then $2\times2$, and so on. All tokens of a scale are drawn at once, given the class and the
scales before:

$$p(r_0,\dots,r_{S-1}\mid y)=\prod_{s} p(r_s \mid r_0,\dots,r_{s-1},y)$$

**Class tokens.** HierAmp adds one learnable token $[c]_s$ per scale. It sees its own scale only and is trained to name the
class. Where it looks is the saliency: its attention to the positions of its scale, averaged over the heads,

$$M_s=\frac1H\sum_{h}\operatorname{softmax}\!\left(\frac{q_{[c]_s}k^\top}{\sqrt d}\right)$$

**Amplification.** The $k=\max(1,\lfloor\rho\, n_s^2\rfloor)$ most salient positions get $a_s=1$, the others 0, and every query of
that scale is drawn towards them before the softmax:

$$L[:,\,i]\;\leftarrow\;L[:,\,i]+\beta\,a_s(i)$$

ρ says how many positions, β how strongly; each of the stages coarse, mid and fine has its own. In the mode *attention* the
weights after the softmax are multiplied by γ instead; γ under 1 weakens.

**What it is for.** Dataset distillation: a few generated pictures per class that train a classifier as well as many real
ones. Amplifying coarse and mid scales makes a class's pictures differ more in layout; amplifying fine scales makes them
more alike in detail. *What changed* counts this on the model in front of you.

## Links

[HierAmp, arXiv 2603.06932](https://arxiv.org/abs/2603.06932) · [VAR, arXiv 2404.02905](https://arxiv.org/abs/2404.02905) ·
[RDED, arXiv 2312.03526](https://arxiv.org/abs/2312.03526)
"""
LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


@dataclass(frozen=True)
class Stop:
    """One stop of the tour: what to look at, and the settings that show it."""

    title: str
    text: str
    preset: str


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
        "attends to; point at one to read its value. Below the panel: which classes the token takes the picture for.",
        "off",
    ),
    Stop(
        "ρ and β, coarse",
        "Now the coarse stage is amplified: ρ 50 % of its positions, β 5. Tick “Outline chosen positions” and step to the "
        "coarse scale. Everything after it follows from the change, so the layout moves.",
        "coarse",
    ),
    Stop(
        "Fine scales",
        "The same at the fine stage only. The layout stays, details change. Compare the counts under the strip with those "
        "of the stop before, and try the slider in Compare.",
        "fine",
    ),
    Stop(
        "All stages",
        "All three, as the paper distils. Change ρ and β as you like; Ablate shows all schedules at once, and Distil "
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


def build() -> gr.Button:
    start = gr.Button("Start the tour", variant="primary", scale=0, min_width=160, elem_id="start-tour")
    gr.Markdown(TEXT, latex_delimiters=LATEX, elem_id="learn")
    return start


def connect(desk: Desk, controls: Controls, drawing: Drawing, tabs: gr.Tabs, card: Any, start: gr.Button) -> None:
    column, text, back, onward, end = card
    at = gr.State(0)
    outputs = [at, column, text, tabs, *controls.stage_fields]

    def show(i: int) -> list[Any]:
        i = max(0, min(len(STOPS) - 1, i))
        return [
            i,
            gr.Column(visible=True),
            as_html(i),
            gr.Tabs(selected="explore"),
            *orders.preset_fields(STOPS[i].preset),
        ]

    shown = start.click(lambda: show(0), None, outputs, **CHEAP)
    earlier = back.click(lambda i: show(i - 1), at, outputs, **CHEAP)
    later = onward.click(lambda i: show(i + 1), at, outputs, **CHEAP)
    end.click(lambda: gr.Column(visible=False), None, column, **CHEAP)
    for event in (shown, earlier, later):
        drawing.then_after(event)


def as_html(i: int) -> str:
    stop = STOPS[i]
    return f'<p class="count">{i + 1} of {len(STOPS)}</p><h3>{escape(stop.title)}</h3><p role="status">{escape(stop.text)}</p>'
