"""Sheets of one class and seed under many settings. Plain functions and generators, without Gradio."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageDraw

from app.kinds import with_schedule
from app.view_requests import GREEK, ViewRequest
from hieramp import SCHEDULES as PAPERS
from hieramp import Model, Settings, figures
from hieramp.errors import UserError
from hieramp.scales import STAGES

SCHEDULES = "schedules"  # the kind of sheet that is no stage's grid
BATCH = 16  # pictures drawn together
GRID_RHOS = (0.1, 0.25, 0.5, 0.75)
GRID_STRENGTHS = {"logit": (1.0, 2.5, 5.0, 10.0), "attention": (0.2, 0.5, 2.0, 5.0)}


@dataclass(frozen=True)
class Sheet:
    """Labelled rows of pictures of one class and seed under different settings, as far as they have come."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    view_requests: tuple[ViewRequest, ...]  # row by row
    pictures: tuple[Image.Image, ...] = ()

    @property
    def is_finished(self) -> bool:
        return len(self.pictures) == len(self.view_requests)

    def label(self, i: int) -> str:
        return ", ".join(filter(None, (self.rows[i // len(self.columns)], self.columns[i % len(self.columns)])))

    @property
    def labels(self) -> list[str]:
        return [self.label(i) for i in range(len(self.view_requests))]

    def as_picture(self, title: str = "") -> Image.Image:
        """The finished sheet in one, with a line of text above."""
        tiles, width = [figures.enlarged(picture) for picture in self.pictures], len(self.columns)
        rows = [(name, tiles[i * width : (i + 1) * width]) for i, name in enumerate(self.rows)]
        return titled(figures.sheet(rows, self.columns), title)


def titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture below a line of text, as wide as both need; as it is where there is no text."""
    if not title:
        return picture
    title, font = figures.writing(title, 13)
    width = max(picture.width, math.ceil(font.getlength(title)) + 2 * figures.GAP)
    canvas = Image.new("RGB", (width, picture.height + 28), figures.PAPER)
    ImageDraw.Draw(canvas).text((figures.GAP, 14), title, figures.INK, font, anchor="lm")
    canvas.paste(picture, (0, 28))
    return canvas


def schedule_sheet(view_request: ViewRequest) -> Sheet:
    """The eight schedules on the first seed of a request, in its blocks and by its sampling."""
    view_requests = [_first_seed(view_request, with_schedule(view_request.settings, name, "var")) for name in PAPERS]
    return Sheet(("",), tuple(PAPERS), tuple(view_requests))


def grid_sheet(view_request: ViewRequest, stage: str) -> Sheet:
    """ρ by strength of one stage; the other stages stay as they are.

    Raises:
        UserError: there is no such stage.
    """
    if stage not in STAGES:
        raise UserError(f"stage is {stage!r}; it must be one of {', '.join(STAGES)}")
    mode, view_requests = view_request.settings.mode, []
    strengths = GRID_STRENGTHS[mode]
    for rho in GRID_RHOS:
        for strength in strengths:
            changed: dict[str, Any] = {stage: (rho, strength), "positions": None}
            view_requests.append(_first_seed(view_request, replace(view_request.settings, **changed)))
    rows = [f"{stage} ρ {rho:.0%}" for rho in GRID_RHOS]
    return Sheet(tuple(rows), tuple(f"{GREEK[mode]} {strength:g}" for strength in strengths), tuple(view_requests))


def plan(view_request: ViewRequest, kind: str) -> Sheet:
    """An empty sheet.

    Raises:
        UserError: it is neither "schedules" nor a stage.
    """
    return schedule_sheet(view_request) if kind == SCHEDULES else grid_sheet(view_request, kind)


def _first_seed(view_request: ViewRequest, settings: Settings) -> ViewRequest:
    return replace(view_request, seeds=view_request.seeds[:1], settings=settings)


def draw_sheet(model: Model, sheet: Sheet) -> Iterator[Sheet]:
    """The sheet after every batch; a batch holds as many pictures as fit."""
    for start in range(0, len(sheet.view_requests), BATCH):
        view_requests = sheet.view_requests[start : start + BATCH]
        labels, seeds = (
            [view_request.label for view_request in view_requests],
            [view_request.seeds[0] for view_request in view_requests],
        )
        drawn = model.generate(labels, seeds, [view_request.settings for view_request in view_requests])
        sheet = replace(sheet, pictures=(*sheet.pictures, *map(figures.to_picture, drawn.images)))
        yield sheet
