"""Sheets: pictures along two axes, each with its baseline and what a classifier says. Without Gradio.

A tile's baseline is the picture of the same class, seed and sampling without amplification. Baselines come first: as a
column where all tiles of a row share one, else as a row above the tiles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from app import axes
from app.axes import Axis
from app.kinds import AnyModel
from app.names import name_of
from app.view_requests import MAX_SEED, ViewRequest
from hieramp import figures
from hieramp.analysis.faithfulness import Judge
from hieramp.analysis.opinion import verdicts
from hieramp.diffusion.model import DiffusionDrawing
from hieramp.errors import UserError

BATCH = {"cpu": 4, "cuda": 16}  # pictures drawn together: few on a CPU, where more at once are no faster
MOST_TILES = 160
BASELINE = "baseline"


@dataclass(frozen=True)
class Tile:
    """A picture of the sheet with the figures beneath it."""

    picture: Image.Image
    tokens: np.ndarray | None = field(repr=False)  # of all scales, one after another; a DiT has none
    probability: float | None  # of the class asked for, by the classifier; None without one
    named: str | None  # the class that the classifier thinks likeliest
    distance: float = 0.0  # root mean square difference of the pixels from the baseline, in [0, 1]
    changed: float | None = None  # share of the tokens that differ from the baseline's; None without tokens


@dataclass(frozen=True)
class Sheet:
    """Labelled rows of tiles, as far as they have come."""

    view_request: ViewRequest  # what the controls say
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    view_requests: tuple[ViewRequest, ...]  # row by row, one seed each
    labels: tuple[str, ...]  # of each tile, whole
    baselines: tuple[int, ...]  # of each tile: which one is its baseline
    about: str = ""  # what the axes are, in a line
    tiles: tuple[Tile | None, ...] = ()

    @property
    def is_finished(self) -> bool:
        return self.num_done == len(self.view_requests)

    @property
    def num_done(self) -> int:
        return sum(tile is not None for tile in self.tiles)

    def is_baseline(self, i: int) -> bool:
        return self.baselines[i] == i

    def has(self, measure: str) -> bool:
        """Whether its tiles have a figure of this kind."""
        return any(tile is not None and getattr(tile, measure) is not None for tile in self.tiles)


def plan(model: AnyModel, view_request: ViewRequest, columns: Axis, rows: Axis | None = None, seeds: int = 1) -> Sheet:
    """An empty sheet: one axis across, one down, and each row once for each of so many seeds.

    Raises:
        UserError: both axes are the same field, seeds twice over, too many pictures, or what cannot be drawn.
    """
    if rows and rows.name == columns.name:
        raise UserError("rows and columns are the same field: choose another for one of them")
    fields = [axis.name for axis in (columns, rows) if axis]
    if axes.SEED in fields and seeds > 1:
        raise UserError("the seeds are on an axis already: set the number of seeds to 1")
    if view_request.seeds[0] + seeds - 1 > MAX_SEED:
        raise UserError(f"seeds after {MAX_SEED} do not exist: begin with a smaller one")
    count = len(columns.values) * (len(rows.values) if rows else 1) * seeds
    if count > MOST_TILES:
        raise UserError(f"a sheet of {count} pictures is more than {MOST_TILES}: name fewer values or seeds")
    found: list[tuple[str, list[ViewRequest]]] = []
    for j in range(len(rows.values) if rows else 1):
        for k in range(seeds):
            start = replace(view_request, seeds=(view_request.seeds[0] + k,))
            label = ", ".join(filter(None, (rows.labels[j] if rows else "", f"seed {start.seeds[0]}" * (seeds > 1))))
            line = [_apply(model, start, [(columns, i), (rows, j)]) for i in range(len(columns.values))]
            found.append((label, line))
    called = {name: label for label, name in axes.choices(model)}
    about = " × ".join(called[name] for name in fields)
    shared = all(len({_plain(tile) for tile in line}) == 1 for _, line in found)
    return (
        _with_column(view_request, found, columns, about) if shared else _with_rows(view_request, found, columns, about)
    )


def _apply(model: AnyModel, view_request: ViewRequest, places: Sequence[tuple[Axis | None, int]]) -> ViewRequest:
    first = {axes.SCHEDULE: 0, "mode": 1}
    for axis, i in sorted(places, key=lambda place: first.get(place[0].name, 2) if place[0] else 3):
        view_request = axis.apply(model, view_request, i) if axis else view_request
    return view_request


def _plain(view_request: ViewRequest) -> ViewRequest:
    return replace(view_request, settings=view_request.settings.plain)


def _with_column(
    view_request: ViewRequest, lines: list[tuple[str, list[ViewRequest]]], columns: Axis, about: str
) -> Sheet:
    """Baselines as the first column."""
    view_requests, labels, baselines = list[ViewRequest](), list[str](), list[int]()
    for row, line in lines:
        start = len(view_requests)
        for label, tile in zip((BASELINE, *columns.labels), (_plain(line[0]), *line), strict=True):
            view_requests.append(tile)
            labels.append(", ".join(filter(None, (row, label))))
            baselines.append(start)
    names = tuple(row for row, _ in lines)
    return Sheet(
        view_request, names, (BASELINE, *columns.labels), tuple(view_requests), tuple(labels), tuple(baselines), about
    )


def _with_rows(
    view_request: ViewRequest, lines: list[tuple[str, list[ViewRequest]]], columns: Axis, about: str
) -> Sheet:
    """Baselines as a row above each row that has others than the row before."""
    view_requests, labels, baselines, names = list[ViewRequest](), list[str](), list[int](), list[str]()
    width, above, start = len(columns.values), list[ViewRequest](), 0
    for row, line in lines:
        plain = [_plain(tile) for tile in line]
        if plain != above:
            above, start = plain, len(view_requests)
            names.append(", ".join(filter(None, (row, BASELINE))) if len(lines) > 1 else BASELINE)
            view_requests += plain
            labels += [", ".join(filter(None, (row, label, BASELINE))) for label in columns.labels]
            baselines += range(start, start + width)
        names.append(row or "amplified")
        view_requests += line
        labels += [", ".join(filter(None, (row, label))) for label in columns.labels]
        baselines += range(start, start + width)
    return Sheet(
        view_request, tuple(names), columns.labels, tuple(view_requests), tuple(labels), tuple(baselines), about
    )


def draw_sheet(model: AnyModel, sheet: Sheet, judge: Judge | None = None) -> Iterator[Sheet]:
    """The sheet after every batch; a batch holds pictures that differ in their amplification alone."""
    tiles: list[Tile | None] = [None] * len(sheet.view_requests)
    wanted: dict[ViewRequest, list[int]] = {}
    for i, view_request in enumerate(sheet.view_requests):
        wanted.setdefault(view_request, []).append(i)
    for view_requests in _batches(list(wanted), BATCH.get(model.device.type, 4)):
        labels, seeds = (
            [view_request.label for view_request in view_requests],
            [view_request.seeds[0] for view_request in view_requests],
        )
        drawn = model.generate(labels, seeds, [view_request.settings for view_request in view_requests])
        tokens = None
        if not isinstance(drawn, DiffusionDrawing):
            flat = [scale.cpu().numpy().reshape(len(view_requests), -1) for scale in drawn.tokens]
            tokens = np.concatenate(flat, axis=1)
        p_BK = verdicts(judge, drawn.images) if judge else None
        for k, view_request in enumerate(view_requests):
            picture = figures.to_picture(drawn.images[k])
            probability = named = None
            if p_BK is not None:
                probability = float(p_BK[k, view_request.label])
                named = name_of(model, int(p_BK[k].argmax()))
            for i in wanted[view_request]:
                tiles[i] = Tile(picture, None if tokens is None else tokens[k], probability, named)
        for i, tile in enumerate(tiles):
            base = tiles[sheet.baselines[i]]
            if tile is not None and base is not None:
                tiles[i] = replace(tile, distance=_distance(tile, base), changed=_changed(tile, base))
        yield replace(sheet, tiles=tuple(tiles))


def _batches(view_requests: list[ViewRequest], size: int) -> Iterator[list[ViewRequest]]:
    """Those with the same sampling together, in the order of the sheet."""
    groups: dict[Any, list[ViewRequest]] = {}
    for view_request in view_requests:
        groups.setdefault(view_request.settings.plain, []).append(view_request)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _distance(tile: Tile, base: Tile) -> float:
    ours, theirs = (np.asarray(t.picture, dtype=np.float64) / 255 for t in (tile, base))
    return float(np.sqrt(np.square(ours - theirs).mean()))


def _changed(tile: Tile, base: Tile) -> float | None:
    return None if tile.tokens is None else float((tile.tokens != base.tokens).mean())
