"""The table of settings: every field, at a value of its own, through every door and out again."""

import argparse
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
import pytest

import hieramp
from app import distill_requests, page, view_requests
from hieramp import OFF, SCHEDULES, Amplification, Settings, figures
from hieramp.class_conditional import DESCRIBED
from hieramp.commands import arguments
from hieramp.commands.main import main
from hieramp.fields import Choice, Field, Indices, Knob, Number, PerStage, Positions, ShareStrength
from hieramp.generation.sampling import Sampling
from hieramp.settings import PAPER

ROOT = Path(__file__).resolve().parent.parent
SET = ("ipc", "classes", "seed", "dtype", "device", "batch_size", "soft_labels")  # of a set, besides the settings


def between(number: Number, share: float) -> float | int:
    """A value that the slider can show."""
    low, high = number.shown
    value = low + share * (high - low)
    return round(value) if number.whole else round(value, 3)


def own_value(row: Field, place: int) -> Any:
    """A value that is neither the default nor any other field's."""
    share = 0.31 + 0.019 * place
    kind = row.kind
    if isinstance(kind, Number):
        return between(kind, share)
    if isinstance(kind, Choice):
        return next(word for word in reversed(kind.words) if word != row.default)
    if isinstance(kind, Indices):
        return (1, 2 + len(row.name) % 2)
    if isinstance(kind, Positions):
        return ((3, (0, 4)),)
    if isinstance(kind, PerStage):
        return tuple(between(kind.number, share + 0.1 * i) for i in range(3))
    assert isinstance(kind, ShareStrength), f"{row.name} is of a kind that this test does not know"
    return between(kind.share, share), between(kind.strength, share)


ALL = Settings.table()
TABLE = Settings.table("var")  # what the models of these tests have
OWN = {name: own_value(row, place) for place, (name, row) in enumerate(ALL.items())}
EVERY = Settings(**{name: OWN[name] for name in TABLE})


def test_every_field_is_in_the_table_and_has_a_value_of_its_own_here() -> None:
    assert list(ALL) == [field.name for field in fields(Settings)]
    parts = Settings(**OWN).to_parts()
    assert list(parts) == [part.name for part in Settings.parts()] and len(set(parts)) == len(parts)
    fresh = PAPER.to_parts()
    assert not [name for name, value in parts.items() if value == fresh[name]]


# Python


@pytest.mark.parametrize("name", TABLE)
def test_python_takes_every_field(model: hieramp.Model, name: str) -> None:
    one = Settings(**{name: OWN[name]})
    assert getattr(one, name) == OWN[name] != TABLE[name].default
    by_name = model._request([1], [0], None, {name: OWN[name]}, False, ())
    request = model._request([1], [0], one, {}, False, ())
    assert by_name == request and request.sampling == one.sampling and request.amplifications == (one.amplification,)


def test_the_keyword_forms_mean_the_same(model: hieramp.Model) -> None:
    amp, how = SCHEDULES["mid"], {"guidance": 2.0, "temperature": 0.7}
    wanted = model._request([1, 2], [0, 1], Settings.of(amp, **how), {}, False, ())
    assert wanted == model._request([1, 2], [0, 1], amp, how, False, ())
    assert wanted == model._request([1, 2], [0, 1], None, {"amplification": amp, **how}, False, ())
    assert wanted == model._request([1, 2], [0, 1], [amp, Settings.of(amp)], how, False, ())
    both = model._request([1, 2], [0, 1], None, {"amplification": [None, amp]}, False, ())
    assert both.amplifications == (OFF, amp) and both.sampling == Sampling()
    with pytest.raises(ValueError, match="settings and an amplification are both given"):
        model.generate([1], [0], Settings(), amplification=amp)
    with pytest.raises(ValueError, match="may differ in their amplification alone"):
        model.generate([1, 1], [0, 0], [Settings(), Settings(guidance=1)])
    with pytest.raises(TypeError, match="guidnace"):
        model.generate([1], guidnace=3)


def test_json_gives_every_field_back() -> None:
    stored = json.loads(json.dumps(EVERY.to_json()))
    assert Settings.from_json(stored) == EVERY and Settings.from_json(Settings().to_json()) == Settings()
    assert Settings.from_json(json.loads(json.dumps(Settings(**OWN).to_json()))) == Settings(**OWN)
    with pytest.raises(ValueError, match="'sparkle' is no setting of this version"):
        Settings.from_json({**stored, "sparkle": 1})
    for name, bad in {"guidance": "much", "stages": [1], "temperature": None, "blocks": [], "mode": 3}.items():
        with pytest.raises(ValueError, match=r"guidance|stages|temperature|blocks|mode"):
            Settings.from_json({**stored, name: bad})


def test_what_came_later_is_stored_only_where_it_is_used() -> None:
    """So the sets of before keep their bytes, their names and what they are recognised by."""
    assert list(PAPER.to_json()) == ["stages", "mode", "blocks", "scales", "positions", "guidance", "top_k", "top_p"]


# Flags


def parsed(*texts: str) -> Settings:
    parser = argparse.ArgumentParser()
    arguments.add_drawing(parser)
    return arguments.settings(parser.parse_args(texts))


@pytest.mark.parametrize("name", ALL)
def test_a_flag_sets_every_field(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    assert parsed(flag, ALL[name].kind.text(OWN[name])) == replace(PAPER, **{name: OWN[name]})


def test_no_flag_is_the_schedule_all_and_a_flag_that_is_given_always_holds() -> None:
    assert parsed() == PAPER
    assert parsed("--stages", "weak-mid", "--blocks", "1,2").blocks == (1, 2)
    assert parsed("--stages", "weak-mid", "--blocks", "1,2").mode == "attention"
    assert parsed("--stages", "weak-mid", "--mode", "logit") == Settings.of(
        replace(SCHEDULES["weak-mid"], mode="logit"), Sampling()
    )
    assert parsed("--stages", "coarse", "--mid", "30%:2") == Settings(coarse=(0.5, 5.0), mid=(0.3, 2.0))
    assert hieramp.parse_stages("weak-mid", blocks=(3,)) == replace(SCHEDULES["weak-mid"], blocks=(3,))
    assert hieramp.parse_stages("all", "attention", (3,)) == replace(SCHEDULES["all"], mode="attention", blocks=(3,))


def test_no_blocks_at_all_is_one_sentence() -> None:
    with pytest.raises(
        ValueError, match=r"^no blocks are named; name at least one, or leave blocks out for depth - 2$"
    ):
        Amplification(SCHEDULES["all"].coarse, blocks=())


def test_the_help_shows_every_flag(capsys: pytest.CaptureFixture) -> None:
    for command in ("generate", "saliency", "distill"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = capsys.readouterr().out
        assert not [name for name in ALL if f"--{name.replace('_', '-')} " not in said]


# Pictures and sets


def test_a_picture_of_the_command_line_holds_every_field(model_folder: Path, tmp_path: Path) -> None:
    flags = [text for name, row in TABLE.items() for text in (f"--{name.replace('_', '-')}", row.kind.text(OWN[name]))]
    out = tmp_path / "x.png"
    main(["generate", "--class", "cat", "--count", "1", "--out", str(out), "--model", str(model_folder), *flags])
    assert Settings.from_json(figures.read_settings(out), DESCRIBED) == EVERY


def test_a_set_holds_every_field_in_its_identity_and_its_manifest(model: hieramp.Model, tmp_path: Path) -> None:
    distillation = hieramp.distill(model, 1, tmp_path / "set.zip", EVERY, classes=["cat"])
    assert Settings.from_json(distillation.plan.settings, SET) == EVERY
    with hieramp.open_set(distillation.run()) as image_set:
        assert Settings.from_json(image_set.settings, SET) == EVERY
    by_name = hieramp.distill(model, 1, tmp_path / "set.zip", classes=["cat"], **{name: OWN[name] for name in TABLE})
    assert [progress.images_per_second for progress in by_name] == [0.0]  # it is there already
    for name, row in TABLE.items():
        other = hieramp.distill(model, 1, tmp_path / "set.zip", replace(EVERY, **{name: row.default}), classes=["cat"])
        with pytest.raises(ValueError, match="a finished set of other settings"):
            other.run()


# The page


@pytest.fixture(scope="module")
def job_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def demo(model: hieramp.Model, job_root: Path) -> gr.Blocks:
    return page.build(model, job_root=job_root)


def functions(demo: gr.Blocks) -> dict[str, Any]:
    """What the events of the page and its endpoints call, by the names of the functions."""
    return {getattr(found.fn, "__name__", ""): found.fn for found in demo.fns.values()}


def in_order(name: str, given: dict[str, Any], demo: gr.Blocks) -> list[Any]:
    """Values as an endpoint gets them; what is not given is at its default."""
    taken = inspect.signature(functions(demo)[name]).parameters
    assert given.keys() <= taken.keys()
    return [given.get(parameter.name, parameter.default) for parameter in taken.values()]


class Query:
    """The part of a request that a page reads."""

    def __init__(self, query: dict[str, str]) -> None:
        self.query_params = query


def test_the_controls_are_those_of_the_table_in_its_order(demo: gr.Blocks, model: hieramp.Model) -> None:
    controls = functions(demo)["_ask"].__self__.controls
    assert list(controls.named) == [*view_requests.REQUEST, *EVERY.to_parts("var")]
    ids = [component._id for component in controls.outputs]
    assert ids == sorted(ids)  # as they were made, so as they stand on the page
    shown = {name: component.value for name, component in controls.named.items()}
    assert shown == view_requests.defaults(model)


def fields_of(shown: dict) -> dict:
    """The fields among what an address or a picture sets; it chooses a tab too."""
    return {control: value for control, value in shown.items() if not isinstance(control, gr.Tabs)}


def test_controls_and_addresses_carry_every_field(demo: gr.Blocks, model: hieramp.Model) -> None:
    asked = functions(demo)["_ask"]
    controls = asked.__self__.controls
    values = {**view_requests.values_of(model, view_requests.ViewRequest(1, (7, 8), EVERY))}
    given = {controls.named[name]: value for name, value in values.items()}
    _, address, *_ = asked(gr.Request(session_hash="ann"), given | {controls.schedule: None})
    query = json.loads(address)
    assert view_requests.from_query(model, query) == view_requests.ViewRequest(1, (7, 8), EVERY)
    assert fields_of(functions(demo)["from_address"](Query(query))) == given
    usual = controls_of(demo, view_requests.defaults(model)) | {controls.schedule: None}
    plain = json.loads(asked(gr.Request(session_hash="ann"), usual)[1])
    assert plain.keys() == query.keys() and plain["guidance_power"] is None  # the address loses what is as usual again


def controls_of(demo: gr.Blocks, values: dict[str, Any]) -> dict[Any, Any]:
    return functions(demo)["_ask"].__self__.controls.updates(values)


def test_a_saved_picture_sets_every_control(demo: gr.Blocks, model: hieramp.Model, tmp_path: Path) -> None:
    view_request = view_requests.ViewRequest(1, (7,), EVERY)
    picture = figures.to_picture(model.generate([1], [7]).images[0])
    figures.save_png(picture, tmp_path / "saved.png", view_requests.described(model, view_request))
    shown = functions(demo)["from_picture"](str(tmp_path / "saved.png"))
    assert fields_of(shown) == controls_of(demo, view_requests.values_of(model, view_request))


def test_an_endpoint_takes_every_field(demo: gr.Blocks) -> None:
    given = {"class_name": "cat", "seed": 7, "count": 1, **EVERY.to_parts("var")}
    answer = functions(demo)["generate"](*in_order("generate", given, demo))
    assert Settings.from_json(answer["settings"], DESCRIBED) == EVERY
    described = functions(demo)["generate"].__doc__
    assert not [part.name for part in Settings.parts("var") if f"    {part.name}: {part.help}" not in described]


def test_a_job_keeps_every_field(demo: gr.Blocks, job_root: Path) -> None:
    given = {"classes": "cat", "ipc": 1, **EVERY.to_parts("var")}
    answer = functions(demo)["distill"](*in_order("distill", given, demo))
    recipe = distill_requests.DistillRequest.from_json((job_root / answer["job_id"] / "job.json").read_text())
    assert recipe.settings == EVERY and recipe.labels == (1,)
    until = time.monotonic() + 60
    while functions(demo)["job"](answer["job_id"])["state"] in ("waiting", "running"):
        assert time.monotonic() < until  # a job that is left at work would abort the interpreter's end
        time.sleep(0.05)


def test_a_job_of_the_version_before_is_read() -> None:
    stored = {
        "labels": [1], "ipc": 2, "seed": 0, "soft_labels": False, "name": "tiny-ipc2-seed0",
        "sampling": {"guidance": 3.0, "top_k": 900, "top_p": 0.95, "temperature": [1, 1, 0.6], "guidance_power": 0.5},
        "amplification": {"coarse": [0.5, 5.0], "mid": None, "fine": None, "mode": "logit", "blocks": None,
                          "scales": None, "positions": [[3, [0, 1]]], "where": "salient"},
    }  # fmt: skip
    wanted = Settings(
        coarse=(0.5, 5.0), positions={3: [0, 1]}, guidance=3.0, temperature=(1, 1, 0.6), guidance_power=0.5
    )
    assert distill_requests.DistillRequest.from_json(json.dumps(stored)).settings == wanted


# Kinds of models


@dataclass(frozen=True)
class More(Settings):
    """As a model of another kind would add to it."""

    solver_steps: Annotated[int, Knob(Number(1, whole=True), "Steps", "Of it.", "sampling", models=("other",))] = 25


def test_a_setting_of_another_kind_of_model_is_kept_and_refused_where_it_has_no_meaning() -> None:
    assert list(More.table("var")) == list(TABLE) and list(More.table("other")) == ["solver_steps"]
    assert More.from_json(More(solver_steps=30.0).to_json()) == More(solver_steps=30)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="solver steps is 0"):
        More(solver_steps=0)
    More().check_kind("var")
    with pytest.raises(ValueError, match="solver steps is set, which is for other models: leave it out for var"):
        More(solver_steps=30).check_kind("var")


# One line


@pytest.fixture
def house_with_one_more_knob(tmp_path: Path) -> Path:
    """A copy of the code in which one line more declares a setting."""
    for name in ("hieramp", "app"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", Path(__file__).name):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    path = tmp_path / "hieramp" / "generation" / "sampling.py"
    before, found, after = path.read_text().partition("    def __post_init__")
    line = '    swirl: Annotated[float, Knob(Number(0, shown=(0, 2)), "Swirl", "Of the cream.", "sampling")] = 0.5\n'
    assert found
    path.write_text(before + line + found + after)
    return tmp_path


def test_a_new_setting_is_one_line(house_with_one_more_knob: Path) -> None:
    """With it, all the other tests of this file walk one field more, through every door."""
    where = {**os.environ, "PYTHONPATH": f"{house_with_one_more_knob}{os.pathsep}{house_with_one_more_knob / 'tests'}"}
    command = [sys.executable, "-m", "pytest", "-rp", "-p", "no:cacheprovider", "tests", "-k", "not one_line"]
    done = subprocess.run(command, cwd=house_with_one_more_knob, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "PASSED tests/test_settings.py::test_a_flag_sets_every_field[swirl]" in done.stdout
