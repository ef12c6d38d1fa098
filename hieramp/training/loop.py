"""The one training loop: clock or step schedule, averaged weights, resumable at any moment.

Devices and processes are Accelerate's; nothing here knows how many there are.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from PIL.Image import Image
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from hieramp.data import DataSource, endless_loader
from hieramp.devices import fastest_convolutions, resolve_device, supports_fast_bf16
from hieramp.errors import UserError
from hieramp.generation.captured import CudaRecorder, Recorder
from hieramp.seeds import seed_of
from hieramp.state_file import SaveTimer, are_finite, load_state, read_about, save_state
from hieramp.training.recipe import Recipe, build_optimizers
from hieramp.training.recorded import StepRecorder

SAVE_SECONDS = 60.0  # this much work is lost at most, or fifty times what a save takes
SAMPLE_SECONDS = 300.0
LOG_STEPS = 10


class Objective(nn.Module):
    """What a part brings to the loop: from a batch (uint8 images, labels) to a dict with its "loss"."""

    model: nn.Module  # what is averaged and shipped

    def before_step(self, progress: float) -> None:
        """Whatever depends on how far the run is, from 0 to 1."""

    def after_step(self, progress: float) -> dict[str, Tensor]:
        """Whatever follows an optimiser's step; returns more values to log."""
        return {}

    def matrices(self) -> set[str]:
        """Names of the weights that Muon takes."""
        return set()

    def apart(self) -> set[str]:
        """Names of weights that an AdamW of their own takes, as a discriminator's are."""
        return set()

    def variant(self) -> Hashable | None:
        """What a step depends on besides batch and weights: a CUDA graph serves one variant. None: not to be recorded.

        Where it is not None, `forward` never waits for the device, and reads nothing from it.
        """
        return None

    def compile_parts(self, backend: str = "inductor") -> bool:
        """Compile what is worth it on a GPU, in place; names of weights stay. False where nothing is."""
        return False


@dataclass
class Clock:
    """How far a run is: on the clock where there is a budget, else in steps."""

    num_steps: int
    budget: float | None  # seconds of training in all, earlier sessions counted
    step: int = 0
    spent: float = 0.0  # seconds before this session
    started: float = 0.0

    @property
    def elapsed(self) -> float:
        return self.spent + (time.monotonic() - self.started if self.started else 0.0)

    @property
    def progress(self) -> float:
        done = self.step / self.num_steps if self.budget is None else self.elapsed / self.budget
        return min(1.0, done)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    steps: int
    seconds: float
    interrupted: bool
    last: dict[str, float]  # the last values logged


@dataclass(frozen=True)
class RunSettings:
    folder: Path
    part: str
    budget: float | None = None
    resume: bool = False
    warm_start: Path | None = None  # a model folder whose weights to begin from
    device: str | None = None
    cuda_graphs: bool = True  # record the steps of an objective that allows it, on one GPU


def train(
    objective: Objective,
    source: DataSource,
    size: int,
    recipe: Recipe,
    settings: RunSettings,
    draw: Callable[[Any], Image] | None,
    write: Callable[[nn.Module, Outcome], None],
) -> Outcome:
    """Train `objective` on square images of `size` pixels; `write` gets the averaged model at the end.

    Ctrl-C and SIGTERM end the run after the step in hand, with everything saved.

    Raises:
        UserError: --resume finds a state of another recipe or model, the device is not to be had, or loss or weights
            stop being numbers. The last good state is kept.
    """
    run = _Run(objective, source, size, recipe, settings)
    with fastest_convolutions():  # every batch has one shape
        outcome = run.loop(draw)
    if run.accelerator.is_main_process:
        run.check()
        # The state says whether the run is done, so that a finished one comes after its weights: a kill between the
        # two must not leave a part that counts as trained and has none.
        if outcome.interrupted:
            run.save()
        write(run.average.module, outcome)
        if not outcome.interrupted:
            run.save()
        if draw:
            run.write_sample(draw)
    run.accelerator.end_training()
    return outcome


class _Run:
    """One training run on this process: what is trained, and where it stands."""

    def __init__(
        self, objective: Objective, source: DataSource, size: int, recipe: Recipe, settings: RunSettings
    ) -> None:
        self.objective, self.recipe, self.settings = objective, recipe, settings
        device = resolve_device(settings.device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # the one Accelerate takes; of several processes each takes its own
        precision = "bf16" if supports_fast_bf16(device) else "no"
        folder, cpu = settings.folder, device.type == "cpu"
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=precision, log_with="tensorboard", project_dir=folder)
        if self.accelerator.device.type != device.type:
            here = self.accelerator.device.type
            raise UserError(f"--device is {settings.device}, but training would run on {here}: give cpu or {here}")
        num_processes = self.accelerator.num_processes
        self.clock = Clock(recipe.num_steps(len(source)), settings.budget)
        self.num_images = len(source)
        objective.to(self.accelerator.device)
        self.average = ModelEmaV3(objective.model, decay=recipe.ema, use_warmup=True)
        self.is_compiled = self.accelerator.device.type == "cuda" and objective.compile_parts()
        optimizers = build_optimizers(objective, recipe, objective.matrices(), objective.apart())
        self.keeper = StateKeeper(folder / "training" / f"{settings.part}.safetensors", recipe, source)
        if settings.resume:
            self.keeper.load(objective, self.average, optimizers, self.clock)
        else:
            self.keeper.refuse_to_overwrite()
        per_process = max(1, recipe.batch_size // num_processes)
        start = self.clock.step * num_processes
        loader = endless_loader(source, size, per_process, recipe.seed, start, self.accelerator.device)
        self.wrapped, self.loader, *self.optimizers = self.accelerator.prepare(objective, loader, *optimizers)
        self.accelerator.init_trackers(f"logs/{settings.part}")
        self.recorder: StepRecorder | None = None
        if settings.cuda_graphs and self.accelerator.device.type == "cuda" and num_processes == 1:
            self.recorder = self._step_recorder(partial(CudaRecorder, self.accelerator.device))
        self.last: dict[str, float] = {}
        self.save_timer = SaveTimer(SAVE_SECONDS)
        self.sampled = time.monotonic()
        (folder / "samples").mkdir(parents=True, exist_ok=True)

    def loop(self, draw: Callable[[Any], Image] | None) -> Outcome:
        """Step until the schedule or a signal ends it."""
        main = self.accelerator.is_main_process
        if main:
            print(self._expectation(), file=sys.stderr)
        losses: dict[str, Tensor] = {}
        with stop_on_signal() as stop, _progress_bar(self.settings.part, main) as bar:
            for images, labels in self.loader:
                if not self.clock.started:
                    if self.is_compiled:
                        self._compile(images, labels)
                    self.clock.started = time.monotonic()
                progress = self._agreed_progress(stop.is_set())
                if progress is None or progress >= 1:
                    break
                losses = self._step(images, labels, progress)
                if self.clock.step % LOG_STEPS == 0:
                    self._log(losses, bar)
                if main:
                    self._keep(draw)
            if losses and self.clock.step % LOG_STEPS:
                self._log(losses, bar)  # the last values of a run of a few steps
        return Outcome(self.clock.step, self.clock.elapsed, progress is None, self.last)

    def _compile(self, images: Tensor, labels: Tensor) -> None:
        """A step that changes nothing, before the clock starts: else the rate's warm-up would pass in compiling."""
        self._gradients(images, labels)
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def _expectation(self) -> str:
        """What the run will do, in a line."""
        size, budget = self.recipe.batch_size, self.clock.budget
        if budget is not None:
            return f"{self.settings.part}: {budget:.0f} s in all, in steps of {size} images"
        count = self.clock.num_steps
        passes = f"{count * size / self.num_images:.3g} passes over {self.num_images} images"
        return f"{self.settings.part}: {count} steps of {size} images, {passes}; --budget would end it by the clock"

    def _agreed_progress(self, stop: bool) -> float | None:
        """The main process's clock, so that all processes use one rate and end together; None to stop now."""
        if self.accelerator.num_processes == 1:
            return None if stop else self.clock.progress
        if stop:
            self.accelerator.set_trigger()
        if self.accelerator.check_trigger():
            return None
        return float(broadcast(torch.tensor(self.clock.progress, device=self.accelerator.device)))

    def _reseed(self) -> None:
        """Every step has a seed of its own, so that a resumed run draws what the undisturbed one would."""
        torch.manual_seed(seed_of(self.recipe.seed, self.clock.step, self.accelerator.process_index))

    def _step_recorder(self, new_recorder: Callable[[], Recorder]) -> StepRecorder:
        return StepRecorder(self._plain_gradients, self.objective, new_recorder, self._reseed)

    def _gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The losses of the batch; the parameters have their gradients, clipped."""
        variant = self.objective.variant()
        if self.recorder is None or variant is None:
            return self._plain_gradients(images, labels)
        return self.recorder(images, labels, variant)

    def _plain_gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.wrapped(images, labels)
        self.accelerator.backward(losses["loss"])
        if self.recipe.clip:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.recipe.clip)
        return losses

    def _step(self, images: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        self._reseed()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * self.recipe.rate(progress)
        self.objective.before_step(progress)
        losses = self._gradients(images, labels)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        after = self.objective.after_step(progress)
        self.average.update(self.objective.model, step=self.clock.step)
        self.clock.step += 1
        rate = self.recipe.learning_rate * self.recipe.rate(progress)
        return losses | after | {"learning_rate": torch.tensor(rate)}

    def _log(self, losses: dict[str, Tensor], bar: tqdm) -> None:
        self.last = {key: float(value.detach()) for key, value in losses.items()}
        if not math.isfinite(self.last["loss"]):
            raise UserError(f"the loss is no longer a number at step {self.clock.step}: lower the learning rate")
        self.accelerator.log(self.last, step=self.clock.step)
        bar.n = round(100 * self.clock.progress, 1)
        bar.set_postfix(step=self.clock.step, loss=f"{self.last['loss']:.3f}")

    def _keep(self, draw: Callable[[Any], Image] | None) -> None:
        """Save the state every minute (or less often, where that would cost too much) and a sample every five."""
        if self.save_timer.is_due:
            with self.save_timer.saving():
                self.check()
                self.save()
        if draw and time.monotonic() - self.sampled > SAMPLE_SECONDS:
            self.write_sample(draw)
            self.sampled = time.monotonic()

    def check(self) -> None:
        """Nothing but numbers may take the place of the last good state; waits for the device."""
        if not are_finite(self.objective, self.average.module):
            raise UserError(
                f"the weights are no longer numbers at step {self.clock.step}: lower the learning rate; "
                f"{self.keeper.path} keeps the last good state, if one was saved"
            )

    def save(self) -> None:
        self.keeper.save(self.objective, self.average, self.optimizers, self.clock)

    def write_sample(self, draw: Callable[[Any], Image]) -> None:
        name = f"{self.settings.part}-{self.clock.step:07d}.png"
        draw(self.average.module).save(self.settings.folder / "samples" / name)


def _progress_bar(part: str, shown: bool) -> tqdm:
    layout = "{desc}: {n:5.1f}% |{bar}| {elapsed} {postfix}"
    return tqdm(total=100, desc=part, disable=not shown, mininterval=1.0, bar_format=layout)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; the handlers before are put back."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_: event.set()) for name in names]
    try:
        yield event
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


class StateKeeper:
    """Saves and restores a whole run."""

    def __init__(self, path: Path, recipe: Recipe, source: DataSource) -> None:
        self.path = path  # <model folder>/training/<part>.safetensors
        self.data = {"images": len(source), "classes": list(source.class_names)}
        self.recipe = {"optimizer": recipe.optimizer, "batch_size": recipe.batch_size, "seed": recipe.seed}

    def save(self, objective: nn.Module, average: ModelEmaV3, optimizers: list[Any], clock: Clock) -> None:
        about = {"recipe": self.recipe, "data": self.data}
        about |= {"step": clock.step, "seconds": clock.elapsed, "progress": clock.progress}
        save_state(self.path, self._parts(objective, average, optimizers), about)

    def load(self, objective: nn.Module, average: ModelEmaV3, optimizers: list[Any], clock: Clock) -> None:
        if not self.path.is_file():
            raise UserError(f"nothing to resume: {self.path} does not exist; leave out --resume to begin")
        about = read_about(self.path)
        if about.get("recipe") != self.recipe:
            raise UserError(f"cannot resume {self.path}: it was begun with {about.get('recipe')}, not {self.recipe}")
        data, step, seconds = about.get("data", self.data), about.get("step"), about.get("seconds")
        if not (isinstance(data, dict) and isinstance(step, int) and step >= 0 and isinstance(seconds, int | float)):
            raise UserError(f"{self.path} is damaged: it does not say how far the run is; remove it to begin anew")
        if data != self.data:
            told = f"{data.get('images')} images of {', '.join(map(str, data.get('classes', [])[:10]))}"
            raise UserError(f"cannot resume {self.path}: it was begun with other data ({told}): give that data")
        load_state(self.path, self._parts(objective, average, optimizers))
        clock.step, clock.spent = step, seconds

    def refuse_to_overwrite(self) -> None:
        """An interrupted run must be resumed or removed, not lost; that a finished one is replaced is told."""
        progress = _progress(self.path) if self.path.is_file() else None
        if progress is not None and progress < 1:
            raise UserError(f"{self.path} holds an interrupted run: add --resume to go on, or remove it to begin anew")
        if progress is not None:
            part, folder = self.path.stem, self.path.parent.parent
            print(f"the finished {part} in {folder} is trained anew and replaced at the end", file=sys.stderr)

    @staticmethod
    def _parts(objective: nn.Module, average: ModelEmaV3, optimizers: list[Any]) -> dict[str, Any]:
        return {
            "objective": objective,
            "average": average.module,
            **{f"optimizer{i}": optimizer for i, optimizer in enumerate(optimizers)},
        }


def progress_of(folder: Path, part: str) -> float | None:
    """How far the run of a part got, from 0 to 1; None where there was none."""
    path = folder / "training" / f"{part}.safetensors"
    return _progress(path) if path.is_file() else None


def _progress(path: Path) -> float:
    progress = read_about(path).get("progress", 1)
    if not isinstance(progress, int | float):
        raise UserError(f"{path} is damaged: it does not say how far the run is; remove it to begin anew")
    return float(progress)
