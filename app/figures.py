"""What the page shows, as HTML: pure functions from tensors to strings, without Gradio.

Pictures travel as lossless PNG inside the HTML and are enlarged by the browser without smoothing. A saliency map
is a picture of one pixel per token, laid over its picture by the browser, so that its opacity can change there.
"""

import base64
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hieramp import figures
from hieramp.scales import Scales

THUMB = 128  # pictures of single scales carry at most this many pixels a side
SMALL = 64  # pictures up to this size are enlarged without smoothing
SIDES = ("Baseline", "Amplified")


@dataclass(frozen=True)
class Scene:
    """Pictures as far as they have come: first the baselines, then the amplified ones of the same seeds."""

    name: str  # of the class
    seeds: tuple[int, ...]
    scales: Scales
    image_size: int
    caption: str  # what they are made with, in words
    settings: dict[str, Any]  # the same to be stored inside the final pictures
    images: tuple[Tensor, ...] = ()  # per scale so far (2n, 3, H, W)
    saliency: tuple[Tensor, ...] = ()  # likewise (2n, side, side)

    @property
    def is_finished(self) -> bool:
        return len(self.images) == len(self.scales)

    def row(self, i: int, side: int) -> int:
        """Where seed number i stands in the batch, as baseline (side 0) or amplified (side 1)."""
        return side * len(self.seeds) + i

    def picture(self, i: int, side: int, scale: int = -1) -> Image.Image:
        return figures.to_picture(self.images[scale][self.row(i, side)])

    def map(self, i: int, side: int, scale: int) -> Tensor:
        return self.saliency[scale][self.row(i, side)]


def side_by_side(side: int) -> str:
    return f"{side}×{side}"


def data_uri(picture: Image.Image, settings: dict[str, Any] | None = None) -> str:
    """A PNG as a data: address; `settings` go into it where `hieramp.figures.read_settings` finds them."""
    return "data:image/png;base64," + base64.b64encode(figures.png_bytes(picture, settings)).decode()


def settings_of_one(settings: dict[str, Any], seed: int, side: int) -> dict[str, Any]:
    """The settings of one picture among many: its own seed, and for a baseline (side 0) nothing amplified."""
    stages = settings["stages"] if side else dict.fromkeys(settings["stages"])
    return {**settings, "seeds": [seed], "stages": stages}


def latest_picture(scene: Scene, i: int, side: int) -> str:
    """The picture of a seed as far as it has come; once finished, with its settings inside."""
    about = settings_of_one(scene.settings, scene.seeds[i], side) if scene.is_finished else None
    return data_uri(scene.picture(i, side), about)


def heat(map_HW: Tensor, top: float | None = None) -> Image.Image:
    """A saliency map in the overlay's colours, one pixel per token."""
    blank = Image.new("RGB", (map_HW.shape[1], map_HW.shape[0]))
    return figures.overlay(blank, map_HW, opacity=1.0, top=top)


def result(scene: Scene) -> str:
    """The whole result: heading, pairs of pictures, and what happened scale by scale."""
    num_detailed = len(scene.seeds) if scene.is_finished else 1
    details = "".join(_detail(scene, i) for i in range(num_detailed))
    pixels = " pixels" if scene.image_size <= SMALL else ""
    parts = f"{_heading(scene)}{_pairs(scene)}{details}{_legend()}"
    opening = f'<article class="result{pixels}" style="--num-scales:{len(scene.scales)}"'
    return f'{opening} aria-busy="{str(not scene.is_finished).lower()}">{parts}</article>'


def _heading(scene: Scene) -> str:
    done, total = len(scene.images), len(scene.scales)
    state = scene.caption
    if not scene.is_finished:
        state = f"Drawing scale {done}, {side_by_side(scene.scales.sides[done])}"
    bar = f'<div class="bar" aria-hidden="true"><i style="width:{100 * done / total:.0f}%"></i></div>'
    return f'<header><h2>{escape(scene.name)}</h2><p role="status">{escape(state)}</p>{bar}</header>'


def _pairs(scene: Scene) -> str:
    pairs = "".join(_pair(scene, i) for i in range(len(scene.seeds)))
    return f'<div class="pairs{" many" if len(scene.seeds) > 1 else ""}">{pairs}</div>'


def _pair(scene: Scene, i: int) -> str:
    shown = []
    for side, label in enumerate(SIDES):
        alt = f"{label} picture of {scene.name}, seed {scene.seeds[i]}"
        if not scene.is_finished:
            alt += ", unfinished"
        content = _img(latest_picture(scene, i, side), alt) if scene.images else _empty()
        shown.append(f"<figure>{content}<figcaption>{label}</figcaption></figure>")
    return f'<div class="pair">{"".join(shown)}<p class="seed">seed {scene.seeds[i]}</p></div>'


def _detail(scene: Scene, i: int) -> str:
    """One seed, scale by scale: how its two pictures grew, and their saliency."""
    if len(scene.seeds) == 1:
        return f'<section class="detail"><h3>Scale by scale</h3>{_matrix(scene, i)}</section>'
    summary = f"<summary>Seed {scene.seeds[i]}, scale by scale</summary>"
    return f'<details class="detail"{" open" if i == 0 else ""}>{summary}{_matrix(scene, i)}</details>'


def _matrix(scene: Scene, i: int) -> str:
    """A column per scale: its name, then picture and saliency, baseline before amplified."""
    rows = (*SIDES, *(f"Saliency, {side.lower()}" for side in SIDES))
    labels = "".join(f"<span>{row}</span>" for row in rows)
    columns = "".join(_column(scene, i, scale) for scale in range(len(scene.scales)))
    backs = ""
    if scene.is_finished:
        backs = ";".join(f"--back{side}:url({_thumb(scene.picture(i, side))})" for side in range(len(SIDES)))
    return f'<div class="matrix" style="{backs}"><div class="labels"><span></span>{labels}</div>{columns}</div>'


def _column(scene: Scene, i: int, scale: int) -> str:
    sides = side_by_side(scene.scales.sides[scale])
    stage = scene.scales.stage_of(scale)
    head = f"<p><b>{sides}</b> <span>scale {scale}</span> <span>{stage or ''}</span></p>"
    whose = f"{scene.name}, seed {scene.seeds[i]}, scale {scale}, {sides}"
    cells = [_empty()] * 4
    for side, label in enumerate(SIDES):
        if scale < len(scene.images):
            cells[side] = _img(_thumb(scene.picture(i, side, scale)), f"{label} so far: {whose}")
        if scene.is_finished:
            cells[2 + side] = _overlay(scene, i, side, scale, f"Saliency over the {label.lower()} picture: {whose}")
    return f'<div class="scale">{head}{"".join(cells)}</div>'


def _overlay(scene: Scene, i: int, side: int, scale: int, alt: str) -> str:
    # One colour scale for the two, so that baseline and amplified can be compared.
    top = max(float(scene.map(i, other, scale).max()) for other in range(len(SIDES)))
    map_image = _img(data_uri(heat(scene.map(i, side, scale), top)), alt, "heat")
    return f'<div class="over" style="background-image:var(--back{side})">{map_image}</div>'


def _thumb(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((THUMB, THUMB))
    return data_uri(small)


def _img(source: str, alt: str, kind: str = "picture") -> str:
    return f'<img class="{kind}" src="{source}" alt="{escape(alt)}">'


def _empty() -> str:
    return '<div class="empty" aria-hidden="true"></div>'


def _legend() -> str:
    ramp = data_uri(heat(torch.linspace(0, 1, 64)[None]))
    about = "Colours run from 0 to the most salient position of the two pictures at that scale."
    ends = f'<span>0</span><img src="{ramp}" alt=""><span>most</span>'
    return f'<p class="legend">{ends}<span class="about">{about}</span></p>'
