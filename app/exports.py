"""What is on screen as files: the view as a figure, the growth as an animation, the maps as arrays and images. Pure.

A pair of pictures is a sample's baseline and its amplified one. P stands for these two, n for positions a side.
"""

import io
import json
import textwrap
import zipfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont
from torch import Tensor

from app import denoising, handlers, kinds
from app.denoising import RecentGrowth
from app.distill_requests import has_classifier
from app.kinds import AnyModel
from app.pieces import Piece
from app.verdicts import occlusion_view
from app.view_requests import ViewRequest, caption, described, short_name, whole
from hieramp import Step, figures
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.fields import Number
from hieramp.generation.memory import RecentDrawings
from hieramp.version import __version__

WIDTH = 1024  # pixels of a figure and of an animation
EDGE, LINE = 24, 20  # a margin, and the size of the letters
INK, FAINT, PAPER, MARK = "#1c1b22", "#5c5a66", "#ffffff", "#ffb561"
FRAME_MS, LAST_MS = 700, 2500  # how long an animation shows a step, and the finished pictures
MAP_SIZE = 256  # pixels of a map's image, about
SIDES = ("baseline", "amplified")
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """What a visitor looks at, checked."""

    sample: int
    scale: int
    overlay: float  # of the map over the pictures, 0 to 1
    outline: bool
    shared: bool  # whether both maps have one colour scale
    finished: bool  # whether the finished pictures lie below, whatever the scale
    compare: bool
    block: int | None  # None: the one that is amplified
    head: int  # 0: the mean of all
    occlusion: bool  # whether the map is the classifier's


@dataclass(frozen=True)
class GrownPair:
    """A pair as it grew."""

    titles: tuple[str, ...]  # of the steps
    images: tuple[Tensor, ...]  # per step (P, 3, H, W) in [0, 1]
    maps: tuple[Tensor, ...]  # per step (P, n, n)
    chosen: tuple[Tensor | None, ...]  # per step (P, n, n) bool; None where nothing is amplified
    arrays: dict[str, NDArray[Any]]  # all there is to know of the maps, by name


def read_shown(model: AnyModel, view_request: ViewRequest, asked: Mapping[str, Any]) -> Shown:
    """What the viewer tells of itself.

    Raises:
        UserError: a sample, scale, block or head that is not there, or an overlay that is no share.
    """
    last = len(kinds.frame(model, view_request.settings)["sides"]) - 1
    overlay = Number().check("the overlay", asked.get("overlay", 0))
    if not 0 <= overlay <= 1:
        raise UserError(f"the overlay is {overlay:g}; give a share from 0 to 1")
    block, head = None, 0
    if not isinstance(model, DiffusionModel):
        config = model.var.config
        block = None if asked.get("block") is None else whole("the block", asked["block"], 0, config.depth - 1)
        head = whole("the head", asked.get("head", 0), 0, config.num_heads)
    return Shown(
        sample=whole("the sample", asked.get("sample", 0), 0, len(view_request.seeds) - 1),
        scale=whole("the scale", asked.get("scale", last), 0, last),
        overlay=float(overlay),
        outline=bool(asked.get("outline")),
        shared=bool(asked.get("shared", True)),
        finished=bool(asked.get("finished")),
        compare=bool(asked.get("compare")),
        block=block,
        head=head,
        occlusion=bool(asked.get("occlusion")) and has_classifier(model),
    )


def draw(
    model: AnyModel, view_request: ViewRequest, shown: Shown, memory: handlers.Memory | None = None
) -> Generator[Piece, None, GrownPair]:
    """The pair that is looked at, with the maps that lie over it; on the way what is done of it.

    Raises:
        UserError: a block is asked for, and the model has no class tokens.
    """
    drawn = yield from _bare(model, view_request, shown, memory)
    if not shown.occlusion:
        return drawn
    view: dict[str, Any] | None = None
    for piece in occlusion_view(model, view_request, {"sample": shown.sample}, memory):
        view = piece.answer
        yield replace(piece, answer=None)
    assert view is not None
    maps = tuple(torch.tensor(pair).view_as(m) for pair, m in zip(view["maps"], drawn.maps, strict=True))
    return replace(drawn, maps=maps, arrays=drawn.arrays | {f"occlusion_{i}": _array(m) for i, m in enumerate(maps)})


def _bare(
    model: AnyModel, view_request: ViewRequest, shown: Shown, memory: handlers.Memory | None
) -> Generator[Piece, None, GrownPair]:
    """The pair with the model's own maps."""
    rows = [shown.sample, len(view_request.seeds) + shown.sample]
    titles = tuple(_titles(model, view_request))
    if isinstance(model, DiffusionModel):
        growth = memory if isinstance(memory, RecentGrowth) else None
        steps = yield from _collected(denoising.shown(model, view_request, growth), len(titles))
        arrays = {f"saliency_{i}": _array(step.saliency[rows]) for i, step in enumerate(steps)}
        arrays |= {f"chosen_{i}": step.amplified[rows].cpu().numpy() for i, step in enumerate(steps)}
        return GrownPair(
            titles,
            tuple(step.image[rows].cpu() for step in steps),
            tuple(step.saliency[rows].cpu() for step in steps),
            tuple(step.amplified[rows].cpu().view_as(step.saliency[rows]) for step in steps),
            arrays,
        )
    recent = memory if isinstance(memory, RecentDrawings) else None
    grown = yield from _collected(handlers.steps_of(model, view_request, recent), len(titles))
    chosen = [step.chosen(view_request.settings) for step in grown]
    maps = [_map_of(model.name, step, rows, shown) for step in grown]
    arrays = _var_arrays(grown, rows, chosen)
    return GrownPair(
        titles,
        tuple(step.image[rows].cpu() for step in grown),
        tuple(maps),
        # nothing is amplified in a baseline, which is marked as the viewer marks it: where it would be
        tuple(None if mask is None else mask[rows].cpu() for mask in chosen),
        arrays,
    )


def _collected(steps: Iterable[T], count: int) -> Generator[Piece, None, list[T]]:
    collected = list[T]()
    for step in steps:
        collected.append(step)
        yield Piece("drawing", len(collected), count)
    return collected


def _titles(model: AnyModel, view_request: ViewRequest) -> list[str]:
    frame, unit = kinds.frame(model, view_request.settings), kinds.UNIT[model.kind]
    return [f"{unit} {number}, {title}" for number, title in zip(frame["numbers"], frame["titles"], strict=True)]


def _map_of(name: str, step: Step, rows: Sequence[int], shown: Shown) -> Tensor:
    if shown.block is None:
        return step.saliency[rows].cpu()
    if step.block_saliency is None:
        raise UserError(f"{name} has no class tokens, so no block has a saliency of its own: choose the amplified one")
    heads = step.block_saliency[rows, shown.block].cpu()
    return heads[:, shown.head - 1] if shown.head else heads.mean(1)


def _var_arrays(steps: Sequence[Step], rows: Sequence[int], chosen: Sequence[Tensor | None]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for i, (step, mask) in enumerate(zip(steps, chosen, strict=True)):
        arrays[f"saliency_{i}"] = _array(step.saliency[rows])
        arrays[f"tokens_{i}"] = step.tokens[rows].view(2, step.side, step.side).cpu().numpy()
        if mask is not None:
            arrays[f"chosen_{i}"] = mask[rows].cpu().numpy()
        if step.block_saliency is not None:
            arrays[f"block_saliency_{i}"] = _array(step.block_saliency[rows])
    return arrays


def _array(x: Tensor) -> NDArray[Any]:
    return x.detach().float().cpu().numpy()


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
    bare = Shown(**{**vars(shown), "compare": False, "finished": False})
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
