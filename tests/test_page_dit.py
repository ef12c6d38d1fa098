"""The page on a diffusion transformer: it grows by noise level, and offers what such a model has alone."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_diffusion import build

from app import api, handlers, kinds, page, view_requests
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
    assert {"steps", "solver", "coarse_strength"} <= named and not {"mode", "scales", "stop-count", "kind"} & named
    (map_from,) = (block for block in demo.blocks.values() if block.elem_id == "map_from")
    assert not map_from.visible  # there is no class token that it could come from
    tabs = {str(block.id): block.visible for block in demo.blocks.values() if type(block).__name__ == "Tab"}
    assert [name for name, visible in tabs.items() if visible] == ["explore", "distill", "learn"]
    offered = {fn.api_name for fn in demo.fns.values()}
    assert {"generate", "saliency", "distill"} <= offered and "count_tokens" not in offered


def test_the_endpoints_answer(dit: DiffusionModel, tmp_path: Any) -> None:
    from app.context import AppContext

    does = api.Endpoints(AppContext.make(dit, job_root=tmp_path))
    assert does.classes()["stages"]["coarse"] == "t 1–0.88"
    found = does.saliency(class_name="a", seed=0, count=1, steps=3)
    assert [step["t"] for step in found["steps"]] == pytest.approx([2 / 3, 1 / 3, 0])
    assert len(does.generate(class_name="a", seed=0, count=1, steps=2)["amplified"]) == 1


def test_the_viewer_shows_no_part_that_only_a_var_has(dit: DiffusionModel, tmp_path: Any) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip(f"{chromium} is not installed")
    demo = page.build(dit, job_root=tmp_path)
    page.launch(demo, prevent_thread_lock=True, quiet=True)
    try:
        with playwright.sync_playwright() as running:
            browser = running.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
            tab = browser.new_page()
            tab.set_default_timeout(60_000)
            tab.goto(demo.local_url)
            tab.wait_for_selector('.viewer[aria-busy="false"]')
            parts = tab.locator("[data-var]")
            assert parts.count() >= 6 and not any(one.is_visible() for one in parts.all())
            browser.close()
    finally:
        demo.close()
