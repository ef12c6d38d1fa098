"""Curated pairs: what is said of a scene is so, and nothing is said where it is not."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

import hieramp
from app import curated, examples, handlers, view_requests
from hieramp.errors import UserError
from hieramp.generation.memory import RecentDrawings

PAIRS = [
    {"class_name": "frog", "seed": 3, "schedule": "all", "notice": "all"},
    {"class_name": "cat", "seed": 1, "schedule": "off", "notice": "same"},
    {"class_name": "dog", "seed": 2, "schedule": "all", "notice": "same"},  # which is not so
]


def with_pairs(folder: Path, place: Path, pairs: Any) -> Path:
    shutil.copytree(folder, place)
    (place / curated.FILE).write_text(json.dumps(pairs))
    return place


@pytest.fixture(scope="module")
def pairs(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> hieramp.Model:
    return hieramp.load(with_pairs(model_folder, tmp_path_factory.mktemp("curated") / "tiny", PAIRS), "cpu")


def view_model_of(model: hieramp.Model, one: curated.Example) -> dict[str, Any]:
    *_, view_model = handlers.grow(model, examples.order_of(model, one))
    return view_model


def test_a_fresh_page_opens_on_the_first_pair(pairs: hieramp.Model, model: hieramp.Model) -> None:
    frog = pairs.class_names.index("frog")
    assert view_requests.first_request(pairs) == examples.order_of(pairs, curated.examples_of(pairs)[0])
    assert view_requests.from_query(pairs, {"guidance": "2"}).label == frog and view_requests.from_query(
        pairs, {}
    ).seeds == (3,)
    assert (
        view_requests.first_request(model).label == 0 and not curated.examples_of(model) and examples.links(model) == ""
    )


def test_what_is_said_is_so_and_what_is_not_is_not_said(pairs: hieramp.Model) -> None:
    every, same, wrong = curated.examples_of(pairs)
    view_model = view_model_of(pairs, every)
    last = view_model["steps"][-1]
    assert f"At the last one {len(last['changed'][0])} of 64 tokens differ" in view_model["notice"]
    drawn = pairs.generate(*examples.order_of(pairs, every).batch).images
    apart = 100 * float((drawn[1] - drawn[0]).abs().mean())
    assert f"{apart:.1f} % apart" in view_model["notice"] and apart > 0
    assert view_model_of(pairs, same)["notice"].startswith("Nothing is amplified, so all 130 tokens and every pixel")
    assert view_model_of(pairs, wrong)["notice"] == ""
    elsewhere = view_requests.read_request(pairs, view_requests.defaults(pairs) | {"seed": 4})
    *_, other = handlers.grow(pairs, elsewhere)
    assert other["notice"] == ""


def test_details_coarse_causes_and_peaks_are_told_from_the_scene() -> None:
    sides, stages = [1, 2, 3, 4], [None, "coarse", "mid", "fine"]

    def view_model(*changed: int, top: float = 0.0) -> dict[str, Any]:
        maps = [[[top or 1 / n**2] + [(1 - (top or 1 / n**2)) / max(1, n * n - 1)] * (n * n - 1)] for n in sides]
        steps = [
            {"changed": [list(range(count))], "moved": [count / 100], "maps": rows}
            for count, rows in zip(changed, maps, strict=True)
        ]
        return {"sides": sides, "stages": stages, "live": [False, True, True, True], "steps": steps}

    say = examples.OBSERVATIONS
    assert "the 14 tokens of the first 3 scales are the same" in str(say["late"](view_model(0, 0, 0, 5)))
    assert "5.0 % apart" in str(say["late"](view_model(0, 0, 0, 5)))
    assert say["late"](view_model(0, 0, 1, 5)) is None and say["late"](view_model(0, 0, 0, 0)) is None
    early = str(say["early"](view_model(0, 1, 7, 16)))
    assert "1 of 4 tokens change at scale 1, and 23 of the 25 after it follow" in early
    assert say["early"](view_model(0, 0, 7, 16)) is None
    assert "scale 3 (4×4) the class token gives row 1, column 1 of the baseline 8.0 times" in str(
        say["peak"](view_model(0, 0, 0, 0, top=0.5))
    )
    assert say["peak"](view_model(0, 0, 0, 0)) is None and say["same"](view_model(0, 0, 0, 1)) is None
    assert say["all"](view_model(0, 1, 1, 0)) is None


def test_links_lead_to_the_pairs(pairs: hieramp.Model) -> None:
    found = re.findall(r'href="\?([^"]*)"', examples.links(pairs))
    asked = [dict(parse_qsl(query.replace("&amp;", "&"))) for query in found]
    wanted = [examples.order_of(pairs, one) for one in curated.examples_of(pairs)]
    assert [view_requests.from_query(pairs, query) for query in asked] == wanted and len(wanted) == len(PAIRS)
    assert {query["overlay"] for query in asked} == {"0.4"}


def test_the_seconds_are_those_of_a_drawing(model: hieramp.Model) -> None:
    view_request, memory = view_requests.first_request(model), RecentDrawings()
    *before, view_model = handlers.grow(model, view_request, memory)
    assert view_model["seconds"] > 0 and all(earlier["seconds"] is None for earlier in before)
    *_, again = handlers.grow(model, view_request, memory)
    assert again["seconds"] is None and again["finals"] == view_model["finals"]


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"class": 1}, "is damaged"),
        ([{**PAIRS[0], "class_name": "unicorn"}], "names 'unicorn'; it may name airplane"),
        ([{**PAIRS[0], "notice": "magic"}], "names 'magic'; it may name all, early"),
        ([{**PAIRS[0], "schedule": "x"}], "names 'x'"),
        ([{**PAIRS[0], "seed": -1}], "names the seed -1"),
    ],
)
def test_a_damaged_file_is_one_sentence(model_folder: Path, tmp_path: Path, stored: Any, sentence: str) -> None:
    broken = hieramp.load(with_pairs(model_folder, tmp_path / "broken", stored), "cpu")
    with pytest.raises(UserError, match=re.escape(sentence)):
        curated.examples_of(broken)
