"""Sheets: their axes, baselines, figures and files."""

import csv
import io
import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import hieramp
from app import ablate, axes, sheet_files, sheets, view_requests
from hieramp import SCHEDULES
from hieramp.errors import UserError


def an_order(model: hieramp.Model, **changes: Any) -> view_requests.ViewRequest:
    return view_requests.read_request(model, view_requests.defaults(model) | {"class_name": 1, "seed": 7} | changes)


def a_plan(model: hieramp.Model, columns: str, column_values: str = "", rows: str = "", **more: Any) -> sheets.Sheet:
    view_request = an_order(model, **more.pop("changes", {}))
    return ablate.plan(
        model, view_request, columns, column_values, rows, more.pop("row_values", ""), more.pop("seeds", 1)
    )


def fake_judge(images: torch.Tensor) -> torch.Tensor:
    """Logits by which the probability of class 0 is the mean of the red channel."""
    red = images[:, 0].mean((1, 2))
    return torch.stack([red, 1 - red, 0 * red, 0 * red], dim=1).clamp(min=1e-9).log()


def test_any_field_can_be_an_axis_and_its_own_suggestion_is_read(model: hieramp.Model) -> None:
    view_request, names = an_order(model), [name for _, name in axes.choices(model)]
    assert set(names) == {"schedule", "class_name", "seed", *(part.name for part in hieramp.Settings.parts("var"))}
    for name in names:
        axis = axes.read_axis(model, name, "", view_request)
        assert len(axis.labels) == len(axis.values) >= 1, name


def test_own_values_are_read_as_their_field_has_them(model: hieramp.Model) -> None:
    view_request = an_order(model)
    assert axes.read_axis(model, "mid_strength", "0.5, 2,2,7", view_request).values == (0.5, 2.0, 7.0)
    assert axes.read_axis(model, "blocks", "default; 1; 0,3", view_request).values == ("", "1", "0,3")
    assert axes.read_axis(model, "class_name", "cat, 0", view_request).values == (1, 0)
    assert axes.read_axis(model, "schedule", "weak fine, off", view_request).values == ("weak-fine", "off")
    axis = axes.read_axis(model, "mid_rho", "0.25, 1", an_order(model, positions="3:1"))
    assert axis.apply(model, an_order(model, positions="3:1"), 0).settings.mid == (0.25, 5.0)
    assert axis.apply(model, an_order(model, positions="3:1"), 0).settings.positions is None


@pytest.mark.parametrize(
    ("columns", "text", "more", "sentence"),
    [
        ("nothing", "", {}, "no field is called 'nothing'"),
        ("guidance", "1, x", {}, "guidance is 'x'; give a number"),
        ("guidance", "-1", {}, "guidance is -1"),
        ("mid_rho", "0", {}, "mid rho is 0"),
        ("blocks", "99", {}, "block 99 does not exist"),
        ("class_name", "unicorn", {}, "unknown class 'unicorn'"),
        ("seed", "-3", {}, "the seed is -3"),
        ("schedule", "loud", {}, "there is no schedule 'loud'"),
        ("guidance", "", {"rows": "guidance"}, "the same field"),
        ("guidance", "", {"rows": "seed", "seeds": 2}, "the seeds are on an axis already"),
        ("guidance", "", {"rows": "mid_rho", "seeds": 9}, "the number of seeds is 9"),
        ("guidance", ",".join(map(str, range(40))), {"seeds": 8}, "a sheet of 320 pictures is more than 160"),
        ("guidance", ",".join(map(str, range(99))), {}, "99 values; give at most 64"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    model: hieramp.Model, columns: str, text: str, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        a_plan(model, columns, text, **more)


def test_baselines_come_first_as_a_column(model: hieramp.Model) -> None:
    sheet = a_plan(model, "schedule", "coarse, all", "mid_rho", row_values="0.25, 0.5", seeds=2)
    assert sheet.columns == ("baseline", "coarse", "all")
    assert sheet.rows == ("mid ρ 25%, seed 7", "mid ρ 25%, seed 8", "mid ρ 50%, seed 7", "mid ρ 50%, seed 8")
    assert [sheet.is_baseline(i) for i in range(12)] == [True, False, False] * 4
    assert sheet.baselines == tuple(3 * (i // 3) for i in range(12))
    assert all(view_request.settings.is_off for view_request in sheet.view_requests[::3])
    assert [view_request.seeds for view_request in sheet.view_requests[::3]] == [(7,), (8,), (7,), (8,)]


def test_baselines_come_first_as_a_row_where_each_column_has_its_own(model: hieramp.Model) -> None:
    sheet = a_plan(model, "guidance", "1, 4", "mid_strength", row_values="2, 5")
    assert sheet.rows == ("mid β 2, baseline", "mid β 2", "mid β 5") and sheet.columns == ("Guidance 1", "Guidance 4")
    assert sheet.baselines == (0, 1, 0, 1, 0, 1)  # the same two for both rows
    assert [(o.settings.guidance, o.settings.is_off) for o in sheet.view_requests[:2]] == [(1.0, True), (4.0, True)]
    assert sheet.view_requests[5].settings.mid == (0.5, 5.0)


def test_the_mode_on_an_axis_keeps_what_is_off(model: hieramp.Model) -> None:
    sheet = a_plan(model, "mode", "logit, attention", changes={"coarse_strength": 2.0, "mid_strength": 0.0})
    other = sheet.view_requests[2].settings
    assert other.mode == "attention" and other.coarse == (0.5, 7.39) and other.mid is not None and other.mid[1] == 1.0


def test_tiles_are_what_the_model_draws_alone_with_their_figures(model: hieramp.Model) -> None:
    empty = a_plan(model, "schedule", "coarse, all", "guidance", row_values="1, 4")
    *_, sheet = sheets.draw_sheet(model, empty, fake_judge)
    assert sheet.is_finished and not empty.is_finished and sheet.has("probability")
    for i, (view_request, tile) in enumerate(zip(sheet.view_requests, sheet.tiles, strict=True)):
        alone = model.generate([1], [7], view_request.settings)
        picture = np.asarray(hieramp.figures.to_picture(alone.images[0]), dtype=int)
        assert tile is not None and np.abs(np.asarray(tile.picture, dtype=int) - picture).max() <= 1
        plain = model.generate([1], [7], view_request.settings.plain)
        pairs = list(zip(alone.tokens, plain.tokens, strict=True))
        differ = sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)
        assert tile.changed == pytest.approx(differ)
        away = (alone.images - plain.images).square().mean().sqrt().item()
        assert tile.distance == pytest.approx(away, abs=0.01)
        assert tile.probability == pytest.approx(1 - alone.images[0, 0].mean().item(), abs=0.01)
        if sheet.is_baseline(i):
            assert tile.changed == tile.distance == 0
    changed = [tile.changed for tile in sheet.tiles if tile]
    assert max(changed) > 0.1


def test_a_model_without_a_classifier_shows_the_distance(model: hieramp.Model) -> None:
    *_, sheet = sheets.draw_sheet(model, a_plan(model, "schedule", "all"))
    assert not sheet.has("probability") and sheet_files.first_measure(sheet) == "distance"
    html = ablate.as_html(model, sheet)
    assert 'value="probability"' not in html and sheet_files.number(sheet, 0, "probability") == "–"


def test_files_hold_all_settings_and_open_again(model: hieramp.Model) -> None:
    *_, sheet = sheets.draw_sheet(model, a_plan(model, "mid_strength", "1, 5", seeds=2), fake_judge)
    stored = json.loads(sheet_files.as_json(model, sheet))
    for view_request, tile in zip(sheet.view_requests, stored["tiles"], strict=True):
        again = view_requests.from_picture(model, tile["settings"])
        assert (again.label, again.seeds, again.settings.is_off) == (
            1,
            view_request.seeds,
            view_request.settings.is_off,
        )
        assert again.settings.mid == view_request.settings.mid or view_request.settings.is_off
        query = dict(parse_qsl(urlsplit(tile["address"]).query, keep_blank_values=True))
        assert view_requests.from_query(model, query).settings.mid == again.settings.mid or view_request.settings.is_off
    rows = list(csv.DictReader(io.StringIO(sheet_files.as_csv(model, sheet))))
    assert [row["mid_strength"] for row in rows] == ["0.0", "1.0", "5.0"] * 2
    assert [row["is_baseline"] for row in rows] == ["True", "False", "False"] * 2
    assert float(rows[2]["probability"]) == stored["tiles"][2]["probability"]
    png = Image.open(io.BytesIO(sheet_files.as_figure(model, sheet, "probability", "png")))
    settings = json.loads(png.info["hieramp"])
    first = view_requests.from_picture(model, settings)
    assert (first.label, first.seeds, first.settings.is_off) == (1, (7,), True)
    said = "This is a sheet of 6 pictures: the first of them, seed 7, baseline, is shown."
    assert view_requests.remarks(model, settings) == [said]
    svg = sheet_files.as_figure(model, sheet, "probability", "svg").decode()
    for words in (
        "mid β 5",
        "seed 8",
        "baseline",
        "mid β: cat, seed 7, tiny",
        sheet_files.number(sheet, 2, "probability"),
    ):
        assert words in svg, words
    assert svg.count("<image") == 6 and sheet_files.file_name(model, sheet, "svg").endswith("-sheet.svg")


def test_the_page_gets_every_tile_as_a_button_with_its_settings(model: hieramp.Model) -> None:
    *_, sheet = sheets.draw_sheet(model, a_plan(model, "schedule"))
    html = ablate.as_html(model, sheet)
    assert html.count("<img ") == 8 and 'alt="cat, seed 7, weak mid"' in html
    texts = re.findall(r'data-tile="([^"]+)"', html)
    about = json.loads(texts[6].replace("&quot;", '"').replace("&amp;", "&"))
    query = dict(part.split("=") for part in about["query"].lstrip("?").split("&"))
    assert view_requests.from_query(model, query).settings.mid == SCHEDULES["weak-mid"].mid
    assert set(about["numbers"]) == set(sheet_files.MEASURES)


def test_what_is_on_an_axis_does_not_make_a_sheet_stale(model: hieramp.Model) -> None:
    of = ablate.stale_of(model, an_order(model), ["guidance", "class_name"])
    assert "guidance" not in of and "class" not in of and of["seed"] == "7" and of["mid_strength"] == "5"
    assert "mode" not in ablate.stale_of(model, an_order(model), ["schedule", ""])
