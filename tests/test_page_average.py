"""Maps against the average map, in a browser: what is read there is the model's map over its average."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import serving
from test_average_map import looking_model, random_maps
from test_page import FINISHED, opened

import hieramp
from app import handlers, page, view_requests
from hieramp.analysis import average_map


@pytest.fixture(scope="module")
def looking(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> hieramp.Model:
    model = looking_model(model_folder, tmp_path_factory.mktemp("looking") / "tiny")
    average_map.save(model, random_maps(model))
    return model


@pytest.fixture(scope="module")
def address(looking: hieramp.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(page.build(looking, job_root=tmp_path_factory.mktemp("jobs")))


def test_a_map_is_read_against_the_average(browser: Any, address: str, looking: hieramp.Model) -> None:
    average = average_map.load(looking)
    assert average is not None
    view_request = view_requests.from_query(looking, {"class": "cat", "seed": "4"})
    *_, last = handlers.steps_of(looking, view_request)
    own = [m.flatten()[0].item() for m in last.saliency]
    times = [x / average.maps[5][0] for x in own]
    with opened(browser, f"{address}?class=cat&seed=4") as tab:
        tab.wait_for_url("**mode=logit**")
        switch, said = tab.get_by_label("Against the average map"), tab.locator('[data-part="position"]')
        share = f"At 8×8, {100 * average.fixed_share[5]:.0f} % of what the maps hold is position"
        assert said.inner_text().startswith(share) and "times the average" not in said.inner_text()
        readout, top = tab.locator('[data-part="readout"]'), tab.locator('[data-part="top"]')
        tab.locator(".map").first.focus()
        tab.keyboard.press("ArrowRight")  # the first position
        assert f"{own[0]:.4f} baseline, {own[1]:.4f} amplified" in readout.inner_text()
        switch.check()
        assert "how many times the average" in said.inner_text()
        assert top.inner_text().endswith("times the average")
        tab.locator(".map").first.focus()
        tab.keyboard.press("ArrowRight")
        read = f"Row 1, column 1: {times[0]:.4f} times the average baseline, {times[1]:.4f} times the average amplified"
        assert readout.inner_text().startswith(read)
        assert "times the average" in str(tab.locator(".map").first.get_attribute("aria-label"))
        tab.wait_for_url("**against=1**")  # a link keeps it
        tab.reload()
        tab.wait_for_selector(FINISHED)
        assert switch.is_checked() and top.inner_text().endswith("times the average")
        tab.get_by_label("Block").select_option("2")  # another block has another map
        assert switch.is_disabled() and top.inner_text().endswith("of its attention")
        tab.get_by_role("button", name="1×1").click()
        assert said.inner_text().startswith("This scale has one position")
