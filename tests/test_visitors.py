"""One visitor cannot shut the page for the others."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from serving import serving

import hieramp
from app import handlers, page, visitors
from app.distill_requests import DistillRequest
from app.jobs import JobBook
from app.scheduling import Device
from app.visitor_limits import VisitorLimits
from hieramp import Settings
from hieramp.errors import UserError


@pytest.fixture
def address(model: hieramp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(VisitorLimits, "waiting", 3)
    yield from serving(page.build(model, VisitorLimits(jobs_each=1), job_root=tmp_path / "jobs"))


def asked(address: str, name: str, client: str, values: dict[str, Any]) -> httpx.Response:
    where = f"{address}gradio_api/call/v2/{name}"
    return httpx.post(where, json=values, headers={"X-Forwarded-For": client}, timeout=60)


def answer(address: str, name: str, asked: httpx.Response) -> str:
    where = f"{address}gradio_api/call/{name}/{asked.json()['event_id']}"
    return httpx.get(where, timeout=120).text


def test_a_line_full_of_one_visitors_requests_takes_anothers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    generate = handlers.generate
    monkeypatch.setattr(handlers, "generate", lambda *given: go_on.wait(120) and generate(*given))
    try:
        answers = [asked(address, "generate", "10.0.0.1", {"class_name": "cat"}) for _ in range(6)]
        refused = [each for each in answers if each.status_code != 200]
        assert [each.status_code for each in answers[:3]] == [200] * 3 and len(refused) >= 2
        assert "3 of your requests are waiting already: let them finish first" in refused[0].text
        assert asked(address, "generate", "spoofed, 10.0.0.1", {"class_name": "cat"}).status_code == 503
        other = asked(address, "generate", "10.0.0.2", {"class_name": "cat"})
        assert other.status_code == 200
    finally:
        go_on.set()
    assert "event: complete" in answer(address, "generate", other)


def test_sets_are_counted_by_visitor(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobBook, "_advance", lambda *_: True)  # none ever ends
    recipe = {"classes": "cat", "ipc": 1}
    said = [answer(address, "distill", asked(address, "distill", f"10.0.0.{client}", recipe)) for client in (1, 1, 2)]
    assert "event: complete" in said[0] and "event: complete" in said[2]
    assert "event: error" in said[1]


def test_places_are_shared_and_unfinished_sets_are_bounded(
    model: hieramp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobBook, "_enqueue", lambda *_: None)
    book = JobBook(model, tmp_path, Device(), VisitorLimits(jobs_each=2, unfinished_each=3, jobs=5))
    recipe = DistillRequest((0,), 1, 0, Settings(), False, "set")
    jobs = [book.start(recipe, "a") for _ in range(2)]
    with pytest.raises(UserError, match="2 sets of yours are being made, as many as one visitor may"):
        book.start(recipe, "a")
    book.start(recipe, "b")
    for _ in range(2):
        for job in jobs:
            job.state = "stopped"
        if len(book._jobs) < 4:
            jobs.append(book.start(recipe, "a"))
    with pytest.raises(UserError, match="3 sets of yours are kept unfinished"):
        book.start(recipe, "a")
    resumed = book.resume(jobs[0].id)
    assert resumed is not None and resumed.is_active
    book.close()


def test_an_hours_uploads_are_bounded() -> None:
    allowance = visitors.UploadAllowance(lambda *_: None, most=100)  # type: ignore[arg-type, return-value]
    assert allowance.allows("a", 60, 0) and not allowance.allows("a", 60, 10) and allowance.allows("a", 40, 20)
    assert allowance.allows("b", 100, 30) and not allowance.allows("c", 101, 30)
    assert allowance.allows("a", 60, 3601) and not allowance.allows("a", 60, 3602)
    assert set(allowance._sent) == {"a", "b"}


def test_an_upload_too_many_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, picture = f"{address}gradio_api/upload", {"files": ("x.png", b"x" * 1000)}
    assert httpx.post(where, files=picture, timeout=60).status_code == 200
    monkeypatch.setattr(visitors.UploadAllowance, "allows", lambda self, client, size, now: size < 100)
    refused = httpx.post(where, files=picture, timeout=60)
    assert refused.status_code == 429 and "200 MB in the last hour" in refused.text


def test_whose_a_request_is() -> None:
    def request(host: str, forwarded: str | None) -> Any:
        headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
        return SimpleNamespace(headers=headers, client=SimpleNamespace(host=host))

    assert visitors.client_of(request("1.2.3.4", None)) == "1.2.3.4"
    for proxy in ("127.0.0.1", "10.0.0.7", "::1"):
        assert visitors.client_of(request(proxy, "6.6.6.6, 1.2.3.4")) == "1.2.3.4"
    assert visitors.client_of(request("1.2.3.4", "5.6.7.8")) == "1.2.3.4"  # says it of itself
    assert visitors.current() == ""
