"""python -m app.screenshots: the pictures of the page in the README, taken in headless Chromium (needs playwright)."""

import argparse
from pathlib import Path
from typing import Any

import hieramp
from app import page

CHROMIUM = "/usr/bin/chromium"
ADDRESS = "?class=automobile&seed=3&coarse_rho=0.5"
FINISHED = '.viewer[aria-busy="false"]'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--address", default=ADDRESS, help="the settings to show (default: %(default)s)")
    args = parser.parse_args()
    demo = page.build(hieramp.load(args.model))
    page.launch(demo, prevent_thread_lock=True, quiet=True)
    try:
        take(demo.local_url + args.address, args.out)
    finally:
        demo.close()


def take(address: str, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for name, scheme, width, height, show in (
            ("explore", "light", 1440, 1100, _read_a_map),
            ("explore-dark", "dark", 1440, 1100, _compare),
            ("changed", "light", 1280, 1000, _count),
            ("ablate", "light", 1280, 800, _ablate),
            ("phone", "light", 390, 844, _scroll),
        ):
            options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": height}}
            tab = browser.new_context(**options).new_page()
            tab.set_default_timeout(120_000)
            tab.goto(address)
            tab.wait_for_selector(FINISHED)
            show(tab)
            tab.evaluate("document.activeElement.blur()")
            tab.wait_for_timeout(800)
            tab.screenshot(path=out / f"{name}.png")
            print(out / f"{name}.png")
            tab.context.close()
        browser.close()


def _read_a_map(tab: Any) -> None:
    tab.locator('[data-part="opacity"]').fill("0.4")
    tab.get_by_label("Outline chosen positions").check()
    tab.get_by_role("button", name="6×6").click()
    tab.evaluate("scrollTo(0, 0)")


def _compare(tab: Any) -> None:
    tab.get_by_role("button", name="Compare", exact=True).click()
    tab.evaluate("scrollTo(0, 0)")


def _count(tab: Any) -> None:
    tab.get_by_role("tab", name="What changed").click()
    tab.get_by_role("button", name="Count tokens").click()
    tab.get_by_role("link", name="usage.csv").wait_for()
    tab.wait_for_selector(".js-plotly-plot .bars")


def _ablate(tab: Any) -> None:
    tab.get_by_role("tab", name="Ablate").click()
    tab.get_by_role("button", name="Draw the sheet").click()
    tab.get_by_role("link", name="Save PNG").last.wait_for()
    tab.get_by_role("button", name=" mid", exact=False).first.click()


def _scroll(tab: Any) -> None:
    tab.evaluate("document.getElementById('viewer').scrollIntoView()")


if __name__ == "__main__":
    main()
