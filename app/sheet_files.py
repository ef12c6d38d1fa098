"""A finished sheet as files: a labelled figure (PNG, SVG), a table (CSV) and all of its settings (JSON). Pure."""

import json
import textwrap
from typing import Any

from matplotlib.figure import Figure

import hieramp
from app import view_models, view_requests
from app.kinds import AnyModel
from app.names import name_of
from app.sheets import Sheet
from hieramp import figures
from hieramp.files import csv_text

TILE = 1.05  # inches a side
MEASURES = {
    "probability": "classifier’s probability of the class",
    "distance": "difference from the baseline (RMS of the pixels, 0 to 1)",
    "changed": "share of the tokens that differ from the baseline’s",
}


def number(sheet: Sheet, i: int, measure: str) -> str:
    """A figure of a tile in short: "93 %"."""
    tile = sheet.tiles[i]
    value = None if tile is None else getattr(tile, measure)
    if value is None:
        return "–"
    return f"{value:.3f}" if measure == "distance" else f"{value:.0%}"


def first_measure(sheet: Sheet) -> str:
    """What stands under the tiles at first."""
    return "probability" if sheet.has("probability") else "distance"


def title(model: AnyModel, sheet: Sheet) -> str:
    view_request = sheet.view_request
    name, seed = name_of(model, view_request.label), view_request.seeds[0]
    return f"{sheet.about or 'Sheet'}: {name}, seed {seed}, {model.name}"


def file_name(model: AnyModel, sheet: Sheet, ending: str) -> str:
    view_request = sheet.view_request
    about = sheet.about.lower()
    for letter, word in {"ρ": "rho", "α": "alpha", "β": "beta"}.items():
        about = about.replace(letter, word)
    axes = "-".join(filter(str.isalnum, about.split()))
    return view_models.file_name(
        model.class_names[view_request.label], f"seed{view_request.seeds[0]}-{axes or 'sheet'}-sheet.{ending}"
    )


def described(model: AnyModel, sheet: Sheet) -> dict[str, Any]:
    """The settings of the first picture, and the labels of all: what a saved PNG carries, and what opens it again."""
    return view_requests.described(model, sheet.view_requests[0]) | {view_requests.SHEET: list(sheet.labels)}


def figure(model: AnyModel, sheet: Sheet, measure: str) -> Figure:
    """A finished sheet with its labels, a figure under each picture, and its settings in words."""
    height, width, step, across = len(sheet.rows), len(sheet.columns), 1.28, 1.06  # in tiles, with their gaps
    margin = 0.25 + max(min(len(row), 26) for row in sheet.rows) * 0.075
    wide = max(margin + width * across, 4.5)
    caption = view_requests.caption(sheet.view_request, model.kind)
    words = f"As the controls say, where it is not on an axis: {caption} Under each picture: {MEASURES[measure]}."
    lines = textwrap.wrap(words, int(wide * TILE * 16))
    limits = {"xlim": (-margin, wide - margin), "ylim": (height * step + 0.16 + 0.13 * len(lines), -0.62)}
    made = Figure(figsize=(wide * TILE, (limits["ylim"][0] + 0.62) * TILE))
    axes = made.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    about = textwrap.shorten(title(model, sheet), int(wide * TILE * 11), placeholder=" …")
    axes.text(0.05 - margin, -0.56, about, fontsize=10, va="top", fontweight="bold")
    axes.text(0.05 - margin, height * step + 0.04, "\n".join(lines), fontsize=7, va="top", color="#55504b")
    for j, column in enumerate(sheet.columns):
        axes.text(j * across + 0.5, -0.05, textwrap.fill(column, 15), fontsize=8, ha="center", va="bottom")
    for k, row in enumerate(sheet.rows):
        axes.text(-0.08, k * step + 0.5, textwrap.fill(row, 26), fontsize=8, ha="right", va="center")
    for i, tile in enumerate(sheet.tiles):
        if tile is None:
            continue
        x, y = i % width * across, i // width * step
        picture = figures.enlarged(view_models.thumb(tile.picture))
        axes.imshow(picture, extent=(x, x + 1, y + 1, y), interpolation="none", aspect="auto")
        axes.text(x + 0.5, y + 1.03, number(sheet, i, measure), fontsize=7.5, ha="center", va="top")
    axes.set(**limits)
    return made


def as_figure(model: AnyModel, sheet: Sheet, measure: str, kind: figures.Kind) -> bytes:
    """The figure as a file, with the settings where the page finds them."""
    return figures.figure_bytes(figure(model, sheet, measure), kind, described(model, sheet), dpi=128)


def as_json(model: AnyModel, sheet: Sheet) -> str:
    """Every tile with all of its settings and figures."""
    tiles = [
        {
            "row": sheet.rows[i // len(sheet.columns)],
            "column": sheet.columns[i % len(sheet.columns)],
            "is_baseline": sheet.is_baseline(i),
            "baseline": sheet.baselines[i],
            "address": "?" + "&".join(f"{k}={v}" for k, v in view_requests.to_query(model, view_request).items()),
            **{m: getattr(tile, m) for m in (*MEASURES, "named")},
            "settings": view_requests.described(model, view_request),
        }
        for i, (view_request, tile) in enumerate(zip(sheet.view_requests, sheet.tiles, strict=True))
    ]
    about = {"hieramp": hieramp.__version__, "model": model.name, "axes": sheet.about, "measures": MEASURES}
    return json.dumps({**about, "tiles": tiles}, ensure_ascii=False, indent=1) + "\n"


def as_csv(model: AnyModel, sheet: Sheet) -> str:
    """A line for each tile: its place, its figures, and every field of its request."""
    fields = list(view_requests.defaults(model))
    rows: list[list[Any]] = [["row", "column", "is_baseline", *MEASURES, "named", *fields]]
    for i, (view_request, tile) in enumerate(zip(sheet.view_requests, sheet.tiles, strict=True)):
        values = view_requests.values_of(model, view_request)
        values["class_name"] = name_of(model, view_request.label)
        place = [sheet.rows[i // len(sheet.columns)], sheet.columns[i % len(sheet.columns)], sheet.is_baseline(i)]
        found = [getattr(tile, measure) for measure in (*MEASURES, "named")]
        rows.append([*place, *found, *(values[name] for name in fields)])
    return csv_text(rows)
