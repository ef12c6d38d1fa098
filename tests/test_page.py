"""The page as a visitor has it: its endpoints through a client, and all of it in a headless browser."""

import base64
import io
import itertools
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from serving import serving

import hieramp
from app import handlers, page, view_requests
from app.scheduling import Device
from app.visitor_limits import VisitorLimits

ROOT = Path(__file__).resolve().parent.parent
# npm install axe-core, here or anywhere: AXE then names its axe.min.js
AXE = Path(os.environ.get("AXE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
FINISHED = '.viewer[aria-busy="false"]'
ROOMS = ("Explore", "What changed", "Ablate", "Distill", "Learn")
PATIENCE = 60_000


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))


@pytest.fixture(scope="module")
def served(model_folder: Path) -> hieramp.Model:
    return hieramp.load(model_folder, "cpu")


@pytest.fixture(scope="module")
def address(served: hieramp.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(page.build(served, VisitorLimits(ipc=50), job_root=tmp_path_factory.mktemp("jobs")))


# Endpoints


@pytest.fixture(scope="module")
def client(address: str) -> Any:
    return pytest.importorskip("gradio_client", reason="gradio_client is not installed").Client(address, verbose=False)


def test_endpoints_describe_all_they_take_and_helpers_stay_private(client: Any, served: hieramp.Model) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    names = {name.strip("/") for name in endpoints}
    makers = {"estimate", "distill", "job", "stop_job", "resume_job"}
    assert names == {"classes", "generate", "saliency", "count_tokens", "compare_schedules", "ablate"} | makers
    assert [given["parameter_name"] for given in endpoints["/generate"]["parameters"]] == list(
        view_requests.defaults(served)
    )
    for name, about in endpoints.items():
        for given in about["parameters"]:
            assert re.search(rf"^ +{given['parameter_name']}: \w", about["description"], re.M), (name, given)


def test_what_the_endpoints_answer_is_what_the_model_draws(client: Any, served: hieramp.Model) -> None:
    given = {"class_name": "cat", "seed": 7, "count": 2, "top_k": 30, "positions": "3:ff"}
    answer = client.predict(**given, api_name="/generate")
    view_request = view_requests.read_request(served, view_requests.defaults(served) | given)
    expected = handlers.generate(served, view_request)
    for side in ("baseline", "amplified"):
        pictures = [[decoded(source).tobytes() for source in some[side]] for some in (answer, expected)]
        assert pictures[0] == pictures[1] and len(pictures[0]) == 2
    maps = client.predict("cat", api_name="/saliency")["scales"]
    assert [len(m["amplified"]["saliency"]) for m in maps] == [1, 2, 3, 4, 6, 8]
    assert len(maps[5]["chosen"]) == 32 and len(maps[0]["baseline"]["beliefs"]) == 4
    assert client.predict("cat", samples=2, api_name="/count_tokens")["csv"].startswith("where,tokens,entropy_baseline")
    compared = client.predict(classes=1, samples=1, api_name="/compare_schedules")
    assert compared["csv"].count("\n") == 22 == compared["differences"].count("\n") and len(compared["findings"]) == 3
    answer = client.predict(
        "cat", columns="mid_strength", column_values="1, 2", rows="mid_rho", seeds=2, api_name="/ablate"
    )
    assert len(answer["labels"]) == 24 and answer["csv"].count("\n") == 25
    assert client.predict(api_name="/classes")["stages"] == {"coarse": [1], "mid": [2, 3], "fine": [4, 5]}


def test_a_set_is_made_and_fetched_through_the_endpoints(client: Any) -> None:
    assert client.predict("cat,dog", 2, api_name="/estimate")["images"] == 4
    answer = client.predict("cat,dog", 2, api_name="/distill")
    deadline = time.monotonic() + 60
    while answer["state"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        answer = client.predict(answer["job_id"], api_name="/job")
    with hieramp.open_set(answer["file"]) as image_set:
        assert image_set.labels == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("generate", {"class_name": "../x"}, "Unknown class '../x'"),
        ("generate", {"class_name": "cat", "coarse_rho": 0}, "Coarse rho is 0"),
        ("generate", {"class_name": "cat", "seed": "NaN"}, "The seed is 'NaN'; give a number"),
        ("generate", {"class_name": "cat", "count": 10**9}, "The number of images is 1e.09"),
        ("generate", {"class_name": "<b>"}, "Unknown class '&lt;b&gt;'"),
        ("count_tokens", {"class_name": "cat", "samples": 10**9}, "The number of samples is 1e.09"),
        ("ablate", {"class_name": "cat", "columns": "x"}, "No field is called 'x'"),
        ("distill", {"ipc": 51}, "The number of images per class is 51; give a whole number from 1 to 50"),
        ("distill", {"classes": "../x"}, "Unknown class '../x'"),
        ("job", {"job_id": "../x"}, "There is no such job"),
    ],
)
def test_bad_values_get_a_sentence(client: Any, name: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        client.predict(**given, api_name=f"/{name}")


def test_a_huge_upload_is_refused(address: str) -> None:
    httpx = pytest.importorskip("httpx")
    size = 21 * 2**20
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("x.png", b"\0" * size)}, timeout=60)
    assert answer.status_code == 413


def test_files_outside_are_not_served(address: str) -> None:
    httpx = pytest.importorskip("httpx")
    for path in ("/etc/passwd", str(Path(__file__).resolve()), "../../etc/passwd"):
        assert httpx.get(f"{address}gradio_api/file={path}").status_code in (403, 404)


# The page


@contextmanager
def opened(browser: Any, address: str, scheme: str = "light", width: int = 1280) -> Iterator[Any]:
    """A page with its first picture; nothing may fail in its console."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    tab, failures = context.new_page(), []
    tab.set_default_timeout(PATIENCE)
    tab.on("pageerror", lambda error: failures.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector(FINISHED)
    yield tab
    context.close()
    assert not failures


def sources(tab: Any, alt: str) -> str:
    """The picture whose alternative text is this."""
    return tab.get_by_alt_text(alt, exact=True).first.get_attribute("src")


def test_a_visitor_draws_and_reads_a_map_with_the_keyboard(browser: Any, address: str, served: hieramp.Model) -> None:
    with opened(browser, address) as tab:
        assert sources(tab, "Baseline picture of airplane, seed 0")
        tab.get_by_label("Class", exact=True).focus()
        tab.keyboard.press("Control+a")
        tab.keyboard.type("fro")
        tab.keyboard.press("Enter")
        tab.wait_for_url("**class=frog**")  # a box left within milliseconds of Enter falls back to what it had
        tab.get_by_label("range slider for mid β (scales 2–3)").focus()
        tab.keyboard.press("ArrowLeft")  # nothing else is pressed: a moved slider draws
        tab.wait_for_url("**mid_strength=4.9**")
        tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("mid 4.9 on 50%")')
        view_request = view_requests.from_query(served, {"class": "frog", "mid_strength": "4.9"})
        *_, view_model = handlers.grow(served, view_request)
        for row, side in enumerate(("Baseline", "Amplified")):
            final = decoded(view_model["finals"][row]["uri"]).tobytes()
            assert decoded(sources(tab, f"{side} picture of frog, seed 0")).tobytes() == final
        tab.get_by_label("Scale before").focus()
        tab.keyboard.press("Enter")
        assert sources(tab, "Amplified picture of frog, seed 0, after scale 4, 6×6")
        tab.get_by_label(re.compile("Saliency over the amplified picture: frog, seed 0, scale 4, 6×6; highest")).focus()
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        values = [view_model["steps"][4]["maps"][row][1] for row in (0, 1)]
        said = f"Row 1, column 2: {values[0]:.4f} baseline, {values[1]:.4f} amplified"
        assert tab.locator('[data-part="readout"]').inner_text().startswith(said)


def test_an_address_shows_the_same_picture_and_a_bad_one_says_so(
    browser: Any, address: str, served: hieramp.Model
) -> None:
    asked = {"class_name": 2, "seed": 5, "count": 2, "positions": "3:33"}
    view_request = view_requests.read_request(served, view_requests.defaults(served) | asked)
    query = "&".join(f"{name}={value}" for name, value in view_requests.to_query(served, view_request).items())
    *_, view_model = handlers.grow(served, view_request)
    with opened(browser, f"{address}?{query}") as tab:
        tab.wait_for_selector(f'{FINISHED} h2:text-is("dog")')
        assert set(query.split("&")) == set(tab.url.partition("?")[2].replace("%3A", ":").split("&"))
        shown = sources(tab, "Amplified picture of dog, seed 5")
        assert decoded(shown).tobytes() == decoded(view_model["finals"][2]["uri"]).tobytes()
        assert tab.get_by_label("Seed", exact=True).input_value() == "5"
        tab.get_by_role("button", name="seed 6").click()
        tab.get_by_label("Block").select_option("1")
        tab.get_by_label("Head").select_option("2")
        closer = handlers.block_view(served, view_request, 1, 1)["maps"][5][1][2]
        tab.wait_for_function(
            f"document.querySelectorAll('.map')[1].getAttribute('aria-label').includes('{max(closer):.3g}')"
        )
        tab.goto(f"{address}?class=unicorn&__theme=light")
        tab.get_by_text("This address was not understood: unknown class 'unicorn'").wait_for()
        assert sources(tab, "Amplified picture of airplane, seed 0") and "__theme=light" in tab.url


def test_painting_presets_pictures_and_errors(browser: Any, address: str, tmp_path: Path) -> None:
    with opened(browser, address) as tab:
        tab.wait_for_url("**mode=logit**")  # the first drawing asks for what the address is
        assert tab.locator("#preset input:checked").input_value() == "all"
        tab.get_by_role("button", name="4×4").click()
        tab.get_by_role("button", name="Paint a map").click()
        box = tab.locator(".map").nth(1).bounding_box()
        tab.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
        tab.mouse.down()
        tab.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.1 * box["height"])
        tab.mouse.up()
        tab.wait_for_url("**paint=3%3A3**")
        tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("Painted by hand at scale 3")')
        with tab.expect_download() as saved:
            tab.get_by_role("link", name="Save PNG of the amplified picture").click()
        path = tmp_path / saved.value.suggested_filename
        saved.value.save_as(path)
        assert path.name == "airplane-seed0-amplified.png" and hieramp.figures.read_settings(path)["positions"] == {
            "3": [0, 1]
        }
        tab.get_by_label("weak mid").check(force=True)
        tab.wait_for_url("**mid_strength=0.5**mode=attention**")
        tab.get_by_label("range slider for coarse γ (scale 1)").wait_for()
        tab.locator('#preset label:has-text("weak mid") input:checked').wait_for(state="attached")
        tab.wait_for_function("!location.search.includes('paint')")
        drop = "file => { const data = new DataTransfer(); data.items.add(new File([Uint8Array.from(atob(file), c => "
        drop += "c.charCodeAt(0))], 'saved.png', { type: 'image/png' })); document.body.dispatchEvent("
        drop += "new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })); }"
        tab.evaluate(drop, base64.b64encode(path.read_bytes()).decode())
        tab.wait_for_url("**mode=logit**paint=3%3A3**")
        tab.get_by_label("Seed", exact=True).fill("")
        tab.get_by_text("The seed is empty; give a number").first.wait_for()
        assert tab.locator(FINISHED).count() == 1


def test_the_newest_request_wins(browser: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    grow = handlers.grow

    def slowly(model: hieramp.Model, view_request: view_requests.ViewRequest, memory: Any = None) -> Iterator[Any]:
        for view_model in grow(model, view_request, memory):
            drawn.append(view_request.seeds[0])
            yield view_model
            time.sleep(0.3)

    with opened(browser, address) as tab:
        monkeypatch.setattr(handlers, "grow", slowly)
        for seed in ("1", "2", "3"):
            tab.get_by_label("Seed", exact=True).fill(seed)
            tab.wait_for_url(f"**seed={seed}&**")
        tab.get_by_alt_text("Amplified picture of airplane, seed 3", exact=True).wait_for()
        assert drawn.count(1) < 6 and drawn.count(2) < 6 and drawn.count(3) == 6


def test_a_set_survives_a_reload_and_is_downloaded(
    browser: Any, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is held up after its second batch until it has been stopped."""
    job, gate, begun = Device.job, threading.Event(), itertools.count()

    @contextmanager
    def held_up(device: Device) -> Iterator[None]:
        if next(begun) >= 2:
            gate.wait(120)
        with job(device):
            yield

    with opened(browser, address) as tab:
        tab.get_by_role("tab", name="Distill").click()
        assert "50 images per class" in tab.locator(".caps").inner_text()
        for name in ("cat", "dog"):
            tab.get_by_label("Classes (none chosen: all)").fill(name)
            tab.keyboard.press("Enter")
        tab.get_by_role("button", name="Estimate").click()
        tab.get_by_text(re.compile("20 images: about .* of computing and")).wait_for()
        monkeypatch.setattr(Device, "job", held_up)
        tab.get_by_role("button", name="Make the set").click()
        tab.get_by_text(re.compile(r"\d+ of 20 images\. .* left")).wait_for()
        tab.reload()
        tab.get_by_role("tab", name="Distill").click()
        tab.get_by_text(re.compile(r"\d+ of 20 images")).wait_for()
        tab.get_by_role("button", name="Stop", exact=True).click()
        tab.get_by_text(re.compile("stopping after the batch in hand")).wait_for()
        gate.set()
        tab.get_by_text("Stopped. What is drawn is kept; resume to go on.").wait_for()
        monkeypatch.setattr(Device, "job", job)
        tab.get_by_role("button", name="Resume", exact=True).click()
        tab.get_by_text("20 of 20 images: finished").wait_for()
        with tab.expect_download() as got:
            tab.get_by_role("button", name="Download").click()
        path = tmp_path / "set.zip"
        got.value.save_as(path)
        with hieramp.open_set(path) as image_set:
            assert len(image_set) == 20 and set(image_set.labels) == {1, 2}
    with opened(browser, address) as other:  # another visitor knows nothing of it
        other.get_by_role("tab", name="Distill").click()
        other.get_by_text("No set is being made.").wait_for()


def test_counts_and_sheet(browser: Any, address: str) -> None:
    with opened(browser, address) as tab:
        tab.get_by_role("tab", name="What changed").click()
        tab.get_by_role("button", name="Count tokens").click()
        with tab.expect_download() as got:
            tab.get_by_role("link", name="usage.csv").click()
        assert got.value.suggested_filename == "airplane-seed0-n16-usage.csv"
        text = Path(got.value.path()).read_text()
        assert '# class: "airplane"' in text and "\nwhere,tokens" in text
        note = tab.locator(".stale-note").first
        assert not note.is_visible()
        tab.get_by_label("Seed", exact=True).fill("1")
        note.wait_for()  # it is of seed 0
        tab.get_by_label("Seed", exact=True).fill("0")
        note.wait_for(state="hidden")
        tab.locator(".js-plotly-plot .bars").first.wait_for()
        tab.get_by_role("tab", name="Ablate").click()
        tab.get_by_role("button", name="Draw the sheet").click()
        tab.get_by_role("button", name="airplane, seed 0, weak fine").click()
        tab.get_by_role("link", name="Open in Explore").click()
        tab.wait_for_url("**fine_strength=0.5&mode=attention**")
        tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("fine 0.5 on 50%")')
        assert "tab=" not in tab.url
        tab.go_back()  # the sheet is where it was
        tab.wait_for_url("**tab=ablate**")
        tab.get_by_role("link", name="Save PNG").last.wait_for()


HOSTILE = "<form action=https://evil.example><input name=p placeholder=password><img src=/x><button>Go</button></form>"


def test_an_address_and_the_name_of_a_file_put_no_html_on_the_page(browser: Any, address: str, tmp_path: Path) -> None:
    asked = quote(HOSTILE)
    with opened(browser, f"{address}?class={asked}&seed={asked}&mid_rho={asked}&tab={asked}&view={asked}") as tab:
        toast = tab.get_by_text(re.compile("This address was not understood: unknown class"))
        toast.wait_for()
        assert "<form action=https://evil.example>" in toast.inner_text()  # as text
        hostile = tmp_path / "<img src=x>.png"
        hostile.write_text("no picture")
        tab.locator("#open-picture input[type=file], input[type=file]").first.set_input_files(hostile)
        said = tab.get_by_text("This file is not a picture that can be read")
        said.wait_for()
        assert "/tmp" not in tab.locator("body").inner_text() and "gradio/" not in said.inner_text()
        tab.get_by_label("Class", exact=True).fill("<img src=/x>")
        tab.keyboard.press("Enter")
        tab.get_by_text("Unknown class '<img src=/x>'").first.wait_for()
        assert tab.get_by_label("Class", exact=True).get_attribute("aria-invalid") == "true"
        assert not tab.locator("form[action*=evil], img[src='/x'], img[src='x'], input[name=p]").count()


def test_generate_and_random_draw_something_new_and_back_undoes(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat&seed=4") as tab:
        tab.wait_for_url("**mode=logit**")
        assert not tab.get_by_label("Lock", exact=True).is_checked()
        tab.get_by_role("tab", name="Learn").click()
        tab.wait_for_url("**tab=learn**")
        tab.get_by_role("button", name="Generate").click()
        tab.wait_for_function("!/[?&]seed=4(&|$)/.test(location.search) && !location.search.includes('tab=')")
        second = tab.get_by_label("Seed", exact=True).input_value()
        assert second != "4" and sources(tab, f"Amplified picture of cat, seed {second}")
        tab.wait_for_timeout(1100)  # a step of Back is what has settled
        slider = tab.get_by_label("range slider for mid β (scales 2–3)")
        slider.focus()
        for _ in range(5):
            tab.keyboard.press("ArrowLeft")
        tab.wait_for_url("**mid_strength=4.5**")
        tab.wait_for_timeout(1100)
        tab.go_back()  # five moves in a row are one step
        tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("mid 5 on 50%")')
        assert tab.get_by_label("Seed", exact=True).input_value() == second
        tab.go_back()
        tab.get_by_alt_text("Amplified picture of cat, seed 4", exact=True).first.wait_for(state="attached")
        assert tab.get_by_label("Seed", exact=True).input_value() == "4"
        tab.wait_for_timeout(1100)
        tab.go_forward()
        tab.get_by_alt_text(f"Amplified picture of cat, seed {second}", exact=True).wait_for()
        tab.get_by_label("Lock", exact=True).check()
        tab.get_by_role("button", name="Generate").click()
        tab.get_by_text("The seed is locked, so this is the same picture.").wait_for()


def test_a_late_answer_takes_no_schedule_back(browser: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, begun, go_on = view_requests.read_request, threading.Event(), threading.Event()

    def first_waits(*given: Any) -> Any:
        if not begun.is_set():
            begun.set()
            go_on.wait(60)
        return read(*given)

    monkeypatch.setattr(view_requests, "read_request", first_waits)
    with opened(browser, address) as tab:  # its pictures are there before the page asks for them
        assert begun.wait(60)
        tab.get_by_label("weak mid").check(force=True)
        tab.evaluate(
            """() => {
              const radio = document.querySelector('input[value="weak-mid"]');
              window.lost = 0;
              setInterval(() => { if (!radio.checked) window.lost += 1; }, 5);
            }"""
        )
        tab.wait_for_url("**mode=attention**")
        go_on.set()
        tab.wait_for_timeout(1500)
        assert tab.evaluate("window.lost") == 0


def test_another_mode_keeps_what_is_off(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat&coarse_strength=2&mid_strength=0&fine_strength=0") as tab:
        tab.wait_for_url("**mode=logit**")
        tab.get_by_label("attention: multiply by γ, 1 is off").check(force=True)
        tab.wait_for_url("**mode=attention**")
        assert all(f"{name}&" in tab.url for name in ("coarse_strength=7.39", "mid_strength=1", "fine_strength=1"))
        tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("γ: coarse 7.39 on 50%, mid off, fine off")')


def test_the_link_holds_the_whole_view(browser: Any, address: str, served: hieramp.Model) -> None:
    with opened(browser, f"{address}?class=dog&count=2") as tab:
        tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
        tab.wait_for_url("**mode=logit**")
        tab.get_by_role("button", name="seed 1").click()
        tab.get_by_role("button", name="3×3").click()
        tab.locator('[data-part="opacity"]').fill("0.5")
        tab.get_by_label("Mark changed tokens").check()
        tab.get_by_label("Block").select_option("1")
        tab.get_by_label("Head").select_option("2")
        tab.get_by_role("button", name="Compare", exact=True).click()
        assert tab.locator('[data-part="opacity"]').is_disabled()
        tab.wait_for_url("**view=compare**")
        tab.get_by_role("button", name="Copy link").click()
        tab.get_by_text("Copied.").wait_for()
        link = tab.evaluate("navigator.clipboard.readText()")
        tab.get_by_role("button", name="as command line").click()
        tab.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('python -m hieramp'))")
        tab.get_by_role("button", name="as Python").click()
        tab.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('import hieramp'))")
    with opened(browser, link) as tab:
        assert tab.get_by_role("button", name="Compare", exact=True).get_attribute("aria-pressed") == "true"
        assert tab.get_by_role("button", name="seed 1").get_attribute("aria-pressed") == "true"
        assert tab.get_by_role("button", name="3×3").get_attribute("aria-pressed") == "true"
        assert tab.locator('[data-part="opacity"]').input_value() == "0.5"
        assert tab.get_by_label("Mark changed tokens").is_checked()
        assert (tab.get_by_label("Block").input_value(), tab.get_by_label("Head").input_value()) == ("1", "2")
        tab.get_by_role("tab", name="Ablate").click()
        tab.wait_for_url("**tab=ablate**")
        tab.reload()
        tab.get_by_role("button", name="Draw the sheet").wait_for()


def test_painting_says_where_it_cannot_act(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat&mid_strength=0") as tab:
        tab.get_by_role("button", name="Paint a map").click()
        words = tab.locator('[data-part="paint-help"]')
        tab.get_by_role("button", name="4×4").click()
        assert words.inner_text().startswith("Scale 3 is mid, which is not amplified")
        tab.get_by_role("button", name="1×1").click()
        assert words.inner_text().startswith("Scale 0 has one position")
        tab.get_by_role("button", name="6×6").click()
        assert words.inner_text().startswith("Drag over")


def test_a_bad_number_is_marked_until_it_is_mended(browser: Any, address: str) -> None:
    with opened(browser, address) as tab:
        field = tab.get_by_label("Seed", exact=True)
        field.fill("1.5")
        tab.get_by_text("The seed is 1.5; give a whole number").first.wait_for()
        tab.wait_for_selector("#seed[data-wrong] input[aria-invalid=true]")
        tab.get_by_label("Block").select_option("0")  # what cannot be drawn cannot be looked into either
        tab.get_by_text("The seed is 1.5; give a whole number").nth(1).wait_for()
        field.fill("12")
        tab.get_by_alt_text("Amplified picture of airplane, seed 12", exact=True).wait_for()
        assert field.get_attribute("aria-invalid") is None


def test_a_page_at_rest_asks_for_no_frames(browser: Any, address: str) -> None:
    """Gradio's clocks would ask for sixty a second as long as it is open."""
    count = "const f = requestAnimationFrame; requestAnimationFrame = tick => { window.frames_asked++; return f(tick) }"
    tab = browser.new_page()
    tab.add_init_script(f"window.frames_asked = 0; {count}")
    tab.goto(address)
    tab.wait_for_selector(FINISHED)
    tab.wait_for_timeout(6000)  # its first spinner runs out
    assert tab.evaluate("window.frames_asked") > 0
    tab.evaluate("window.frames_asked = 0")
    tab.wait_for_timeout(2000)
    assert tab.evaluate("window.frames_asked") < 20
    tab.close()


def test_a_page_at_rest_holds_one_connection(browser: Any, address: str) -> None:
    """A browser has six for a server that speaks HTTP/1.1: with two each, a fourth tab would stay empty."""
    for _ in range(4):
        tab, held = browser.new_page(), set()
        tab.on("request", lambda request, held=held: held.add(request.url))
        for ended in ("requestfinished", "requestfailed"):
            tab.on(ended, lambda request, held=held: held.discard(request.url))
        tab.goto(address)
        tab.wait_for_selector(FINISHED)
        tab.wait_for_timeout(500)
        assert [url.split("/")[-2] for url in held] == ["heartbeat"], held
        tab.close()


def test_an_answer_that_comes_late_takes_nothing_back(
    browser: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer of a page is held up until a later one is there: what is wrong stays marked."""
    shown, go_on, is_first = view_requests.values_on_page, threading.Event(), iter([True])

    def slow_at_first(*given: Any) -> Any:
        if next(is_first, False):
            go_on.wait(30)
        return shown(*given)

    monkeypatch.setattr(view_requests, "values_on_page", slow_at_first)
    with opened(browser, address) as tab:
        tab.get_by_label("Seed", exact=True).fill("1.5")
        tab.wait_for_selector("#seed[data-wrong]")
        go_on.set()
        tab.wait_for_timeout(2000)
        assert tab.locator("#seed[data-wrong]").count()


def test_a_number_mended_at_once_is_drawn(browser: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, refused = view_requests.read_request, threading.Event()

    def slowly_refused(*given: Any) -> Any:
        try:
            return read(*given)
        except hieramp.errors.UserError:
            refused.wait(20)
            raise

    monkeypatch.setattr(view_requests, "read_request", slowly_refused)
    with opened(browser, address) as tab:
        tab.wait_for_url("**class=airplane**")
        field = tab.get_by_label("number input for Number of images", exact=True)
        field.fill("99")
        tab.wait_for_timeout(500)  # it is being refused
        field.fill("2")
        tab.wait_for_timeout(500)
        refused.set()
        tab.get_by_text("The number of images is 99; give a whole number from 1 to").first.wait_for()
        tab.get_by_alt_text("Amplified picture of airplane, seed 1", exact=True).first.wait_for()


def test_a_study_begins_at_once_and_stops(browser: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, waits, job = threading.Event(), threading.Event(), Device.job

    @contextmanager
    def held_up(device: Device) -> Iterator[None]:
        waits.set()
        gate.wait(60)
        with job(device):
            yield

    with opened(browser, f"{address}?class=cat") as tab:
        tab.get_by_role("tab", name="What changed").click()
        monkeypatch.setattr(Device, "job", held_up)
        tab.get_by_role("button", name="Compare schedules").click()
        tab.get_by_text("Counting: the first samples are being drawn").wait_for()  # nothing is drawn yet
        assert waits.wait(60)  # a Stop before it had begun would leave nothing to say
        tab.locator("#stop-compare").click()
        gate.set()
        tab.get_by_text("Stopped: this is as far as it came.").wait_for()
        tab.wait_for_function("document.querySelector('#stop-compare').disabled")


def test_keys_move_in_radios_and_tabs_and_focus_is_seen(browser: Any, address: str) -> None:
    with opened(browser, address) as tab:
        tab.locator("#preset input:checked").focus()
        tab.keyboard.press("ArrowRight")
        tab.locator("#preset label:has-text('weak coarse') input:checked").wait_for(state="attached")
        tab.wait_for_url("**mode=attention**")
        tab.get_by_role("tab", name="Explore").focus()
        tab.keyboard.press("ArrowRight")
        tab.wait_for_selector('[role=tab][aria-selected=true]:has-text("What changed")')
        tab.get_by_label("Seed", exact=True).focus()
        tab.keyboard.press("Shift+Tab")
        tab.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement)"
        assert tab.evaluate(f"document.activeElement.type + {style}.outlineStyle") == "numbersolid"


def test_the_page_opens_where_storage_is_blocked(browser: Any, address: str) -> None:
    """As a browser has it in the frame of another site."""
    context = browser.new_context()
    for name in ("localStorage", "sessionStorage"):
        refuse = "get() { throw new DOMException('denied', 'SecurityError'); }"
        context.add_init_script(f"Object.defineProperty(window, '{name}', {{ configurable: true, {refuse} }})")
    tab, failures = context.new_page(), []
    tab.on("pageerror", lambda error: failures.append(str(error)))
    outside = address.replace("127.0.0.1", "localhost")
    frame = f"<iframe src='{address}' width=1200 height=900></iframe>"
    tab.route("**/outside", lambda route: route.fulfill(content_type="text/html", body=frame))
    tab.goto(f"{outside}outside")
    tab.frame_locator("iframe").locator(FINISHED).wait_for(timeout=PATIENCE)
    context.close()
    assert not failures


def test_a_phone_shows_the_pictures_first_and_all_rooms(browser: Any, address: str) -> None:
    with opened(browser, address, width=390) as tab:
        assert tab.locator(".viewer .stage").bounding_box()["y"] < 400
        for room in ROOMS:
            assert tab.get_by_role("tab", name=room).is_visible(), room
        assert tab.locator(".strip .labels span").nth(1).is_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390), ("light", 1024)])
def test_nothing_overflows_and_axe_finds_nothing_serious(browser: Any, address: str, scheme: str, width: int) -> None:
    with opened(browser, f"{address}?count=2", scheme, width) as tab:
        assert tab.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
        if AXE.exists():
            tab.evaluate(AXE.read_text(encoding="utf-8"))
        for room in ROOMS:
            choose(tab, room)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, room
            if AXE.exists():
                found = tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
                serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
                assert not serious, room
    if not AXE.exists():
        pytest.skip(f"the layout is right, but axe-core is not at {AXE}: npm install axe-core, and name it in AXE")


def choose(tab: Any, room: str) -> None:
    """Open a room and wait until it is all there."""
    button = tab.get_by_role("tab", name=room)
    if not button.is_visible():
        tab.locator(".overflow-menu > button").click()
        button = tab.locator(".overflow-dropdown button", has_text=room)
    button.click()
    if room == "What changed":
        tab.wait_for_function("document.querySelectorAll('.js-plotly-plot').length === 3")
