"""What the page does, as plain functions: orders, scenes, sheets, counts, turns and jobs. No server, no browser."""

import base64
import io
import json
import math
import os
import re
import runpy
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

import hieramp
from app import (
    context,
    distill_requests,
    distill_tab,
    handlers,
    page,
    plots,
    restoring,
    study,
    view_models,
    view_requests,
    words,
)
from app.jobs import Job, JobBook
from app.scheduling import Device, DeviceQueue
from app.visitor_limits import VisitorLimits
from hieramp import SCHEDULES
from hieramp.analysis.schedules import compare_schedules, count_tokens
from hieramp.generation.memory import RecentDrawings

ROOT = Path(__file__).resolve().parent.parent
REQUEST = {"class_name": "cat", "seed": 7, "count": 2}


def an_order(model: hieramp.Model, **changes: Any) -> view_requests.ViewRequest:
    return view_requests.read_request(model, {**view_requests.defaults(model), **REQUEST, **changes})


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))


# Orders


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_name": "unicorn"}, "unknown class 'unicorn'"),
        ({"class_name": "../x"}, "unknown class '../x'"),
        ({"class_name": None}, "no class is chosen"),
        ({"class_name": 4}, "class 4 does not exist"),
        ({"seed": None}, "the seed is empty"),
        ({"seed": math.nan}, "the seed is nan"),
        ({"seed": -1}, "the seed is -1"),
        ({"count": 1e9}, "the number of images is 1e+09; give a whole number from 1 to 8"),
        ({"count": 1.5}, "the number of images is 1.5"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"top_k": 1.5}, "top k is 1.5"),
        ({"top_p": 2}, "top p is 2"),
        ({"mid_temperature": -0.5}, "mid temperature is -0.5"),
        ({"guidance_power": -1}, "guidance power is -1"),
        ({"fine_temperature": None}, "fine temperature is empty"),
        ({"coarse_rho": 0.0}, "coarse rho is 0; it must be a number over 0"),
        ({"mid_rho": math.nan}, "mid rho is nan"),
        ({"fine_strength": math.inf}, "fine strength is inf"),
        ({"fine_strength": "5"}, "fine strength is '5'; give a number"),
        ({"mode": "other"}, "mode is 'other'"),
        ({"positions": "3"}, "cannot read the positions '3'"),
        ({"positions": "3:-1"}, "cannot read the positions '3:-1'"),
        ({"positions": "0:1"}, "scale 0 has no stage"),
        ({"positions": "9:1"}, "scale 9 does not exist"),
        ({"positions": "3:10000"}, "position 16 does not exist: scale 3 has positions 0 to 15"),
        ({"positions": "3:" + "f" * 10**5}, "cannot read the positions"),
        ({"blocks": "4,"}, "'4,' is not a list of blocks like 4,5"),
        ({"blocks": "4"}, "block 4 does not exist"),
    ],
)
def test_a_bad_field_is_one_clear_sentence(model: hieramp.Model, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        an_order(model, **changes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positions": "2:1f;5:8000000000000001"},
        {"blocks": "0,3", "scales": "2,3", "where": "random"},
        {"mode": "attention", "top_p": 0.3},
        {"coarse_temperature": 0.0, "fine_temperature": 0.65, "guidance_power": 0.5},
    ],
)
def test_an_address_and_a_picture_give_their_order_back(model: hieramp.Model, changes: dict[str, Any]) -> None:
    view_request = an_order(model, coarse_strength=0.1, guidance=2.5, **changes)
    assert view_requests.from_query(model, view_requests.to_query(model, view_request)) == view_request
    stored = json.loads(json.dumps(view_requests.described(model, view_request)))
    assert view_requests.from_picture(model, stored) == view_request and not view_requests.remarks(model, stored)
    assert view_requests.read_request(model, view_requests.values_of(model, view_request)) == view_request
    one = view_requests.from_picture(model, view_requests.described_one(model, view_request, 8, 0))
    assert one.seeds == (8,) and one.settings.is_off


def test_an_address_may_leave_things_out_but_not_lie(model: hieramp.Model) -> None:
    assert view_requests.from_query(model, {}) == view_requests.first_request(model)
    assert view_requests.from_query(model, {"class": "dog", "__theme": "dark"}).label == 2
    for query, sentence in [({"seed": "x"}, "seed is 'x'; give a number"), ({"mid_rho": "0"}, "mid rho is 0")]:
        with pytest.raises(ValueError, match=sentence):
            view_requests.from_query(model, query)


def test_what_a_slider_cannot_show_is_not_put_into_it(model: hieramp.Model) -> None:
    view_request = an_order(model, guidance=10.0)
    assert view_requests.values_on_page(model, view_request) == view_requests.values_of(model, view_request)
    for changes, said in [
        ({"guidance": 15}, "guidance is 15, but this page goes from 0 to 10"),
        ({"top_k": 901}, "900"),
        ({"fine_temperature": 2}, "fine temperature is 2, but this page goes from 0 to 1.5"),
    ]:
        with pytest.raises(ValueError, match=said):
            view_requests.values_on_page(model, an_order(model, **changes))


@pytest.mark.parametrize("settings", [{}, {"mode": "logit"}, {"mode": "logit", "seeds": []}, {"seeds": "x"}])
def test_settings_that_lack_something_are_refused(model: hieramp.Model, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not complete"):
        view_requests.from_picture(model, settings)


def test_a_picture_of_another_model_or_precision_says_so_and_keeps_its_blocks(model: hieramp.Model) -> None:
    stored = view_requests.described(model, an_order(model, blocks="1,3"))
    assert view_requests.from_picture(model, stored).settings.blocks == (1, 3)
    other = {**stored, "model": "var-d16", "dtype": "bfloat16"}
    assert view_requests.from_picture(model, other).settings.blocks == (1, 3)
    by_model, by_dtype = view_requests.remarks(model, other)
    assert "drawn by var-d16, this page draws by tiny" in by_model
    assert "drawn in bfloat16, this page draws in float32" in by_dtype
    with pytest.raises(ValueError, match="block 14 does not exist"):
        view_requests.from_picture(model, {**stored, "blocks": [14]})
    with pytest.raises(ValueError, match="'swirl' is no setting of this version"):
        view_requests.from_picture(model, {**stored, "swirl": 3})


def test_pictures_and_addresses_of_earlier_versions_are_read(model: hieramp.Model) -> None:
    page = {
        "model": "tiny", "class": "cat", "label": 1, "seeds": [7], "mode": "logit", "blocks": [2],
        "stages": {"coarse": [0.5, 5.0], "mid": [0.5, 2.0], "fine": None}, "painted": "3:1f",
        "guidance": 4.0, "top_k": 900, "top_p": 0.95, "temperature": [1.0, 1.0, 0.6], "hieramp": "0.1.0",
    }  # fmt: skip
    view_request = view_requests.from_picture(model, page)
    assert view_request.settings.named_positions == {3: (0, 1, 2, 3, 4)} and view_request.settings.blocks is None
    assert view_request.settings.mid == (0.5, 2.0) and view_request.settings.temperature == (1, 1, 0.6)
    command = {k: v for k, v in page.items() if k != "painted"} | {"where": "least", "dtype": "float32"}
    assert view_requests.from_picture(model, command).settings.where == "least"
    query = "class=cat&seed=7&count=1&guidance=4&top_k=900&top_p=0.95&coarse_rho=0.5&coarse_strength=5&mid_rho=0.5"
    query += "&mid_strength=2&fine_rho=0.5&fine_strength=0&mode=logit&paint=3:1f&fine_temperature=0.6"
    old = view_requests.from_query(model, dict(item.split("=") for item in query.split("&")))
    assert old.settings == view_request.settings


def test_schedules_are_recognised_wherever_they_apply(model: hieramp.Model) -> None:
    for name, amplification in SCHEDULES.items():
        view_request = an_order(
            model, **view_requests.schedule_values(name), blocks="1", guidance_power=0.5, coarse_temperature=0.5
        )
        stages = model.var.scales
        assert [view_request.settings.at(s, stages) for s in range(6)] == [
            amplification.at(s, stages) for s in range(6)
        ]
        assert view_request.settings.schedule == name and view_request.settings.blocks == (1,)
    assert an_order(model, coarse_rho=0.4).settings.schedule is None
    assert an_order(model, positions="3:1").settings.schedule is None


def test_the_page_shows_the_schedule_of_what_is_asked(model: hieramp.Model, tmp_path: Path) -> None:
    """The very chain of the page: what its controls hold goes in, the chip to be marked comes out."""
    asked = page_functions(model, tmp_path)["_ask"]
    controls = asked.__self__.controls
    for name in SCHEDULES:
        values = {**view_requests.defaults(model), **view_requests.schedule_values(name)}
        given = {component: values[key] for key, component in controls.named.items()}
        assert asked(gr.Request(session_hash="ann"), given | {controls.schedule: None})[2] == name
        assert asked(gr.Request(session_hash="ann"), given | {controls.schedule: name})[2] == gr.skip()  # as it is


def page_functions(model: hieramp.Model, folder: Path) -> dict[str, Any]:
    """What the events of the page call, by the names of the functions."""
    demo = page.build(model, job_root=folder)
    return {getattr(fn.fn, "__name__", ""): fn.fn for fn in demo.fns.values()}


def test_labels_say_which_scales_they_mean(model: hieramp.Model) -> None:
    named = {part.name: part for part in hieramp.Settings.parts()}
    assert view_requests.label_of(model, named["coarse_rho"], "logit") == "coarse ρ (scale 1)"
    assert view_requests.label_of(model, named["mid_strength"], "logit") == "mid β (scales 2–3)"
    assert view_requests.label_of(model, named["fine_strength"], "attention") == "fine γ (scales 4–5)"
    assert view_requests.label_of(model, named["fine_temperature"], "logit") == "fine temperature (scales 4–5)"


def test_a_caption_names_all_that_is_not_as_usual(model: hieramp.Model) -> None:
    view_request = an_order(model, top_k=30, fine_temperature=0.6, guidance_power=0.5, blocks="0,1", where="least")
    assert view_requests.caption(view_request) == (
        "Seeds 7–8. Guidance 4, top-k 30, temperature coarse=1,mid=1,fine=0.6, guidance power 0.5. "
        "β: coarse 5 on 50%, mid 5 on 50%, fine 5 on 50% of the positions. Blocks 0,1. Positions chosen least."
    )


# Scenes


def test_scenes_grow_by_a_scale_and_end_with_what_generate_draws(model: hieramp.Model, tmp_path: Path) -> None:
    view_request = an_order(model)
    grown = list(handlers.grow(model, view_request))
    assert [len(view_model["steps"]) for view_model in grown] == [1, 2, 3, 4, 5, 6]
    assert all(view_model["finals"] is None for view_model in grown[:-1])
    amplification = SCHEDULES["all"]
    drawing = model.generate([1] * 4, [7, 8, 7, 8], [None, None, amplification, amplification])
    path = tmp_path / "saved.png"
    for row, final in enumerate(grown[-1]["finals"]):
        expected = hieramp.figures.to_picture(drawing.images[row])
        assert decoded(final["uri"]).tobytes() == expected.tobytes()
        assert decoded(grown[-1]["steps"][-1]["images"][row]).tobytes() == expected.tobytes()
        path.write_bytes(base64.b64decode(final["uri"].partition(",")[2]))
        settings = hieramp.figures.read_settings(path)
        assert settings["seeds"] == [7 + row % 2] and (settings["stages"]["mid"] is None) == (row < 2)
    for scale, step in enumerate(grown[-1]["steps"]):
        assert step["maps"] == [pytest.approx(m.flatten().tolist(), abs=1e-6) for m in drawing.saliency[scale]]
        differ = drawing.tokens[scale][:2] != drawing.tokens[scale][2:]
        assert step["changed"] == [row.nonzero().flatten().tolist() for row in differ]


def test_scenes_name_the_chosen_positions_and_the_beliefs(model: hieramp.Model) -> None:
    *_, view_model = handlers.grow(model, an_order(model, positions="3:11", mid_strength=2.0))
    steps = view_model["steps"]
    assert steps[0]["chosen"] is None and steps[3]["chosen"] == [[0, 4]] * 4
    for step, n in zip(steps[4:], (6, 8), strict=True):
        for values, chosen in zip(step["maps"], step["chosen"], strict=True):
            assert len(chosen) == n * n // 2
            assert min(values[i] for i in chosen) >= sorted(values)[n * n // 2] - 1e-6
    for names_and_shares in steps[2]["beliefs"]:
        shares = [share for _, share in names_and_shares]
        assert sum(shares) == pytest.approx(1, abs=1e-4) and shares == sorted(shares, reverse=True)  # 4 classes in all
        assert {name for name, _ in names_and_shares} == set(model.class_names)


def test_a_closer_look_holds_every_head_and_their_mean(model: hieramp.Model, plain_model: hieramp.Model) -> None:
    view_request, memory = an_order(model), RecentDrawings()
    *_, view_model = handlers.grow(model, view_request, memory)
    closer = handlers.block_view(model, view_request, sample=1, block=2, memory=memory)
    assert [len(maps[0]) for maps in closer["maps"]] == [3] * 6  # the mean and two heads
    for side, row in ((0, 1), (1, 3)):  # block 2 = depth - 2 is the one that is amplified
        assert closer["maps"][4][side][0] == pytest.approx(view_model["steps"][4]["maps"][row], abs=2e-6)
        mean, *heads = closer["maps"][4][side]
        assert mean == pytest.approx([sum(pair) / 2 for pair in zip(*heads, strict=True)], abs=2e-6)
    for sample, block in [(2, 0), (0, 4), (math.nan, 0), (None, None)]:
        with pytest.raises(ValueError, match="the (sample|block) is"):
            handlers.block_view(model, view_request, sample, block)
    with pytest.raises(ValueError, match="has no class tokens"):
        handlers.block_view(plain_model, view_request, 0, 0)


def test_names_of_files_suit_every_system() -> None:
    assert view_models.file_name("tench, Tinca tinca", "seed3.png") == "tench-seed3.png"
    assert (
        view_models.file_name("../<x>", "seed3.png") == "x-seed3.png" and view_models.file_name("猫", "a") == "class-a"
    )


# Sheets and counts


def test_counts_are_those_of_the_tokens_drawn(model: hieramp.Model) -> None:
    *_, count = count_tokens(model, 1, 10, SCHEDULES["all"], first_seed=3)
    seeds = list(range(3, 13))
    drawn = model.generate([1] * 10, seeds), model.generate([1] * 10, seeds, SCHEDULES["all"])
    assert count.is_finished and count.num_samples == 10
    for scale in range(6):
        tokens = [d.tokens[scale] for d in drawn]
        for usages, t in zip(count.per_scale, tokens, strict=True):
            assert usages[scale].coverage == t.unique().numel() / 64 and usages[scale].num_tokens == t.numel()
        differ = (tokens[0] != tokens[1]).float().mean(0).view(len(count.changed[scale]), -1)
        assert count.changed[scale] == [pytest.approx(row) for row in differ.tolist()]


def test_schedules_are_compared_over_the_classes(model: hieramp.Model) -> None:
    *_, comparison = compare_schedules(model, [0, 2], 3)
    assert comparison.is_finished and list(comparison.risen) == [name for name in SCHEDULES if name != "off"]
    rose = 0
    for label in (0, 2):
        *_, count = count_tokens(model, label, 3, SCHEDULES["coarse"])
        rose += count.per_stage[1]["fine"].entropy > count.per_stage[0]["fine"].entropy
    assert comparison.risen["coarse"]["fine"].entropy == rose / 2


def test_plots_and_csv_hold_the_figures(model: hieramp.Model) -> None:
    *_, count = count_tokens(model, 1, 2, SCHEDULES["all"])
    sides = model.var.scales.sides
    figure = plots.usage_figure(count, sides)
    entropy = figure.data[0]
    assert list(entropy.x[1]) == ["1×1", "2×2", "3×3", "4×4", "6×6", "8×8", "coarse", "mid", "fine"]
    assert list(entropy.x[0]) == ["scale"] * 6 + ["stage"] * 3
    assert entropy.y[5] == count.per_scale[0][5].entropy
    line = plots.usage_csv(count, sides).splitlines()[9].split(",")
    assert line[0] == "fine" and float(line[3]) == count.per_stage[1]["fine"].entropy
    assert len(plots.changed_csv(count).splitlines()) == 131
    assert len(plots.changed_figure(count, sides).data) == 6
    *_, comparison = compare_schedules(model, [0, 1], 1)
    assert len(plots.risen_csv(comparison).splitlines()) == 22
    assert "2 of 2 classes" in plots.risen_words(comparison) and len(plots.risen_figure(comparison).data) == 6


# Turns and the device


def test_a_newer_ticket_makes_the_older_stale() -> None:
    scheduling = DeviceQueue()
    first, other, second = scheduling.take("ann"), scheduling.take("bob"), scheduling.take("ann")
    assert scheduling.is_stale("ann", first)
    assert not scheduling.is_stale("ann", second) and not scheduling.is_stale("bob", other)
    scheduling.take("ann/tour")
    scheduling.forget("ann")  # and what else she asked for
    assert scheduling._newest == {"bob": other}


def test_drawings_go_before_jobs_but_not_for_ever() -> None:
    device, log = Device(patience=0.2), []
    drawing = device.taken_for(iter([1, 2]))
    next(drawing)
    waiting = threading.Thread(target=lambda: [log.append("job") for _ in [0] for _ in device.in_gaps(iter([1]))])
    waiting.start()
    time.sleep(0.05)
    assert not log  # the drawing has been announced, though nothing is computed just now
    waiting.join(5)
    assert log == ["job"]
    drawing.close()
    with device.job():
        pass


# Jobs


class Gate(Device):
    """Lets a job have as many batches as it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = threading.Semaphore(0)

    @contextmanager
    def job(self) -> Iterator[None]:
        self.batches.acquire()
        yield

    def open(self) -> None:
        for _ in range(10_000):
            self.batches.release()


def a_recipe(model: hieramp.Model, **changes: Any) -> distill_requests.DistillRequest:
    given = {"classes": ["cat", "dog"], "ipc": 6, "set_seed": 1, "soft_labels": False, **changes}
    return distill_requests.read_distill_request(
        model, VisitorLimits(), {**view_requests.defaults(model), "class_name": None, "count": None, **given}
    )


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_job_stops_resumes_and_outlives_its_server(model: hieramp.Model, tmp_path: Path) -> None:
    gate = Gate()
    book = JobBook(model, tmp_path, gate, VisitorLimits())
    job = book.start(a_recipe(model))
    assert job.state == "waiting" and len(job.id) >= 32
    for _ in range(4):
        gate.batches.release()
    until(lambda: job.done)
    assert "of 12 images" in distill_tab.job_html(job, 1) and "1 other job takes turns" in distill_tab.job_html(job, 1)
    book.stop(job.id)
    gate.open()
    until(lambda: job.state == "stopped")
    done = job.done
    assert 0 < done < 12
    book.close()
    anew = JobBook(model, tmp_path, Gate(), VisitorLimits())
    found = anew.get(job.id)
    assert found is not None and found.state == "stopped" and found.distill_request == job.distill_request
    anew.resume(job.id)
    anew.device.open()  # type: ignore[attr-defined]
    until(lambda: found.state == "done")
    assert "12 of 12 images: finished" in distill_tab.job_html(found)
    with hieramp.open_set(found.path) as image_set:
        assert len(image_set) == 12 and set(image_set.labels) == {1, 2}
    *_, last = hieramp.distill(model, 6, tmp_path / "alone.zip", classes=[1, 2], seed=1)
    assert last.path.read_bytes() == found.path.read_bytes()
    anew.close()
    assert JobBook(model, tmp_path, Gate(), VisitorLimits()).get(job.id).state == "done"  # type: ignore[union-attr]


def test_jobs_take_turns(model: hieramp.Model, tmp_path: Path) -> None:
    gate = Gate()
    book = JobBook(model, tmp_path, gate, VisitorLimits())
    both = [book.start(a_recipe(model, set_seed=seed)) for seed in (1, 2)]
    for _ in range(6):
        gate.batches.release()
    until(lambda: all(0 < job.done < 12 for job in both))
    gate.open()
    until(lambda: all(job.state == "done" for job in both))
    assert both[0].path.read_bytes() != both[1].path.read_bytes()
    book.close()


def test_caps_and_unknown_jobs(model: hieramp.Model, tmp_path: Path) -> None:
    gate = Gate()
    book = JobBook(model, tmp_path, gate, VisitorLimits(jobs=1, keep_hours=1))
    job = book.start(a_recipe(model))
    with pytest.raises(ValueError, match="1 sets are being made, as many as this server takes"):
        book.start(a_recipe(model))
    assert book.get("x") is book.get("") is book.get(None) is book.stop("../..") is book.resume("x") is None
    gate.open()
    until(lambda: job.state == "done")
    book.sweep()
    assert book.get(job.id) is job
    job.path.unlink()
    assert book.get(job.id).state == "stopped" and "cleared away" in job.message  # type: ignore[union-attr]
    job.seen -= 2 * 3600
    os.utime(job.folder / "job.json", (job.seen, job.seen))
    book.sweep()
    assert book.get(job.id) is None and not job.folder.exists()
    book.close()


def at_once(count: int, function: Any) -> list[Any]:
    """What threads that call a function together got, errors included."""
    begin, got = threading.Barrier(count), []

    def call() -> None:
        begin.wait()
        try:
            got.append(function())
        except ValueError as error:
            got.append(error)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_two_clicks_on_resume_begin_one_run(
    model: hieramp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    book, make, made = JobBook(model, tmp_path, gate, VisitorLimits()), JobBook._make, []

    def slowly(book: JobBook, job: Job) -> Any:
        made.append(job)
        time.sleep(0.2)
        return make(book, job)

    job = book.start(a_recipe(model))
    book.stop(job.id)
    gate.open()
    until(lambda: job.state == "stopped")
    monkeypatch.setattr(JobBook, "_make", slowly)
    assert at_once(3, lambda: book.resume(job.id)) == [job] * 3 and made == [job]
    until(lambda: job.state == "done")
    book.close()


def test_clicks_at_once_take_no_more_room_than_there_is(
    model: hieramp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, make = Gate(), JobBook._make
    book = JobBook(model, tmp_path, gate, VisitorLimits(jobs=2))
    monkeypatch.setattr(JobBook, "_make", lambda book, job: (time.sleep(0.2), make(book, job))[1])
    got = at_once(4, lambda: book.start(a_recipe(model)))
    assert sum(isinstance(one, Job) for one in got) == 2
    monkeypatch.setattr(JobBook, "_make", lambda book, job: 1 / 0)
    for one in got:
        if isinstance(one, Job):
            one.state = "stopped"
    for job in list(book._jobs.values()):
        with pytest.raises(ZeroDivisionError):
            book.resume(job.id)
        assert job.state == "stopped"
    with pytest.raises(ZeroDivisionError):
        book.start(a_recipe(model))
    assert len(book._jobs) == 2
    gate.open()
    book.close()


def test_sets_are_bounded_in_images_and_on_the_disk(model: hieramp.Model, tmp_path: Path) -> None:
    values = {**view_requests.defaults(model), "ipc": 6, "set_seed": 0}
    with pytest.raises(ValueError, match="24 images are more than a set may have here, 23: take fewer"):
        distill_requests.read_distill_request(model, VisitorLimits(images=23), values)
    assert distill_requests.read_distill_request(model, VisitorLimits(images=24), values).num_images == 24
    pixels = 3 * model.image_size**2
    gate = Gate()
    book = JobBook(model, tmp_path, gate, VisitorLimits(disk_bytes=30 * pixels))
    job = book.start(a_recipe(model))
    second = book.start(a_recipe(model, set_seed=2))
    with pytest.raises(ValueError, match=r"this set may take [\d.]+ MB, and [\d.]+ MB are left for sets here"):
        book.start(a_recipe(model, set_seed=3))
    gate.open()
    until(lambda: job.state == second.state == "done")
    with pytest.raises(ValueError, match="this set may take"):  # finished sets take room as well
        book.start(a_recipe(model, set_seed=3))
    job.seen = 0
    os.utime(job.folder / "job.json", (0, 0))
    book.start(a_recipe(model, set_seed=3))
    book.close()


def test_a_look_counts_after_a_restart(model: hieramp.Model, tmp_path: Path) -> None:
    gate = Gate()
    book = JobBook(model, tmp_path, gate, VisitorLimits(keep_hours=48))
    looked, forgotten = (book.start(a_recipe(model, set_seed=seed)) for seed in (1, 2))
    gate.open()
    until(lambda: looked.state == forgotten.state == "done")
    days_ago = time.time() - 72 * 3600
    for job in (looked, forgotten):
        os.utime(job.folder / "job.json", (days_ago, days_ago))
    book.get(looked.id)
    book.close()
    anew = JobBook(model, tmp_path, Gate(), VisitorLimits(keep_hours=48))
    anew.sweep()
    assert anew.get(looked.id) is not None and anew.get(forgotten.id) is None


def test_a_job_past_its_time_is_stopped_and_can_go_on(model: hieramp.Model, tmp_path: Path) -> None:
    book = JobBook(model, tmp_path, Device(), VisitorLimits(job_minutes=1))
    job = Job("x", tmp_path / "x", a_recipe(model), seconds_used=61.0)
    assert not book._advance(job, iter(()))
    assert (job.state, job.message) == ("stopped", "Stopped after 1 min, the cap here; resume to go on.")
    assert VisitorLimits().job_time == "12 h" and VisitorLimits(job_minutes=90).job_time == "1 h 30 min"


def test_a_job_that_fails_says_so_and_leaves_the_others_alone(model: hieramp.Model, tmp_path: Path) -> None:
    def failing(error: Exception) -> Iterator[Any]:
        yield from ()
        raise error

    book = JobBook(model, tmp_path, Device(), VisitorLimits())
    for error, said in [
        (ValueError("no."), "no."),
        (OSError(28, "No space left on device"), "The disk failed: No space left on device. Resume to try again."),
        (RuntimeError("secret path"), "The computation failed: RuntimeError. Resume to try again."),
    ]:
        job = Job("x", tmp_path / "x", a_recipe(model))
        assert not book._advance(job, failing(error))
        assert (job.state, job.message) == ("failed", said)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ipc": 1e9}, "the number of images per class is 1e+09; give a whole number from 1 to 1000"),
        ({"ipc": 0}, "the number of images per class is 0"),
        ({"classes": ["../x"]}, "unknown class '../x'"),
        ({"classes": "cat,unicorn"}, "unknown class 'unicorn'"),
        ({"set_seed": -1}, "the seed of the set is -1"),
        ({"soft_labels": True}, "soft labels need a classifier, and tiny has none"),
    ],
)
def test_a_bad_recipe_is_one_clear_sentence(model: hieramp.Model, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        a_recipe(model, **changes)


def test_no_class_chosen_means_all(model: hieramp.Model) -> None:
    assert a_recipe(model, classes=[]).labels == a_recipe(model, classes="").labels == (0, 1, 2, 3)
    assert a_recipe(model, classes="dog, 1,dog").labels == (1, 2)


# Start


def test_a_bad_port_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "app.py"))["main"]
    for arguments, said in [
        (["--port", "70000"], "argument --port: '70000' is not a port: give a number from 1 to 65535"),
        (["--max-ipc", "0"], "argument --max-ipc: '0' is not a cap: give a whole number from 1 to 1000000"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"error: {said}\n"


def test_mcp_without_its_package_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = runpy.run_path(str(ROOT / "app.py"))["main"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main(["--mcp"])
    said = 'error: --mcp needs another package: run pip install "gradio[mcp]", or leave --mcp out\n'
    assert (ended.value.code, capsys.readouterr().err) == (2, said)


def test_a_bad_model_ends_with_one_sentence() -> None:
    command = [sys.executable, "app.py", "--model", "no-such-model"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "there is no model 'no-such-model'" in done.stderr and done.stderr.count("\n") == 1


# What is said, and what may not be said

HOSTILE = "<form action=https://evil.example><img src=x onerror=alert(1)></form>"


def test_no_tag_and_no_folder_gets_into_a_sentence() -> None:
    said = words.shown(f"unknown class {HOSTILE!r}; cannot read '/tmp/gradio/ab12/{HOSTILE}.png'")
    assert "<" not in said and "/tmp" not in said and said.startswith("Unknown class '&lt;form")
    for text, left in [
        ("/tmp/gradio/1f/a b.png is not an image", "a b.png is not an image"),
        (r"C:\\Users\\me\\x.png is missing".replace("\\\\", "\\"), "x.png is missing"),
        (
            "give 4,5 or 1/2, see https://arxiv.org/abs/2603.06932",
            "give 4,5 or 1/2, see https://arxiv.org/abs/2603.06932",
        ),
    ]:
        assert words.without_folders(text) == left


def test_what_a_toast_warns_of_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: said.append(text))
    context.warn(f"this address: {HOSTILE}")
    with pytest.raises(gr.Error) as caught, context.sentences():
        raise hieramp.errors.UserError(f"/srv/secret/place/{HOSTILE}")
    said.append(str(caught.value.message))
    assert not [text for text in said if "<" in text or "/srv" in text]


def test_names_in_tables_links_and_sheets_are_escaped(model: hieramp.Model) -> None:
    html = study.said(HOSTILE, "", {"class": HOSTILE}, [HOSTILE])
    html += study.link(HOSTILE, "", {"class": HOSTILE})
    assert "<form" not in html and "<img src=x" not in html


@pytest.mark.parametrize("kind", ["foreign", "fake", "damaged"])
def test_a_picture_that_cannot_be_opened_says_why_but_not_where_it_lies(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.png"
    picture = Image.new("RGB", (4, 4))
    if kind == "foreign":
        picture.save(path)
    elif kind == "fake":
        path.write_text("<script>")
    else:
        path.write_bytes(hieramp.figures.png_bytes(picture, {"a": 1}).replace(b'{"a": 1}', b'{"a": 1]'))
    with pytest.raises(hieramp.errors.UserError) as caught:
        restoring.settings_inside(path)
    assert str(tmp_path) not in str(caught.value) and "picture" in str(caught.value)


def test_a_failed_job_does_not_name_folders(
    model: hieramp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Iterator[Any]:
        raise hieramp.errors.UserError(f"{tmp_path}/set.zip holds other settings")
        yield

    monkeypatch.setattr(hieramp, "distill", fails)
    book = JobBook(model, tmp_path / "jobs", Device(), VisitorLimits())
    asked = view_requests.defaults(model) | {"classes": "cat", "ipc": 1, "set_seed": 0}
    job = book.start(distill_requests.read_distill_request(model, VisitorLimits(), asked))
    wait_until = time.monotonic() + 30
    while job.is_active and time.monotonic() < wait_until:
        time.sleep(0.02)
    book.close()
    assert job.state == "failed" and job.message == "set.zip holds other settings"


# Modes, dice, links and sheets


def test_another_mode_keeps_off_off_and_does_not_call_beta_gamma() -> None:
    values = {"coarse_strength": 5.0, "mid_strength": 0.0, "fine_strength": 0.7}
    changed_to, said = view_requests.in_mode(values, "attention")
    assert changed_to == {"coarse_strength": 10.0, "mid_strength": 1.0, "fine_strength": round(math.exp(0.7), 2)}
    assert said == ["coarse: β 5 is γ 148, which the slider does not reach: it is now 10"]
    back, said = view_requests.in_mode({"coarse_strength": 10.0, "mid_strength": 1.0, "fine_strength": 0.5}, "logit")
    assert back == {"coarse_strength": round(math.log(10), 2), "mid_strength": 0.0, "fine_strength": 0.0}
    assert len(said) == 1 and said[0].startswith("fine: γ 0.5 is β -0.693")
    assert view_requests.in_mode(dict.fromkeys(values, None), "logit")[0] == dict.fromkeys(values, 0.0)


def test_dice_and_random_never_give_what_is_there(model: hieramp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers.secrets, "randbelow", lambda most: 2)
    assert handlers.random_class(model, 2) != 2 and handlers.random_seed(2) != 2
    assert handlers.random_class(model, 1) == 2 and handlers.random_seed(None) == 2


def test_one_bad_value_of_an_address_leaves_the_rest(model: hieramp.Model) -> None:
    query = {"class": "dog", "seed": "-5", "mid_strength": "3", "fine_rho": "x", "mode": "attention", "guidance": "12"}
    view_request, wrong = view_requests.read_query(model, query)
    assert view_request.label == 2 and view_request.seeds == (0,) and view_request.settings.mode == "attention"
    assert view_request.settings.mid == (0.5, 3.0)
    assert len(wrong) == 3 and "the seed is -5" in wrong[0] and "fine rho" in wrong[1] and "guidance is 12" in wrong[2]
    assert view_requests.read_query(model, {}) == (view_requests.first_request(model), [])


def test_fields_that_cannot_be_drawn_are_named(model: hieramp.Model) -> None:
    values = view_requests.defaults(model) | {"seed": -1, "class_name": HOSTILE, "mid_rho": 1.7, "count": 1.5}
    assert view_requests.wrong_names(model, values) == ["class_name", "seed", "count", "mid_rho"]
    assert not view_requests.wrong_names(model, view_requests.defaults(model))


def test_a_number_reaches_the_server_as_it_was_typed() -> None:
    for component in (context.slider(1, 8, 1, 1, "x", precision=0), context.as_given(gr.Number(0, precision=0))):
        assert component.preprocess(1.5) == 1.5 and component.preprocess(20) == 20


def test_the_order_as_python_and_as_a_command_draws_the_same(
    model: hieramp.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    view_request = an_order(
        model, positions="3:ff", top_k=30, mid_strength=0, fine_rho=1 / 3, blocks="1,3", guidance_power=0.5, count=2
    )
    assert "3" in view_requests.as_command(model, view_request)
    monkeypatch.setattr(hieramp, "load", lambda name: model if name == model.name else None)
    scope: dict[str, Any] = {}
    exec(view_requests.as_python(model, view_request), scope)
    drawn = model.generate(*view_request.batch).images
    np.testing.assert_array_equal(scope["amplified"], drawn[2:])
    np.testing.assert_array_equal(scope["baseline"], drawn[:2])
    parser = build_command_parser()
    args = parser.parse_args(shlex.split(view_requests.as_command(model, view_request))[3:])
    from hieramp.commands import arguments

    assert arguments.settings(args) == view_request.settings
    assert model.label_of(args.class_name) == view_request.label and (args.seed, args.count) == (7, 2)


def build_command_parser() -> Any:
    from hieramp.commands.main import build_parser

    return build_parser()


def test_a_picture_of_a_set_opens_as_what_it_was_drawn_by(model: hieramp.Model, tmp_path: Path) -> None:
    how = hieramp.Settings(coarse=(0.5, 3.0), mid=(0.5, 0.0), fine=(0.25, 5.0), guidance=2.0)
    for _ in hieramp.distill(model, 2, tmp_path / "set", how, classes=[1], seed=0, format="folder"):
        pass
    path = sorted((tmp_path / "set").rglob("*.png"))[1]
    view_request = view_requests.from_picture(model, restoring.settings_inside(path))
    assert (view_request.label, view_request.settings) == (1, how)
    drawn = model.generate([1], view_request.seeds, view_request.settings).images[0]
    assert hieramp.figures.to_picture(drawn).tobytes() == Image.open(path).convert("RGB").tobytes()
    assert view_requests.values_on_page(model, view_request)["seed"] == view_request.seeds[0]


def test_scenes_say_where_painting_acts(model: hieramp.Model) -> None:
    view_model = view_models.view_model_of(model, an_order(model, mid_strength=0))
    assert view_model["live"] == [False, True, False, False, True, True]


def test_tables_carry_what_they_were_made_by() -> None:
    link = study.link("a.csv", "x,y\n1,2\n", {"class": "cat", "seeds": [3]})
    text = base64.b64decode(re.findall('base64,([^"]+)', link)[0]).decode()
    assert text == '# class: "cat"\n# seeds: [3]\nx,y\n1,2\n'


def test_a_new_form_has_a_new_number_of_images(model: hieramp.Model, tmp_path: Path) -> None:
    does = distill_tab.Actions(context.AppContext.make(model, job_root=tmp_path), lambda given: given, None)
    given = view_requests.defaults(model) | {"classes": [1], "ipc": 7, "set_seed": 0, "soft_labels": False}
    assert "7 images as it is" in does.recount(given)
    assert "<b>" not in does.recount(given | {"classes": ["<b>"]})
