"""The page where other people host it: ZeroGPU, a frame of another site, a sub path behind nginx, the Hub."""

import functools
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import gradio as gr
import pytest

import hieramp
from app import computing, page, view_requests
from app.serve import build_parser
from app.visitor_limits import VisitorLimits

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = Path("/usr/bin/chromium")
FINISHED = '.viewer[aria-busy="false"]'
PATIENCE = 120_000


@pytest.mark.skipif(importlib.util.find_spec("spaces") is None, reason="spaces is not installed")
def test_on_zero_gpu_all_is_computed_by_one_lent_worker_for_each_kind_of_work(
    model_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "tests" / "zero_page.py"), str(model_folder), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert (tmp_path / "told.json").is_file(), ended.stdout[-2000:] + ended.stderr[-4000:]
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["while_built"] == [] and told["opened"] == ["/startup-report"]
    workers = [worker for found in told["workers"].values() for some in found for worker in some]
    assert workers and told["main"] not in workers
    for found in told["workers"].values():
        assert all(len(some) == 1 for some in found[:1])  # each was computed, by one worker
        assert len({worker for some in found for worker in some}) == 1  # and the next by the same one
    assert len(set(workers)) == 4  # grow, answer, study, distill
    assert told["saved"] == "airplane-seed0-maps.zip"
    assert told["picture_is_the_same"] and told["is_finished"] and told["wrong"].startswith("the block is 99")
    assert told["job"] == {"state": "done", "done": 4}
    assert (
        all(computing.START <= seconds <= computing.MOST for seconds in told["seconds"])
        and len(set(told["seconds"])) > 1
    )


def test_more_images_are_lent_a_gpu_for_longer(model: hieramp.Model) -> None:
    served = computing.Served(model)
    few, many = (
        view_requests.read_request(model, view_requests.defaults(model) | {"count": count})
        for count in (1, view_requests.MAX_COUNT)
    )
    assert (
        computing._seconds_of_growing(served.key, few)
        <= computing._seconds_of_growing(served.key, many)
        <= computing.MOST
    )
    asked = [computing._seconds_of_study(served.key, "count_tokens", few, samples) for samples in (1, 10**9)]
    assert asked[0] < asked[1] == computing.MOST


@contextmanager
def served(model_folder: Path, jobs: Path, **options: Any) -> Iterator[gr.Blocks]:
    demo = page.build(hieramp.load(model_folder, "cpu"), VisitorLimits(ipc=50), job_root=jobs)
    page.launch(demo, prevent_thread_lock=True, quiet=True, **options)
    try:
        yield demo
    finally:
        demo.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-features=LocalNetworkAccessChecks"]
    flags += ["--test-third-party-cookie-phaseout"]  # storage of frames of another site is blocked
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


def test_the_page_opens_in_a_frame_of_another_site_whose_storage_is_blocked(
    browser: Any, model_folder: Path, tmp_path: Path
) -> None:
    with served(model_folder, tmp_path / "jobs") as demo:
        site = tmp_path / "site"
        site.mkdir()
        frame = f'<iframe src="{demo.local_url}" width="1200" height="900"></iframe>'
        (site / "index.html").write_text(f"<!doctype html><title>Another site</title>{frame}")
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
        other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        tab = browser.new_page()
        try:
            tab.add_init_script(BLOCKED)
            tab.goto(f"http://localhost:{other.server_port}/")  # 127.0.0.1 is another site than localhost
            inside = tab.frame_locator("iframe")
            inside.locator(FINISHED).wait_for(timeout=PATIENCE)
            assert inside.get_by_alt_text("Baseline picture of airplane, seed 0", exact=True).first.get_attribute("src")
            assert tab.frames[1].evaluate("() => window.wasBlocked")
        finally:
            tab.close()
            other.shutdown()


# What Chromium does in such a frame, whatever its settings here: even asking for the storage throws.
BLOCKED = """
if (window !== top) for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, {
  configurable: true, get() { window.wasBlocked = true; throw new DOMException("Access is denied", "SecurityError"); },
});
"""

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen 127.0.0.1:{port};
    location /hieramp/ {{
      proxy_pass http://127.0.0.1:{inner}/;
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""


def free_port() -> int:
    with closing(socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_behind_nginx_under_a_sub_path_it_draws(browser: Any, model_folder: Path, tmp_path: Path) -> None:
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    args = build_parser().parse_args(["--root-path", "/hieramp"])
    with served(model_folder, tmp_path / "jobs", root_path=args.root_path) as demo:
        port, inner = free_port(), demo.server_port
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, inner=inner))
        nginx = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
        tab = browser.new_page()
        try:
            wait_for(f"http://127.0.0.1:{port}/hieramp/")
            tab.goto(f"http://127.0.0.1:{port}/hieramp/?class=frog&seed=3")
            tab.locator(f"{FINISHED}").wait_for(timeout=PATIENCE)
            tab.get_by_alt_text("Baseline picture of frog, seed 3", exact=True).first.wait_for(timeout=PATIENCE)
        finally:
            tab.close()
            nginx.terminate()
            nginx.wait()


def wait_for(address: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {address}")


@pytest.mark.parametrize("path", ["hieramp", "/", "/a b", "/a/", "http://x/y"])
def test_a_root_path_that_is_none_is_told(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["--root-path", path])
    assert stopped.value.code == 2 and "like /hieramp" in capsys.readouterr().err


def test_git_keeps_weights_as_the_hub_takes_them() -> None:
    asked = subprocess.run(
        ["git", "check-attr", "filter", "assets/cifar10/vqvae.safetensors"], cwd=ROOT, capture_output=True, text=True
    )
    if asked.returncode:
        pytest.skip("this is no checkout")
    assert asked.stdout.strip().endswith("filter: lfs")
