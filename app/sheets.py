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
from app.orders import MAX_SEED, Order, short_name
from hieramp import Model, figures
from hieramp.analysis.faithfulness import Judge
from hieramp.analysis.opinion import verdicts
from hieramp.errors import UserError

BATCH = 16  # pictures drawn together
MOST_TILES = 160
BASELINE = "baseline"


@dataclass(frozen=True)
class Tile:
    """A picture of the sheet with the figures beneath it."""

    picture: Image.Image
    tokens: np.ndarray = field(repr=False)  # of all scales, one after another
    probability: float | None  # of the class asked for, by the classifier; None without one
    named: str | None  # the class that the classifier thinks likeliest
    distance: float = 0.0  # root mean square difference of the pixels from the baseline, in [0, 1]
    changed: float = 0.0  # share of the tokens that differ from the baseline's


@dataclass(frozen=True)
class Sheet:
    """Labelled rows of tiles, as far as they have come."""

    order: Order  # what the controls say
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    orders: tuple[Order, ...]  # row by row, one seed each
    labels: tuple[str, ...]  # of each tile, whole
    baselines: tuple[int, ...]  # of each tile: which one is its baseline
    about: str = ""  # what the axes are, in a line
    tiles: tuple[Tile | None, ...] = ()

    @property
    def is_finished(self) -> bool:
        return self.num_done == len(self.orders)

    @property
    def num_done(self) -> int:
        return sum(tile is not None for tile in self.tiles)

    def is_baseline(self, i: int) -> bool:
        return self.baselines[i] == i

    @property
    def is_judged(self) -> bool:
        return any(tile is not None and tile.probability is not None for tile in self.tiles)


def plan(model: Model, order: Order, columns: Axis, rows: Axis | None = None, seeds: int = 1) -> Sheet:
    """An empty sheet: one axis across, one down, and each row once for each of so many seeds.

    Raises:
        UserError: both axes are the same field, seeds twice over, too many pictures, or what cannot be drawn.
    """
    if rows and rows.name == columns.name:
        raise UserError("rows and columns are the same field: choose another for one of them")
    fields = [axis.name for axis in (columns, rows) if axis]
    if axes.SEED in fields and seeds > 1:
        raise UserError("the seeds are on an axis already: set the number of seeds to 1")
    if order.seeds[0] + seeds - 1 > MAX_SEED:
        raise UserError(f"seeds after {MAX_SEED} do not exist: begin with a smaller one")
    count = len(columns.values) * (len(rows.values) if rows else 1) * seeds
    if count > MOST_TILES:
        raise UserError(f"a sheet of {count} pictures is more than {MOST_TILES}: name fewer values or seeds")
    found: list[tuple[str, list[Order]]] = []
    for j in range(len(rows.values) if rows else 1):
        for k in range(seeds):
            start = replace(order, seeds=(order.seeds[0] + k,))
            label = ", ".join(filter(None, (rows.labels[j] if rows else "", f"seed {start.seeds[0]}" * (seeds > 1))))
            line = [_apply(model, start, [(columns, i), (rows, j)]) for i in range(len(columns.values))]
            found.append((label, line))
    called = {name: label for label, name in axes.choices(model)}
    about = " × ".join(called[name] for name in fields)
    shared = all(len({_plain(tile) for tile in line}) == 1 for _, line in found)
    return _with_column(order, found, columns, about) if shared else _with_rows(order, found, columns, about)


def _apply(model: Model, order: Order, places: Sequence[tuple[Axis | None, int]]) -> Order:
    first = {axes.SCHEDULE: 0, "mode": 1}
    for axis, i in sorted(places, key=lambda place: first.get(place[0].name, 2) if place[0] else 3):
        order = axis.apply(model, order, i) if axis else order
    return order


def _plain(order: Order) -> Order:
    return replace(order, settings=order.settings.plain)


def _with_column(order: Order, lines: list[tuple[str, list[Order]]], columns: Axis, about: str) -> Sheet:
    """Baselines as the first column."""
    orders, labels, baselines = list[Order](), list[str](), list[int]()
    for row, line in lines:
        start = len(orders)
        for label, tile in zip((BASELINE, *columns.labels), (_plain(line[0]), *line), strict=True):
            orders.append(tile)
            labels.append(", ".join(filter(None, (row, label))))
            baselines.append(start)
    names = tuple(row for row, _ in lines)
    return Sheet(order, names, (BASELINE, *columns.labels), tuple(orders), tuple(labels), tuple(baselines), about)


def _with_rows(order: Order, lines: list[tuple[str, list[Order]]], columns: Axis, about: str) -> Sheet:
    """Baselines as a row above each row that has others than the row before."""
    orders, labels, baselines, names = list[Order](), list[str](), list[int](), list[str]()
    width, above, start = len(columns.values), list[Order](), 0
    for row, line in lines:
        plain = [_plain(tile) for tile in line]
        if plain != above:
            above, start = plain, len(orders)
            names.append(", ".join(filter(None, (row, BASELINE))) if len(lines) > 1 else BASELINE)
            orders += plain
            labels += [", ".join(filter(None, (row, label, BASELINE))) for label in columns.labels]
            baselines += range(start, start + width)
        names.append(row or "amplified")
        orders += line
        labels += [", ".join(filter(None, (row, label))) for label in columns.labels]
        baselines += range(start, start + width)
    return Sheet(order, tuple(names), columns.labels, tuple(orders), tuple(labels), tuple(baselines), about)


def draw_sheet(model: Model, sheet: Sheet, judge: Judge | None = None) -> Iterator[Sheet]:
    """The sheet after every batch; a batch holds pictures that differ in their amplification alone."""
    tiles: list[Tile | None] = [None] * len(sheet.orders)
    wanted: dict[Order, list[int]] = {}
    for i, order in enumerate(sheet.orders):
        wanted.setdefault(order, []).append(i)
    for orders in _batches(list(wanted)):
        labels, seeds = [order.label for order in orders], [order.seeds[0] for order in orders]
        drawn = model.generate(labels, seeds, [order.settings for order in orders])
        tokens = np.concatenate([scale.cpu().numpy().reshape(len(orders), -1) for scale in drawn.tokens], axis=1)
        p_BK = verdicts(judge, drawn.images) if judge else None
        for k, order in enumerate(orders):
            picture = figures.to_picture(drawn.images[k])
            probability = named = None
            if p_BK is not None:
                probability = float(p_BK[k, order.label])
                named = short_name(model.class_names[int(p_BK[k].argmax())])
            for i in wanted[order]:
                tiles[i] = Tile(picture, tokens[k], probability, named)
        for i, tile in enumerate(tiles):
            base = tiles[sheet.baselines[i]]
            if tile is not None and base is not None:
                tiles[i] = replace(tile, distance=_distance(tile, base), changed=_changed(tile, base))
        yield replace(sheet, tiles=tuple(tiles))


def _batches(orders: list[Order]) -> Iterator[list[Order]]:
    """Those with the same sampling together, in the order of the sheet."""
    groups: dict[Any, list[Order]] = {}
    for order in orders:
        groups.setdefault(order.settings.plain, []).append(order)
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            yield group[start : start + BATCH]


def _distance(tile: Tile, base: Tile) -> float:
    ours, theirs = (np.asarray(t.picture, dtype=np.float64) / 255 for t in (tile, base))
    return float(np.sqrt(np.square(ours - theirs).mean()))


def _changed(tile: Tile, base: Tile) -> float:
    return float((tile.tokens != base.tokens).mean())
