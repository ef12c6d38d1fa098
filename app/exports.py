"""What is on screen as files: the view as a figure, the growth as an animation, the maps as arrays and images. Pure."""

import io
import json
import textwrap
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFont
from torch import Tensor

from app.grown_pair import GrownPair, Shown
from app.kinds import AnyModel
from app.view_requests import ViewRequest, caption, described, short_name
from hieramp import figures
from hieramp.version import __version__

WIDTH = 1024  # pixels of a figure and of an animation
EDGE, LINE = 24, 20  # a margin, and the size of the letters
INK, FAINT, PAPER, MARK = "#1c1b22", "#5c5a66", "#ffffff", "#ffb561"
FRAME_MS, LAST_MS = 700, 2500  # how long an animation shows a step, and the finished pictures
MAP_SIZE = 256  # pixels of a map's image, about
SIDES = ("baseline", "amplified")


# The figure


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Pillow's own has no × and no Greek."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _panes(drawn: GrownPair, scale: int, shown: Shown, size: int) -> list[Image.Image]:
    """Baseline and amplified, with what lies over them; in Compare bare, and with their difference, twice as bright."""
    step = len(drawn.images) - 1 if shown.finished else scale
    pictures = [
        figures.to_picture(image).resize((size, size), Image.Resampling.BICUBIC) for image in drawn.images[step]
    ]
    if shown.compare:
        return [*pictures, ImageChops.difference(*pictures).point(lambda level: min(255, 2 * level))]
    tops = [float(m.max()) for m in drawn.maps[scale]]
    for i, picture in enumerate(pictures):
        if shown.overlay:
            top = max(tops) if shown.shared else tops[i]
            pictures[i] = figures.overlay(picture, drawn.maps[scale][i], shown.overlay, top)
        mask = drawn.chosen[scale]
        if shown.outline and mask is not None:
            _outline(pictures[i], mask[i])
    return pictures


def _outline(picture: Image.Image, mask_nn: Tensor) -> None:
    """The border of the positions chosen, dark below light, so that it is seen on any picture."""
    n, pen = len(mask_nn), ImageDraw.Draw(picture)
    edges = [round(i * picture.width / n) for i in range(n + 1)]
    padded = torch.nn.functional.pad(mask_nn, (1, 1, 1, 1))
    lines = []
    for y, x in mask_nn.nonzero().tolist():
        (x0, x1), (y0, y1) = edges[x : x + 2], edges[y : y + 2]
        around = ((0, 1, x0, y0, x1, y0), (2, 1, x0, y1, x1, y1), (1, 0, x0, y0, x0, y1), (1, 2, x1, y0, x1, y1))
        lines += [line for dy, dx, *line in around if not padded[y + dy, x + dx]]
    for color, width in (("#000000", 6), (MARK, 3)):
        for line in lines:
            pen.line(line, color, width)


def figure(model: AnyModel, view_request: ViewRequest, shown: Shown, drawn: GrownPair) -> Image.Image:
    """The view as a labelled picture, WIDTH pixels wide."""
    labels = [*SIDES, "difference, twice as bright"][: 3 if shown.compare else 2]
    size = (WIDTH - EDGE * (len(labels) + 1)) // len(labels)
    has_legend = bool(shown.overlay) and not shown.compare
    words = f"{caption(one_sample(view_request, shown), model.kind)} Model {model.name}, hieramp {__version__}."
    lines = textwrap.wrap(words, 100)
    top, foot = EDGE + 44, 40 + 40 * has_legend + 24 * len(lines) + EDGE
    canvas = Image.new("RGB", (WIDTH, top + size + foot), PAPER)
    pen = ImageDraw.Draw(canvas)
    name, seed = short_name(model.class_names[view_request.label]), view_request.seeds[shown.sample]
    pen.text((EDGE, EDGE), f"{name}, seed {seed}", INK, _font(26, bold=True))
    pen.text((WIDTH - EDGE, EDGE + 26), drawn.titles[shown.scale], FAINT, _font(LINE), anchor="rs")
    for i, (pane, label) in enumerate(zip(_panes(drawn, shown.scale, shown, size), labels, strict=True)):
        left = EDGE + i * (size + EDGE)
        canvas.paste(pane, (left, top))
        pen.text((left, top + size + 8), label, INK, _font(LINE))
    y = top + size + 44
    if has_legend:
        _legend(canvas, y, model, shown, drawn)
        y += 40
    for line in lines:
        pen.text((EDGE, y), line, FAINT, _font(16))
        y += 24
    return canvas


def _legend(canvas: Image.Image, y: int, model: AnyModel, shown: Shown, drawn: GrownPair) -> None:
    what = {"var": "share of its attention", "dit": "share of what the class moves"}[model.kind]
    if shown.occlusion:
        what = "nats that the class loses when a position is blurred"
    tops = [float(m.max()) for m in drawn.maps[shown.scale]]
    words = f"{max(tops):.2g}" if shown.shared else f"{tops[0]:.2g} and {tops[1]:.2g}"
    pen, ramp = ImageDraw.Draw(canvas), Image.frombytes("RGB", (256, 1), figures.palette()).resize((256, 14))
    pen.text((EDGE, y), "0", INK, _font(16))
    canvas.paste(ramp, (EDGE + 18, y + 3))
    pen.text((EDGE + 284, y), f"{words} {what}", INK, _font(16))


def frames(model: AnyModel, view_request: ViewRequest, shown: Shown, drawn: GrownPair) -> Iterator[Image.Image]:
    """The pair growing step by step."""
    size = (WIDTH - 3 * EDGE) // 2
    name, seed = short_name(model.class_names[view_request.label]), view_request.seeds[shown.sample]
    bare = replace(shown, compare=False, finished=False)
    for scale, title in enumerate(drawn.titles):
        canvas = Image.new("RGB", (WIDTH, size + 2 * EDGE + 84), PAPER)
        pen = ImageDraw.Draw(canvas)
        pen.text((EDGE, EDGE), f"{name}, seed {seed}", INK, _font(26, bold=True))
        pen.text((WIDTH - EDGE, EDGE + 26), title, FAINT, _font(LINE), anchor="rs")
        for i, pane in enumerate(_panes(drawn, scale, bare, size)):
            left = EDGE + i * (size + EDGE)
            canvas.paste(pane, (left, EDGE + 44))
            pen.text((left, EDGE + 52 + size), SIDES[i], INK, _font(LINE))
        yield canvas.quantize(256, Image.Quantize.MEDIANCUT)


def growth(model: AnyModel, view_request: ViewRequest, shown: Shown, pictures: Sequence[Image.Image]) -> bytes:
    """The frames as a GIF without end; its comment is what it is drawn by, as JSON."""
    buffer = io.BytesIO()
    times = [FRAME_MS] * (len(pictures) - 1) + [LAST_MS]
    comment = json.dumps({figures.SETTINGS_KEY: described(model, one_sample(view_request, shown))}).encode()
    how: dict[str, Any] = {"save_all": True, "append_images": pictures[1:], "duration": times, "loop": 0}
    pictures[0].save(buffer, "GIF", comment=comment, **how)
    return buffer.getvalue()


def one_sample(view_request: ViewRequest, shown: Shown) -> ViewRequest:
    """The request of the sample that is looked at alone."""
    return ViewRequest(view_request.label, (view_request.seeds[shown.sample],), view_request.settings)


def figure_png(model: AnyModel, view_request: ViewRequest, shown: Shown, drawn: GrownPair) -> bytes:
    """The figure as a PNG that brings its settings back."""
    settings = described(model, one_sample(view_request, shown))
    return figures.png_bytes(figure(model, view_request, shown, drawn), settings)


# The maps


ABOUT = {
    "axes": "the first axis is baseline, amplified; then rows and columns from the upper left; the number at the end "
    "of a name is the scale (the step that is shown, of a diffusion transformer)",
    "chosen": "the positions that are amplified in the amplified picture; absent where none are",
    "occlusion": "nats that the class asked for loses, to the classifier, when a position is blurred",
}

ABOUT_KIND = {
    "var": {
        "saliency": "what the class token of the scale attends to, mean over heads of the amplified block; sums to 1",
        "block_saliency": "the same of every block and head: (2, blocks, heads, n, n)",
        "tokens": "the codes drawn",
    },
    "dit": {"saliency": "the map M: share of what the class moves, mean of the steps so far; sums to 1"},
}


def maps(model: AnyModel, view_request: ViewRequest, shown: Shown, drawn: GrownPair) -> bytes:
    """A zip of the maps as arrays (maps.npz), as images of the map chosen in the viewer, and about.json."""
    buffer, arrays = io.BytesIO(), io.BytesIO()
    given: dict[str, Any] = dict(drawn.arrays)
    np.savez_compressed(arrays, **given)
    words = ABOUT | ABOUT_KIND[model.kind]
    about = {"settings": described(model, one_sample(view_request, shown)), "about": words, "images": _which(shown)}
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("about.json", json.dumps(about, indent=1))
        archive.writestr("maps.npz", arrays.getvalue())
        for scale, pair in enumerate(drawn.maps):
            tops, n = [float(m.max()) for m in pair], pair.shape[-1]
            for i, side in enumerate(SIDES):
                size = max(1, MAP_SIZE // n) * n
                blank = Image.new("RGB", (size, size))
                heat = figures.overlay(blank, pair[i], 1.0, max(tops) if shown.shared else tops[i])
                archive.writestr(f"images/{scale}-{n}x{n}-{side}.png", figures.png_bytes(heat))
    return buffer.getvalue()


def _which(shown: Shown) -> str:
    if shown.occlusion:
        return "occlusion"
    if shown.block is None:
        return "saliency"
    return f"block_saliency of block {shown.block}, " + (
        f"head {shown.head - 1}" if shown.head else "mean of the heads"
    )
