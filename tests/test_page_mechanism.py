"""The inside of one token, in a browser: what it shows is what the model's own drawing gives."""

import re
from pathlib import Path
from typing import Any

from test_page import FINISHED, address, opened, served  # noqa: F401  (fixtures)

import hieramp
from app import handlers, inside, view_requests
from app.inside import Looks


def seen(*asked: Any) -> dict[str, Any]:
    """What is shown when all pieces are there."""
    *_, last = inside.position_view(*asked)
    assert last.answer is not None
    return last.answer


def test_a_view_is_that_of_the_pair_on_screen(model: hieramp.Model) -> None:
    """Of a sample among several, in the batch that the page drew."""
    view_request = view_requests.from_query(model, {"class": "cat", "seed": "4", "count": "3", "mode": "logit"})
    steps = list(handlers.steps_of(model, view_request))
    looks = Looks()
    for scale, position, head in ((0, 0, 0), (3, 9, 0), (5, 63, 2)):
        asked = {"sample": 1, "scale": scale, "position": position, "head": head}
        view = seen(model, view_request, asked, looks)
        assert view["drawn"]["baseline"] == steps[scale].tokens[1, position]
        assert view["drawn"]["amplified"] == steps[scale].tokens[4, position]
        assert abs(sum(view["row"]["after"]) - 1) < 1e-3 and view["sides"] == [1, 2, 3, 4, 6, 8][: scale + 1]
        assert len(view["codes"]) == 10 and view["amplified"] == (scale > 0)
        chosen = steps[scale].chosen(view_request.settings)
        start = model.var.scales.spans[scale].start
        mine = [] if chosen is None else (chosen[4].flatten().nonzero()[:, 0] + start).tolist()
        assert view["row"]["chosen"] == mine


def test_a_position_is_looked_into_by_click_and_by_key(browser: Any, address: str, served: hieramp.Model) -> None:  # noqa: F811
    view_request = view_requests.from_query(served, {"class": "cat", "seed": "4", "mode": "logit"})
    with opened(browser, f"{address}?class=cat&seed=4") as tab:
        tab.wait_for_url("**mode=logit**")
        place = tab.locator("#mechanism")
        assert not place.locator(".codes").is_visible()
        tab.get_by_role("button", name="4×4").click()
        tab.locator(".map").nth(1).click(position={"x": 3, "y": 3})
        place.get_by_text("Scale 3 (4×4), row 1, column 1;").wait_for()
        view = seen(served, view_request, {"sample": 0, "scale": 3, "position": 0}, Looks())
        codes = [int(text) for text in place.locator(".codes .code").all_inner_texts()]
        assert codes == [one["code"] for one in view["codes"]]
        assert place.locator(".codes li.drawn .code").inner_text() == str(view["drawn"]["amplified"])
        share = [f"{100 * x:.0f} %" for x in view["row"]["share"]]
        assert f"They held {share[0]} of its attention, then {share[1]}" in place.inner_text()
        # by keys alone: another position, then a weight of its row
        tab.get_by_label(re.compile("Saliency over the baseline picture")).focus()
        for key in ("ArrowRight", "ArrowDown", "Enter"):
            tab.keyboard.press(key)
        place.get_by_text("Scale 3 (4×4), row 2, column 1;").wait_for()
        place.get_by_label(re.compile("Attention after the softmax over scale 3")).focus()
        tab.keyboard.press("ArrowRight")
        view = seen(served, view_request, {"sample": 0, "scale": 3, "position": 4}, Looks())
        logit = view["row"]["logits"][served.var.scales.spans[3].start + 1]
        said = place.locator('[data-part="key"]').inner_text()
        assert said.startswith(f"scale 3, row 1, column 2: mean logit {logit:.2f}")
        # another seed: the same position of the new picture
        tab.get_by_label("Seed", exact=True).fill("5")
        after = seen(
            served,
            view_requests.from_query(served, {"class": "cat", "seed": "5", "mode": "logit"}),
            {"sample": 0, "scale": 3, "position": 4},
            Looks(),
        )
        place.locator(".codes li.drawn .code", has_text=re.compile(f"^{after['drawn']['amplified']}$")).wait_for()
        tab.get_by_label("Block").select_option("0")
        place.get_by_text("Nothing is amplified in this block at this scale").wait_for()
        assert tab.locator(FINISHED).count() == 1


def test_the_position_looked_into_is_the_one_read_under_the_pointer(browser: Any, address: str) -> None:  # noqa: F811
    """Between two positions too: a click tells its place in whole pixels, a pointer in parts of them."""
    with opened(browser, f"{address}?class=cat", "light", 375) as tab:
        canvas = tab.locator(".map").nth(1)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        edges = [box["x"] + i * box["width"] / 8 for i in range(1, 8)]
        edge = max(edges, key=lambda x: x % 1)
        assert edge % 1 > 0.1
        tab.mouse.click(edge + 0.01, box["y"] + 5)
        read = re.match(r"Row 1, (column \d)", tab.locator('[data-part="readout"]').inner_text())
        assert read
        tab.get_by_text(re.compile(rf"^Scale 5 \(8×8\), row 1, {read[1]};")).wait_for()


def test_the_view_fits_a_phone(browser: Any, address: str) -> None:  # noqa: F811
    with opened(browser, f"{address}?class=cat", "dark", 390) as tab:
        tab.locator(".map").nth(1).click()
        tab.locator("#mechanism .codes li").first.wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_files_are_short() -> None:
    web = Path(inside.__file__).with_name("web")
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 300 for path in web.glob("*.js"))
