"""Pictures of what the model does: sheets, strips and saliency overlays. Pure functions from tensors to PIL images."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from hieramp.errors import UserError
from hieramp.files import atomic

SETTINGS_KEY = "hieramp"
TILE = 128  # small pictures are enlarged to about this many pixels
GAP, INK, PAPER = 6, "#1c1b22", "#ffffff"
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


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: Pillow's own has no × and no Greek."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], captions: Sequence[str] = ()) -> Image.Image:
    """Labelled rows of pictures, with a caption under each column where given."""
    font = _font(15)
    pictures = [picture for _, row in rows for picture in row]
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    margin = GAP + max([int(font.getlength(label)) for label, _ in rows]) + GAP
    columns = max(len(row) for _, row in rows)
    below = 24 if captions else 0
    size = (margin + columns * (width + GAP), GAP + len(rows) * (height + GAP) + below)
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for i, (label, row) in enumerate(rows):
        y = GAP + i * (height + GAP)
        pen.text((margin - GAP, y + height // 2), label, INK, font, anchor="rm")
        for j, picture in enumerate(row):
            canvas.paste(picture, (margin + j * (width + GAP), y))
    for j, caption in enumerate(captions):
        pen.text((margin + j * (width + GAP) + width // 2, size[1] - below // 2 - 2), caption, INK, font, anchor="mm")
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


def figure_bytes(figure: Figure, kind: Kind, settings: dict[str, Any] | None = None, dpi: int = 150) -> bytes:
    """A plot as PNG or SVG, its text as text, with settings inside: in a PNG's chunk, in an SVG's description."""
    buffer, text = BytesIO(), json.dumps(settings) if settings else None
    metadata: dict[str, Any] = {SETTINGS_KEY: text} if text else {}
    if kind == "svg":
        metadata = {"Creator": "hieramp", "Date": None} | ({"Description": text} if text else {})
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hieramp"}):
        figure.savefig(buffer, format=kind, dpi=dpi, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path, settings: dict[str, Any] | None = None) -> None:
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
