"""Classes of any name on the page: long, without a blank, of one name, in any script, with HTML's characters."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from conftest import build_model
from serving import serving
from test_class_tokens import OWN
from test_page import FINISHED, opened, sources

import hieramp
from app import names, page
from app.visitor_limits import VisitorLimits

LONG = "x" * 120
NAMES = (LONG, "crane", '猫 "a,b; c" <b>&', "crane")
WIDEST = """() => [...document.querySelectorAll(".viewer *, #controls *")].filter(
  each => each.checkVisibility() && each.getBoundingClientRect().right > innerWidth + 1
    && !each.closest(".strip, .overflow-menu")).map(each => each.outerHTML.slice(0, 80))"""

SHARES = """() => [...document.querySelectorAll(".beliefs li")].map(row => {
  const inside = row.getBoundingClientRect(), share = row.querySelector("b").getBoundingClientRect();
  return share.width > 10 && share.right <= inside.right + 1; })"""


def test_two_classes_of_one_name_are_told_apart(model: hieramp.Model) -> None:
    wnids = ("n01440764", "n02012849", "n01443537", "n03126707")
    words = ("tench, Tinca tinca", "crane", "goldfish, Carassius auratus", "crane")
    twins = replace(model, class_names=words, wnids=wnids)
    assert names.full_names(twins) == [words[0], "crane (n02012849)", words[2], "crane (n03126707)"]
    assert [names.name_of(twins, label) for label in range(4)] == [
        "tench",
        "crane (n02012849)",
        "goldfish",
        "crane (n03126707)",
    ]
    numbered = replace(model, class_names=NAMES, wnids=())
    assert names.full_names(numbered)[1::2] == ["crane (1)", "crane (3)"] and names.name_of(numbered, 0) == LONG


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    odd = replace(build_model(OWN), class_names=NAMES)  # its class tokens show what they believe
    yield from serving(page.build(odd, VisitorLimits(), job_root=tmp_path_factory.mktemp("jobs")))


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_push_nothing_out_of_sight(browser: Any, address: str, width: int) -> None:
    with opened(browser, address, width=width) as tab:
        heading = tab.locator(".viewer h2").first
        assert heading.inner_text() == LONG
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(WIDEST) == []
        tab.wait_for_function("document.querySelectorAll('.beliefs li').length === 8")  # four classes, two sides
        assert tab.evaluate(SHARES) == [True] * 8


def test_a_class_of_any_name_is_chosen_and_kept_by_its_address(browser: Any, address: str) -> None:
    with opened(browser, address) as tab:
        chosen = tab.get_by_label("Class", exact=True)
        for kept, name in (("3", "crane (3)"), (NAMES[2], NAMES[2])):
            chosen.click()
            tab.get_by_role("option", name=name, exact=True).click()
            tab.wait_for_function("kept => new URL(location).searchParams.get('class') === kept", arg=kept)
            tab.wait_for_selector(FINISHED)
            tab.locator(".viewer h2").get_by_text(name, exact=True).wait_for()
            tab.wait_for_selector(FINISHED)
            before = sources(tab, f"Baseline picture of {name}, seed 0")
            tab.reload()
            tab.wait_for_selector(FINISHED)
            assert sources(tab, f"Baseline picture of {name}, seed 0") == before
            chosen = tab.get_by_label("Class", exact=True)
