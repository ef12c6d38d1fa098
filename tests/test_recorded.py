"""Training steps that are recorded, through a stand-in for CUDA graphs: they train what the plain steps train."""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from rerun import Rerun
from tiny_train import PRESET
from torch import Tensor, nn

from hieramp.checkpoints import load_part
from hieramp.errors import UserError
from hieramp.training import loop, runs
from hieramp.training.loop import RunSettings
from hieramp.training.recorded import StepRecorder

T = TypeVar("T")
Train = Callable[..., Any]


@pytest.fixture(scope="module")
def with_vqvae(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vqvae")
    runs.train_vqvae(str(image_folder), PRESET, RunSettings(folder, "vqvae"))
    return folder


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Rerun]:
    """Runs record their steps from now on; what recorded them."""
    made: list[Rerun] = []
    plain = loop._Run.__init__

    def new_recorder() -> Rerun:
        made.append(Rerun())
        return made[-1]

    def init(run: loop._Run, *args: Any) -> None:
        plain(run, *args)
        run.recorder = run._step_recorder(new_recorder)

    monkeypatch.setattr(loop._Run, "__init__", init)
    return made


@pytest.mark.parametrize(("part", "recordings"), [("var", 2), ("dit", 1)])
def test_recorded_steps_train_the_same_weights(
    part: str,
    recordings: int,
    with_vqvae: Path,
    image_folder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """The transformer's images stop moving on the way, which is another recording."""
    recipe = replace(getattr(PRESET, f"{part}_recipe"), epochs=4, shift=1 if part == "var" else 0)
    preset = replace(PRESET, **{f"{part}_recipe": recipe})
    train: Train = getattr(runs, f"train_{part}")
    found, last = [], []
    for name in ("plain", "recorded"):
        made = request.getfixturevalue("recorders") if name == "recorded" else []
        folder = tmp_path / name
        shutil.copytree(with_vqvae, folder)
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            last.append(train(str(image_folder), preset, RunSettings(folder, part)).last)
        found.append(load_part(folder, part))
    assert len(made) == recordings and all(recorder.recorded == 1 for recorder in made)
    assert sum(recorder.replayed for recorder in made) >= recipe.num_steps(48)
    assert last[0] == last[1]
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


class Frozen(Rerun):
    """Forgets to read the batch: always gives what it gave at first."""

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        result = run()
        return lambda: result


class Broken(Rerun):
    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


def step_of(weight: nn.Parameter) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    def compute(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = (weight * images.float().mean() + torch.rand(()) * labels.float().mean() * weight).sum()
        loss.backward()
        return {"loss": loss.detach()}

    return compute


@pytest.fixture
def parts() -> tuple[nn.Module, Tensor, Tensor, Callable[[], object]]:
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    images = torch.arange(12, dtype=torch.uint8).view(4, 3, 1, 1)
    return module, images, torch.tensor([0, 1, 2, 5]), partial(torch.manual_seed, 3)


def test_a_recording_that_reads_no_batch_is_not_used(parts: tuple) -> None:
    module, images, labels, reseed = parts
    recorder = StepRecorder(step_of(module.weight), module, Frozen, reseed)
    with pytest.warns(UserWarning, match=r"not recorded as a CUDA graph, and take longer: its gradients are .* off"):
        losses = recorder(images, labels, "a")
    reseed()
    module.weight.grad = None
    expected = step_of(module.weight)(images, labels)
    assert recorder.is_plain and torch.equal(losses["loss"], expected["loss"])


def test_a_step_that_cannot_be_recorded_says_what_to_do(parts: tuple) -> None:
    module, images, labels, reseed = parts
    recorder = StepRecorder(step_of(module.weight), module, Broken, reseed)
    with pytest.raises(
        UserError, match=r"not permitted when stream is capturing\): add --no-cuda-graphs, and --resume"
    ):
        recorder(images, labels, "a")


def test_another_size_of_batch_is_computed_plainly(parts: tuple) -> None:
    module, images, labels, reseed = parts
    recorder = StepRecorder(step_of(module.weight), module, Rerun, reseed)
    recorder(images, labels, "a")
    module.weight.grad = None
    reseed()
    fewer = recorder(images[:2], labels[:2], "a")
    assert recorder.recorded is not None
    reseed()
    module.weight.grad = None
    assert torch.equal(fewer["loss"], step_of(module.weight)(images[:2], labels[:2])["loss"])
