"""The page on a diffusion transformer: it grows by noise level, and offers what such a model has alone."""

import base64
import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from serving import serving
from test_diffusion import build
from test_page_figures import downloaded, opened

from app import ablate, api, axes, handlers, kinds, page, sheets, view_requests
from hieramp import figures
from hieramp.config import DiTClassTokenConfig
from hieramp.diffusion.class_token import DiTClassToken
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError


@pytest.fixture(scope="module")
def dit() -> DiffusionModel:
    return build()


def order_of(dit: DiffusionModel, **values: Any) -> view_requests.ViewRequest:
    return view_requests.read_request(dit, view_requests.defaults(dit) | {"steps": 4} | values)


def test_it_grows_by_noise_level(dit: DiffusionModel) -> None:
    view_request = order_of(dit, count=2)
    *_, view_model = handlers.grow(dit, view_request)
    assert view_model["unit"] == "step" and view_model["titles"] == ["t 0.75", "t 0.50", "t 0.25", "t 0.00"]
    assert [len(step["images"]) for step in view_model["steps"]] == [4] * 4 and len(view_model["finals"]) == 4
    for step in view_model["steps"]:
        assert all(abs(sum(m) - 1) < 1e-3 and len(m) == 64 for m in step["maps"])
        assert step["changed"] is None and step["beliefs"] is None and step["chosen"][0] == []
    # nothing is known before the first step; half of the 64 positions afterwards, in the amplified rows alone
    assert [len(step["chosen"][2]) for step in view_model["steps"]] == [0, 32, 32, 32]
    drawn = dit.generate(*view_request.batch)
    for final, image in zip(view_model["finals"], drawn.images, strict=True):
        shown = Image.open(io.BytesIO(base64.b64decode(final["uri"].split(",")[1])))
        assert shown.convert("RGB").tobytes() == figures.to_picture(image).tobytes()


def test_of_many_steps_a_part_is_shown_the_last_among_them(dit: DiffusionModel) -> None:
    shown = kinds.shown_steps(order_of(dit, steps=100).settings)
    assert len(shown) == kinds.SHOWN and shown[-1] == 99
    assert kinds.shown_steps(order_of(dit, steps=7).settings) == list(range(7))


def test_values_are_those_that_it_has(dit: DiffusionModel) -> None:
    values = view_requests.defaults(dit)
    assert {"steps", "solver", "guidance", "coarse_rho", "coarse_strength"} <= values.keys()
    assert not {"mode", "scales", "positions", "top_k", "coarse_temperature"} & values.keys()
    view_request = order_of(dit, steps=9, solver="heun", guidance=4.0, mid_strength=0.5)
    assert view_requests.from_query(dit, view_requests.to_query(dit, view_request)) == view_request
    assert view_requests.from_picture(dit, view_requests.described(dit, view_request)) == view_request
    # 4 is what a VAR draws with where nothing is said, not what this does
    assert "--guidance 4" in view_requests.as_command(dit, view_request) and "--steps 9" in view_requests.as_command(
        dit, view_request
    )
    assert "α: coarse 1 on 50%" in view_requests.caption(view_request, "dit") and "9 steps" in view_requests.caption(
        view_request, "dit"
    )


def test_schedules_are_named_by_kind(dit: DiffusionModel) -> None:
    for name in kinds.schedules("dit"):
        view_request = order_of(dit, **view_requests.schedule_values(name, "dit"))
        assert kinds.schedule_name(view_request.settings, "dit") == name
    assert "weak-mid" not in kinds.schedules("dit")
    seeing = build()
    seeing.class_token = DiTClassToken(DiTClassTokenConfig(32, 16, 2, 4, 1))
    by_token = order_of(seeing, map_from="class-token", **view_requests.schedule_values("all", "dit"))
    assert view_requests.caption(by_token, "dit").endswith("Map from class-token.")


def test_no_block_can_be_looked_into(dit: DiffusionModel) -> None:
    with pytest.raises(UserError, match="no class tokens"):
        handlers.block_view(dit, order_of(dit), 0, 0)


def test_the_page_is_built_without_what_it_lacks(dit: DiffusionModel, tmp_path: Any) -> None:
    demo = page.build(dit, job_root=tmp_path)
    named = {block.elem_id for block in demo.blocks.values()}
    assert {"steps", "solver", "coarse_strength"} <= named and not {
        "mode",
        "scales",
        "stop-count",
        "dose-stage",
    } & named
    (map_from,) = (block for block in demo.blocks.values() if block.elem_id == "map_from")
    assert not map_from.visible  # there is no class token that it could come from
    tabs = {str(block.id): block.visible for block in demo.blocks.values() if type(block).__name__ == "Tab"}
    assert [name for name, visible in tabs.items() if visible] == ["explore", "ablate", "distill", "learn"]
    offered = {fn.api_name for fn in demo.fns.values()}
    assert {"generate", "saliency", "distill", "ablate"} <= offered and "count_tokens" not in offered


def test_the_endpoints_answer(dit: DiffusionModel, tmp_path: Any) -> None:
    from app.context import AppContext

    does = api.Endpoints(AppContext.make(dit, job_root=tmp_path))
    assert does.classes()["stages"]["coarse"] == "t 1–0.88"
    found = does.saliency(class_name="a", seed=0, count=1, steps=3)
    assert [step["t"] for step in found["steps"]] == pytest.approx([2 / 3, 1 / 3, 0])
    assert len(does.generate(class_name="a", seed=0, count=1, steps=2)["amplified"]) == 1


@pytest.fixture(scope="module")
def address(dit: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(page.build(dit, job_root=tmp_path_factory.mktemp("jobs")))


def test_the_viewer_shows_no_part_that_only_a_var_has(browser: Any, address: str) -> None:
    with opened(browser, address, "Explore") as tab:
        parts = tab.locator("[data-var]")
        assert parts.count() >= 6 and not any(one.is_visible() for one in parts.all())


def test_every_field_that_it_has_can_be_an_axis_of_a_sheet(dit: DiffusionModel) -> None:
    view_request, names = order_of(dit), {name for _, name in axes.choices(dit)}
    assert {"steps", "solver", "guidance", "mid_rho", "mid_strength", "blocks", "seed", "class_name"} < names
    assert "mode" not in names and "map_from" not in names  # it has no class token that a map could come from
    for name in names:
        axis = axes.read_axis(dit, name, "", view_request)
        assert len(axis.labels) == len(axis.values) > 1, name
    assert axes.read_axis(dit, "mid_strength", "", view_request).labels[1] == "mid α 1"
    seeing = build()
    seeing.class_token = DiTClassToken(DiTClassTokenConfig(32, 16, 2, 4, 1))
    assert "map_from" in {name for _, name in axes.choices(seeing)}
    with pytest.raises(UserError, match="no schedule 'weak mid'; it must be one of off, coarse, mid, fine, all"):
        axes.read_axis(dit, "schedule", "weak mid", view_request)


def test_tiles_are_what_it_draws_alone(dit: DiffusionModel) -> None:
    empty = ablate.plan(dit, order_of(dit, class_name="b", seed=5), "steps", "2, 3", "mid_strength", "0.5, 2")
    *_, sheet = sheets.draw_sheet(dit, empty)
    assert sheet.rows == ("mid α 0.5, baseline", "mid α 0.5", "mid α 2") and sheet.columns == ("Steps 2", "Steps 3")
    for view_request, tile in zip(sheet.view_requests, sheet.tiles, strict=True):
        alone, plain = (
            dit.generate([1], [5], settings).images[0]
            for settings in (view_request.settings, view_request.settings.plain)
        )
        assert tile is not None and tile.picture.tobytes() == figures.to_picture(alone).tobytes()
        assert tile.distance == pytest.approx((alone - plain).square().mean().sqrt().item(), abs=0.01)
        assert tile.changed is None and tile.probability is None  # it has neither tokens nor a classifier
    assert max(tile.distance for tile in sheet.tiles if tile) > 0.001


def test_a_sheet_of_steps_and_strengths_in_a_browser(browser: Any, address: str, dit: DiffusionModel) -> None:
    with opened(browser, f"{address}?class=b&seed=5&steps=2", "Ablate") as tab:
        chips = tab.locator("#kind label").all_inner_texts()
        assert "The four schedules" in chips and "Steps × solver" in chips
        tab.get_by_role("radio", name="Steps × solver").check(force=True)
        tab.wait_for_function(
            "document.querySelector('#row-values textarea, #row-values input').value.includes('heun')"
        )
        assert tab.get_by_label("Values of the columns").input_value() == "5, 10, 25, 50"
        tab.get_by_label("Values of the columns").fill("2, 3")
        tab.get_by_role("button", name="Draw the sheet").click()
        tab.get_by_role("link", name="Save SVG").wait_for()
        assert tab.locator(".tiles .column").all_inner_texts() == ["Steps 2", "Steps 3"]
        assert tab.locator(".tiles .row").all_inner_texts() == [
            "Solver euler, baseline", "Solver euler", "Solver heun, baseline", "Solver heun",
        ]  # fmt: skip
        captions = tab.locator(".tiles figcaption").all_inner_texts()
        rows = list(csv.DictReader(io.StringIO(downloaded(tab, "Save CSV")[1].decode())))
        assert [row["is_baseline"] for row in rows] == ["True", "True", "False", "False"] * 2
        assert [(row["steps"], row["solver"]) for row in rows[2:4]] == [("2", "euler"), ("3", "euler")]
        assert captions == [f"{float(row['distance']):.3f}" for row in rows] and captions[0] == "0.000" < captions[7]
        assert tab.locator("[data-measure] option").count() == 1
        assert not tab.locator("[data-measure] option", has_text="tokens").count()
        tile = tab.locator(".sheet .tile").nth(7)
        tile.hover()
        assert tab.locator(".sheet .hint").inner_text().endswith(f"pixels differ by {captions[7]} (RMS).")
        tile.click()
        beside = tab.locator(".beside")
        assert beside.get_by_role("heading", name="b, seed 5, Solver heun, Steps 3").is_visible()
        assert "3 steps" in beside.locator(".caption").inner_text()
        name, data = downloaded(tab, "Save PNG")
        assert name == "b-seed5-steps-solver-sheet.png"
        with Image.open(io.BytesIO(data)) as picture:
            stored = json.loads(picture.info["hieramp"])
        first = view_requests.from_picture(dit, stored)
        assert (first.settings.steps, first.settings.solver, first.settings.is_off) == (2, "euler", True)
        assert b"Solver heun, baseline" in downloaded(tab, "Save SVG")[1]
        assert json.loads(downloaded(tab, "Save JSON")[1])["tiles"][7]["settings"]["solver"] == "heun"
        note = tab.locator(".stale-note").first
        tab.get_by_label("number input for Steps").fill("4")  # what is on an axis
        tab.keyboard.press("Tab")
        tab.wait_for_url("**steps=4**")
        assert not note.is_visible()
        tab.get_by_label("range slider for mid α").focus()
        tab.keyboard.press("ArrowLeft")
        note.wait_for()
        beside.get_by_role("link", name="Open in Explore").click()
        tab.wait_for_url("**solver=heun**")
        tab.get_by_alt_text("Amplified picture of b, seed 5", exact=True).wait_for()
