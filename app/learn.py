"""The last tab: what all this is, its words, and where the tour begins (app/tour.py)."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from app import glossary, theme
from app.context import html
from app.kinds import AnyModel
from hieramp.diffusion.model import DiffusionModel

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]


TEXT = {"var": "learn.md", "dit": "learn-dit.md"}
CELL, GAP = 88, 34  # of the picture of the scales, in pixels


def build(model: AnyModel) -> gr.Button:
    """All of it; answers the button that starts the tour."""
    start = gr.Button("Start the tour", variant="primary", scale=0, min_width=160, elem_id="start-tour")
    if not isinstance(model, DiffusionModel):
        html(pipeline(model.var.scales.sides, model.image_size), elem_id="pipeline")
    gr.Markdown(theme.read(TEXT[model.kind]), latex_delimiters=LATEX, elem_id="learn")
    html(glossary.as_html())
    return start


def pipeline(sides: Sequence[int], image_size: int) -> str:
    """A picture of how a VAR draws: each scale's tokens become codes, which are enlarged and added to the picture."""
    shapes, x = [], 0
    for scale, side in enumerate(sides):
        at = [round(CELL * i / side, 1) for i in range(side + 1)]
        lines = "".join(f"M{x + a} 0V{CELL}M{x} {a}H{x + CELL}" for a in at)
        words = f"{side}×{side}", f"{side * side} token{'s' if side > 1 else ''}"
        shapes.append(f'<path d="{lines}" fill="none" stroke="currentColor"/>')
        shapes += [_words(x + CELL / 2, CELL + 18 + 16 * i, word) for i, word in enumerate(words)]
        if scale:
            shapes.append(_words(x - GAP / 2, CELL / 2 + 6, "+", 20))
        x += CELL + GAP
    shapes.append(_words(x - GAP / 2, CELL / 2 + 6, "=", 20))
    shapes.append(f'<rect x="{x}" y="0" width="{CELL}" height="{CELL}" fill="currentColor" opacity="0.25"/>')
    shapes.append(_words(x + CELL / 2, CELL + 18, "picture"))
    shapes.append(_words(x + CELL / 2, CELL + 34, f"{image_size}×{image_size} pixels"))
    title = (
        f"A picture is the sum of {len(sides)} scales. Each token names a code, a small pattern of the codebook; the "
        "codes of a scale are enlarged to the whole picture and added to what the scales before have drawn."
    )
    head = f'<svg viewBox="-2 -2 {x + CELL + 4} {CELL + 46}" role="img" aria-label="{escape(title)}">'
    return f"<figure tabindex='0'>{head}{''.join(shapes)}</svg><figcaption>{escape(title)}</figcaption></figure>"


def _words(x: float, y: float, text: str, size: int = 13) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle" fill="currentColor">{escape(text)}</text>'
    )
