"""Several models on one server: which are offered, what a visitor takes along, and what is kept in memory."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from test_diffusion import build as build_dit

import hieramp
from app import model_pages, models, picker, serve, view_requests
from app.context import AppContext
from app.jobs import JobBook
from app.models import Offered, carried, offered
from hieramp.errors import UserError


def test_those_given_come_first_then_those_that_ship(model_folder: Path, tmp_path: Path) -> None:
    found = offered([str(model_folder), "cifar10-dit"])
    assert [one.name for one in found] == [model_folder.name, "cifar10-dit", "cifar10"]
    assert [one.kind for one in found] == ["var", "dit", "var"]
    twin = tmp_path / model_folder.name
    twin.mkdir()
    with pytest.raises(UserError, match="are both called"):
        offered([str(model_folder), str(twin)])
    assert serve.build_parser().parse_args(["--model", "a", "b"]).model == ["a", "b"]


def test_what_was_set_and_both_have_is_carried(model: hieramp.Model) -> None:
    dit = build_dit()
    given = {"class_name": 1, "seed": 7, "coarse_rho": 0.3, "mid_strength": 2.0, "guidance": 3.0, "top_k": 30}
    view_request = view_requests.read_request(model, view_requests.defaults(model) | given)
    kept = {"class": "cat", "seed": "7", "count": "1", "coarse_rho": "0.3", "guidance": "3"}
    assert carried(model, view_request, "dit") == kept  # a strength is another thing there, and top-k is not
    same = carried(model, view_request, "var")
    assert same == kept | {"mid_strength": "2", "top_k": "30"}
    assert view_requests.from_query(model, same) == view_request
    # a schedule that both have is the same schedule there, by its own strengths
    for name in ("off", "fine"):
        scheduled = view_requests.read_request(
            model, view_requests.defaults(model) | view_requests.schedule_values(name)
        )
        query = {name: text for name, text in carried(model, scheduled, "dit").items() if name != "class"}
        asked, wrong = view_requests.read_query(dit, query)
        assert (
            not wrong
            and asked.settings
            == view_requests.read_request(
                dit, view_requests.defaults(dit) | view_requests.schedule_values(name, "dit")
            ).settings
        )


def test_a_bounded_number_is_kept_and_one_that_makes_a_set_stays(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are made when asked for; the one used longest ago goes, and its weights with it."""
    known = tuple(Offered(name, str(model_folder), "var") for name in ("first", "a", "b", "c"))
    loads: dict[str, hieramp.Model] = {}

    def make(one: Offered) -> AppContext:
        loaded = hieramp.load(one.source, "cpu")
        loads[one.name] = loaded
        return AppContext.make(loaded, job_root=tmp_path / one.name, models=known)

    book = model_pages.PageBook(known, make, most=1)

    async def visit() -> None:
        await book.app_of(known[1])
        await book.app_of(known[2])
        assert book.loaded == ["b"]
        await book.app_of(known[1])  # again, from its folder
        assert book.loaded == ["a"]
        monkeypatch.setattr(JobBook, "is_busy", property(lambda jobs: True))
        await book.app_of(known[3])
        assert book.loaded == ["a", "c"]  # over the bound rather than a set broken off

    thread = threading.Thread(target=lambda: asyncio.run(visit()))  # a loop of its own, whatever runs here
    thread.start()
    thread.join()
    assert book.loaded == ["a", "c"]
    where = {name: {p.device.type for p in (*m.var.parameters(), *m.vqvae.parameters())} for name, m in loads.items()}
    assert where == {"a": {"cpu"}, "b": {"meta"}, "c": {"cpu"}}  # the weights of b are gone


def test_an_unknown_model_in_an_address_is_told(model: hieramp.Model, tmp_path: Path) -> None:
    context = AppContext.make(model, job_root=tmp_path, models=offered(["cifar10"]))
    assert picker.missing(context, {"model": "nothing"}).startswith("there is no model 'nothing' here, but cifar10,")
    assert not picker.missing(context, {}) and not picker.missing(context, {models.MODEL: "cifar10-dit"})


def test_who_waits_for_a_model_is_told_which_and_may_go_back(model_folder: Path, tmp_path: Path) -> None:
    known = tuple(Offered(name, str(model_folder), "var") for name in ("first", "<b>"))
    may_load = threading.Event()

    def context_of(one: Offered) -> AppContext:
        may_load.wait(60)
        return AppContext.make(hieramp.load(one.source, "cpu"), job_root=tmp_path / "jobs", models=known)

    async def page() -> str:
        told: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        front = model_pages.Front(receive, model_pages.PageBook(known, context_of))  # type: ignore[arg-type]
        scope = {"type": "http", "path": "/", "method": "GET", "query_string": b"model=%3Cb%3E", "headers": []}
        await front(scope, receive, send)  # type: ignore[arg-type]
        may_load.set()
        await asyncio.gather(*front.book._tasks, return_exceptions=True) if not front.book.loaded else None
        return b"".join(message.get("body", b"") for message in told).decode()

    text = asyncio.run(asyncio.wait_for(page(), 60))
    assert "Loading &lt;b&gt; from the disk …" in text and "<b>" not in text
    assert "<a href='?'>Back to first</a>" in text
