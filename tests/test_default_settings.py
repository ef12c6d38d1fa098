"""A model's own default settings, from its config.json through every door."""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hieramp
from app import view_requests
from hieramp import SCHEDULES, Settings
from hieramp.checkpoints import write_config
from hieramp.commands import arguments
from hieramp.commands.main import main
from hieramp.errors import UserError
from hieramp.figures import read_settings
from hieramp.generation.sampling import Sampling
from hieramp.settings import CONFIG_KEY, DEFAULTS, PAPER, defaults_in

OWN: dict[str, Any] = {"guidance": 2.5, "guidance_power": 0.5, "temperature": [1.0, 1.0, 0.6]}
SAMPLING = Sampling(guidance=2.5, guidance_power=0.5, temperature=(1.0, 1.0, 0.6))


@pytest.fixture(scope="module")
def own_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with default settings of its own."""
    folder = tmp_path_factory.mktemp("own") / "tiny-own"
    shutil.copytree(model_folder, folder)
    write_config(folder, **{CONFIG_KEY: {"var": OWN}})
    return folder


@pytest.fixture(scope="module")
def own(own_folder: Path) -> hieramp.Model:
    return hieramp.load(own_folder, "cpu")


@pytest.fixture(scope="module")
def same(model_folder: Path) -> hieramp.Model:
    """The same weights without default settings."""
    return hieramp.load(model_folder, "cpu")


def parsed(model: hieramp.Model, texts: Sequence[str]) -> Settings:
    parser = argparse.ArgumentParser()
    arguments.add_drawing(parser)
    return arguments.settings(parser.parse_args(texts), model.kind, model.defaults)


def test_python_draws_by_them_where_nothing_is_said(own: hieramp.Model, same: hieramp.Model) -> None:
    assert own.defaults.sampling == SAMPLING and own.defaults.is_off
    drawn = own.generate([1, 2], [3, 4])
    told = same.generate([1, 2], [3, 4], guidance=2.5, guidance_power=0.5, temperature=(1.0, 1.0, 0.6))
    assert torch.equal(drawn.images, told.images)
    plain = same.generate([1, 2], [3, 4])
    assert any(not torch.equal(a, b) for a, b in zip(drawn.tokens, plain.tokens, strict=True))
    assert torch.equal(own.generate([1, 2], [3, 4], Settings()).images, plain.images)  # settings are whole


def test_what_is_given_wins(own: hieramp.Model) -> None:
    def read(settings: Any, **options: Any) -> Any:
        return own._request([1], [0], settings, options, False, ())

    assert read(None, guidance=1.0).sampling == replace(SAMPLING, guidance=1.0)
    assert read(SCHEDULES["mid"]).sampling == SAMPLING
    assert read(Settings(guidance=3.0)).sampling == Sampling(guidance=3.0)
    assert parsed(own, ["--guidance", "1", "--temperature", "1"]).sampling == Sampling(guidance=1.0, guidance_power=0.5)
    assert parsed(own, []) == Settings.of(PAPER, SAMPLING)


def test_a_temperature_is_that_of_its_stage(own: hieramp.Model) -> None:
    """The first scale whose draw the fine temperature shapes is the first fine one."""
    fine, alike = (own.generate(list(range(4)), [7] * 4, Settings(temperature=t)) for t in ((1.0, 1.0, 0.0), 1.0))
    differ = [not torch.equal(a, b) for a, b in zip(fine.tokens, alike.tokens, strict=True)]
    assert differ.index(True) == own.var.scales.stages["fine"][0]


def test_the_command_line_draws_by_them_and_says_so(own_folder: Path, own: hieramp.Model, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    assert not main(["generate", "--model", str(own_folder), "--class", "cat", "--count", "1", "--out", str(out)])
    stored = read_settings(out)
    assert {name: stored[name] for name in OWN} == OWN


def test_a_set_is_drawn_by_them_and_records_them(own: hieramp.Model, tmp_path: Path) -> None:
    path = hieramp.distill(own, ipc=1, out=tmp_path / "set.zip", classes=["cat"]).run()
    with hieramp.open_set(path) as image_set:
        assert {name: image_set.settings[name] for name in OWN} == OWN


def test_the_page_opens_with_them_and_its_addresses_and_commands_name_them(
    own: hieramp.Model, model: hieramp.Model
) -> None:
    view_request = view_requests.first_request(own)
    assert view_request.settings == Settings.of(PAPER, SAMPLING)
    query = view_requests.to_query(own, view_request)
    assert query["guidance_power"] == "0.5" and query["fine_temperature"] == "0.6"
    assert view_requests.from_query(own, query) == view_request
    assert view_requests.from_query(model, query) == view_request  # whatever the model's own are
    words = view_requests.as_command(own, view_request).split()
    assert words[words.index("--temperature") + 1] == "coarse=1,mid=1,fine=0.6"
    plain = replace(view_request, settings=Settings.of(view_request.settings, Sampling()))
    assert view_requests.from_query(own, view_requests.to_query(own, plain)) == plain
    assert parsed(own, view_requests.as_command(own, plain).split()[12:]) == plain.settings


def test_a_link_of_before_draws_what_it_drew(own: hieramp.Model, model: hieramp.Model) -> None:
    """Written by a page whose model had no defaults of its own: it names neither temperature nor power."""
    written = view_requests.to_query(model, view_requests.first_request(model))
    assert "fine_temperature" not in written
    assert view_requests.from_query(own, written).settings == PAPER
    shown, wrong = view_requests.read_query(own, written | {"top_p": "7"})
    assert len(wrong) == 1 and shown.settings.temperature == (1.0, 1.0, 1.0)
    assert view_requests.from_query(own, {"class": "dog"}).settings == Settings.of(PAPER, SAMPLING)  # written by hand


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"var": {"guidance": -1}}, "guidance is -1; it must be a number of at least 0"),
        ({"var": {"sparkle": 1}}, "names 'sparkle'; it may name guidance, top_k"),
        ({"var": {"coarse": [0.5, 5]}}, "names 'coarse'; it may name guidance"),
        ({"var": {"steps": 3}}, "names 'steps'"),
        ({"var": 3}, "must name settings by the kind of model"),
        ({"gan": {}}, "must name settings by the kind of model"),
        ([], "must name settings by the kind of model"),
    ],
)
def test_a_default_that_cannot_be_is_one_sentence(own_folder: Path, stored: Any, sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(own_folder, folder)
    write_config(folder, **{CONFIG_KEY: stored})
    with pytest.raises(UserError, match="config.json") as error:
        hieramp.load(folder, "cpu")
    assert sentence in str(error.value)


def test_a_diffusion_transformer_has_its_own() -> None:
    config = json.loads(json.dumps({CONFIG_KEY: {"var": OWN, "dit": {"steps": 7, "solver": "heun"}}}))
    assert defaults_in(config, "dit") == Settings.of(DEFAULTS["dit"], steps=7, solver="heun")
    assert defaults_in({}, "dit") == DEFAULTS["dit"] and defaults_in({}, "var") == Settings()
