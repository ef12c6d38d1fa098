"""Pictures of what the model does: sheets, strips and saliency overlays. Pure functions from tensors to PIL images."""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from hieramp.errors import UserError
from hieramp.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS_KEY = "hieramp"
STUDY = "study"  # beside the settings inside a plot or table: what was done with the pictures
TILE = 128  # small pictures are enlarged to about this many pixels
GAP, INK, PAPER = 6, "#1c1b22", "#ffffff"
LABEL_WIDTH = 320  # pixels, of the labels of a sheet at most
COLORS = "inferno"
Kind = Literal["png", "svg"]  # of the file of a plot


def to_picture(image_CHW: Tensor) -> Image.Image:
    """A (3, H, W) image in [0, 1] as 8-bit RGB, pixel for pixel."""
    bytes_CHW = image_CHW.detach().float().clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(rearrange(bytes_CHW, "c h w -> h w c").cpu().numpy())


def enlarged(picture: Image.Image, size: int = TILE) -> Image.Image:
    """Whole-number magnification, smoothed: the edges of blown-up pixels mask what a small picture shows.

    Harmon and Julesz, "Masking in visual recognition", Science 180, 1973.
    """
    factor = max(1, size // picture.width)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def overlay(picture: Image.Image, map_HW: Tensor, opacity: float = 0.55, top: float | None = None) -> Image.Image:
    """A saliency map over a picture; colours run from 0 to `top` (the map's own maximum when left out)."""
    highest = float(map_HW.max()) if top is None else top
    level = (map_HW.detach().float().cpu().numpy() / max(highest, 1e-12)).clip(0, 1)
    heat = Image.fromarray((matplotlib.colormaps[COLORS](level)[..., :3] * 255).astype(np.uint8))
    heat = heat.resize(picture.size, Image.Resampling.NEAREST)
    return Image.blend(picture.convert("RGB"), heat, opacity)


def palette() -> bytes:
    """The colours of saliency from 0 to the top, 256 times red, green and blue."""
    return (matplotlib.colormaps[COLORS](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes()


# DejaVu Sans, which matplotlib brings along: Pillow's own has no × and no Greek.
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
BOXES = "Last Resort High-Efficiency"  # a font of Matplotlib's that has a box for every character


def _font(size: int, path: Path = FONT) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=256)
def _characters(path: Path) -> frozenset[int]:
    """What a font can write, as code points; nothing where it is no font that can be opened."""
    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


@lru_cache(maxsize=256)
def _font_for(wanted: frozenset[int], size: int) -> ImageFont.FreeTypeFont | None:
    """Of DejaVu Sans and the fonts of this machine the first that can write all of that."""
    if wanted <= _characters(FONT):
        return _font(size)
    from matplotlib import font_manager  # looks for all fonts of this machine

    for path in sorted({Path(entry.fname) for entry in font_manager.fontManager.ttflist if entry.name != BOXES}):
        if wanted <= _characters(path):
            with suppress(OSError):  # a font of bitmaps has not every size
                return _font(size, path)
    return None


def spelled_out(text: str) -> str:
    """A text that DejaVu Sans can write: "猫" becomes "U+732B" rather than an empty box."""
    known = _characters(FONT)
    parts = [character if ord(character) in known else f" U+{ord(character):04X} " for character in text]
    return " ".join("".join(parts).split())


def writing(text: str, size: int, room: float = math.inf, portable: bool = False) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text as it is written in so many pixels, and its font; what is too long ends in "…"."""
    font = None if portable else _font_for(frozenset(map(ord, text)), size)
    if font is None:
        text, font = spelled_out(text), _font(size)
    if font.getlength(text) <= room:
        return text, font
    return next(cut for n in range(len(text), -1, -1) if font.getlength(cut := f"{text[:n].rstrip()}…") <= room), font


def sheet(
    rows: Sequence[tuple[str, Sequence[Image.Image]]], captions: Sequence[str] = (), portable: bool = False
) -> Image.Image:
    """Labelled rows of pictures, with a caption under each column where given.

    Characters that DejaVu Sans lacks are written with a font of this machine that has them, or by their numbers where
    none has, and always where the sheet is to be `portable`: the same on every machine.
    """
    pictures = [picture for _, row in rows for picture in row]
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    labels = [writing(label, 15, LABEL_WIDTH, portable) for label, _ in rows]
    margin = GAP + max([int(font.getlength(label)) for label, font in labels]) + GAP
    columns = max(len(row) for _, row in rows)
    below = 24 if captions else 0
    size = (margin + columns * (width + GAP), GAP + len(rows) * (height + GAP) + below)
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for i, ((label, font), (_, row)) in enumerate(zip(labels, rows, strict=True)):
        y = GAP + i * (height + GAP)
        pen.text((margin - GAP, y + height // 2), label, INK, font, anchor="rm")
        for j, picture in enumerate(row):
            canvas.paste(picture, (margin + j * (width + GAP), y))
    for j, caption in enumerate(captions):
        text, font = writing(caption, 15, width + GAP, portable)
        pen.text((margin + j * (width + GAP) + width // 2, size[1] - below // 2 - 2), text, INK, font, anchor="mm")
    return canvas


def png_bytes(picture: Image.Image, settings: dict[str, Any] | None = None) -> bytes:
    """A PNG, with settings in a text chunk where given; `read_settings` finds them."""
    info = PngImagePlugin.PngInfo()
    if settings:
        info.add_text(SETTINGS_KEY, json.dumps(settings))
    buffer = BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def save_png(picture: Image.Image, path: Path, settings: dict[str, Any]) -> None:
    """Write a PNG that carries its settings in a text chunk; whole or not at all.

    Raises:
        UserError: the name does not end in .png.
        OSError: the folder is missing, not writable, or the disk is full.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path} must end in .png: the settings are stored inside the PNG")
    with atomic(path) as part:
        part.write_bytes(png_bytes(picture, settings))


def figure_bytes(figure: "Figure", kind: Kind, settings: dict[str, Any] | None = None, dpi: int = 150) -> bytes:
    """A plot as PNG or SVG, its text as text, with settings inside: in a PNG's chunk, in an SVG's description."""
    buffer, text = BytesIO(), json.dumps(settings) if settings else None
    metadata: dict[str, Any] = {SETTINGS_KEY: text} if text else {}
    if kind == "svg":
        metadata = {"Creator": "hieramp", "Date": None} | ({"Description": text} if text else {})
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hieramp"}):
        figure.savefig(buffer, format=kind, dpi=dpi, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def save_figure(figure: "Figure", path: Path, settings: dict[str, Any] | None = None) -> None:
    """Write a plot as PNG, or as SVG where the name ends so; whole or not at all."""
    with atomic(path) as part:
        part.write_bytes(figure_bytes(figure, "svg" if path.suffix == ".svg" else "png", settings))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings inside a PNG of ours.

    Raises:
        UserError: it is no PNG, or carries none.
    """
    try:
        with Image.open(path) as picture:
            text = picture.info.get(SETTINGS_KEY)
    except OSError as error:
        raise UserError(f"{path} is not an image: {error}") from error
    if text is None:
        raise UserError(f"{path} carries no settings: it was not made by hieramp, or was saved again since")
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the settings inside {path} are damaged: draw the picture again ({error})") from error
    if not isinstance(settings, dict):
        raise UserError(f"the settings inside {path} are damaged: they are no list of names and values")
    return settings
