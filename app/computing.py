"""All that is computed for the page, one function for each kind of work.

On ZeroGPU the main process has no GPU: its weights are empty there. Each of the four functions below is run in a
worker process that borrows a GPU for as long as the request is estimated to take. Everywhere else they are plain
functions. What goes in and out can be pickled, and nothing that the worker remembers is needed outside of it.
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import nn

import hieramp
from app import handlers, sheets
from app.denoising import RecentGrowth
from app.distill_requests import DistillRequest, has_classifier
from app.inside import Looks, position_view
from app.kinds import AnyModel
from app.pieces import Piece
from app.saved_files import saving
from app.set_verdict import SetVerdict, judge_set
from app.verdicts import classifier_of, occlusion_view, opinion_view
from app.view_models import ViewModel
from app.view_requests import MAX_COUNT, ViewRequest
from app.zero import gpu, on_zero_gpu
from hieramp import Model, Progress
from hieramp.amplification.settings import SCHEDULES
from hieramp.analysis.dose import DOSES, SEEDS, Knob, sweep
from hieramp.analysis.schedules import compare_schedules, count_tokens
from hieramp.diffusion.latents import vqvae_of
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.estimate import PILOT_IMAGES, Estimating, estimating
from hieramp.errors import UserError
from hieramp.generation.memory import RecentDrawings

START = 10  # seconds to move the weights to a GPU
IMAGES_PER_SECOND = 20e9  # images times weights: measured on an H200, 12 blocks of width 384 draw 1,000 a second
DENOISING_STEPS = 50  # of a diffusion transformer, for the estimate: twice the default
MOST = 120  # seconds that one call may ask for
TURN = 60  # seconds of a job at a time


@dataclass(eq=False)
class Served:
    """A model that a page serves, with its memory of recent drawings; a worker finds it by its key.

    Make it before anything is asked: workers are forks, and know what there was when they began.
    """

    model: Model
    memory: RecentDrawings = field(default_factory=RecentDrawings)
    growth: RecentGrowth = field(default_factory=RecentGrowth)  # where the model is a diffusion transformer
    looks: Looks = field(default_factory=Looks)
    key: int = field(default_factory=itertools.count().__next__)

    def __post_init__(self) -> None:
        _SERVED[self.key] = self

    @property
    def recent(self) -> handlers.Memory:
        """What it drew last, whatever its kind."""
        return self.growth if isinstance(self.model, DiffusionModel) else self.memory


_SERVED: "WeakValueDictionary[int, Served]" = WeakValueDictionary()


@dataclass(frozen=True)
class _Wrong:
    """What a person can mend, on its way out of the worker, in which it would lose its words."""

    message: str


def _seconds(key: int, images: int) -> int:
    """For so many images, small drawings together being no faster than one."""
    model = _SERVED[key].model
    if isinstance(model, DiffusionModel):
        network: nn.Module = model.denoiser
        steps = DENOISING_STEPS
    else:
        network, steps = model.var, len(model.var.scales)
    weights = sum(parameter.numel() for parameter in network.parameters())
    return min(MOST, START + round(5 + images * weights * steps / IMAGES_PER_SECOND))


# Pictures as they grow


def _seconds_of_growing(key: int, view_request: ViewRequest) -> int:
    return _seconds(key, 2 * len(view_request.seeds))


@gpu(_seconds_of_growing)
def _grow(key: int, view_request: ViewRequest) -> Generator[ViewModel, None, None]:
    served = _SERVED[key]
    yield from handlers.grow(served.model, view_request, served.recent)


def grow(served: Served, view_request: ViewRequest) -> Generator[ViewModel, None, None]:
    """The view model after every scale."""
    yield from _grow(served.key, view_request)


# Answers in one piece


def _block_view(served: Served, view_request: ViewRequest, sample: Any, block: Any) -> dict[str, Any]:
    return handlers.block_view(served.model, view_request, sample, block, served.memory)


def _opinion(served: Served, view_request: ViewRequest, asked: Mapping[str, Any]) -> dict[str, Any]:
    return opinion_view(served.model, view_request, asked, served.recent)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "generate": lambda served, view_request: handlers.generate(served.model, view_request),
    "saliency": lambda served, view_request: handlers.saliency(served.model, view_request),
    "block_view": _block_view,
    "opinion": _opinion,
}


def _seconds_of_answer(key: int, what: str, asked: ViewRequest, *more: Any) -> int:
    return _seconds(key, 2 * len(asked.seeds))


@gpu(_seconds_of_answer)
def _answer(key: int, what: str, asked: ViewRequest, *more: Any) -> Any:
    try:
        return _ANSWERS[what](_SERVED[key], asked, *more)
    except UserError as error:
        return _Wrong(str(error))


def answer(served: Served, what: str, asked: ViewRequest, *more: Any) -> Any:
    """generate, saliency, block_view or opinion of a request (as in `handlers`).

    Raises:
        UserError: what these raise.
    """
    found = _answer(served.key, what, asked, *more)
    if isinstance(found, _Wrong):
        raise UserError(found.message)
    return found


# Studies, batch by batch


def _count_tokens(served: Served, view_request: ViewRequest, samples: int) -> Iterator[Any]:
    how = view_request.settings
    return count_tokens(
        served.model, view_request.label, samples, how.amplification, view_request.seeds[0], how.sampling
    )


def _compare_schedules(served: Served, view_request: ViewRequest, samples: int, labels: list[int]) -> Iterator[Any]:
    return compare_schedules(served.model, labels, samples, view_request.seeds[0], view_request.settings.sampling)


def _ablate(served: Served, view_request: ViewRequest, empty: sheets.Sheet) -> Iterator[Any]:
    return sheets.draw_sheet(served.model, empty, classifier_of(served.model) if has_classifier(served.model) else None)


def _dose(served: Served, view_request: ViewRequest, stage: str, knob: Knob) -> Iterator[Any]:
    seeds = range(view_request.seeds[0], view_request.seeds[0] + SEEDS)
    return sweep(
        served.model, classifier_of(served.model), view_request.label, stage, knob, view_request.settings, seeds
    )


def _verdict(served: Served, distill_request: DistillRequest, path: Path, data: str | None) -> Iterator[SetVerdict]:
    model: AnyModel = served.model
    vqvae = vqvae_of(model.latents) if isinstance(model, DiffusionModel) else model.vqvae
    return judge_set(path, classifier_of(model) if has_classifier(model) else None, vqvae, data)


def _estimate(served: Served, distill_request: DistillRequest) -> Iterator[Estimating]:
    return estimating(served.model, distill_request.num_images, distill_request.settings, distill_request.soft_labels)


def _occlusion(served: Served, view_request: ViewRequest, asked: Mapping[str, Any]) -> Iterator[Piece]:
    return occlusion_view(served.model, view_request, asked, served.recent)


def _position(served: Served, view_request: ViewRequest, asked: Mapping[str, Any]) -> Iterator[Piece]:
    return position_view(served.model, view_request, asked, served.looks, served.memory)


def _saved(served: Served, view_request: ViewRequest, asked: Mapping[str, Any]) -> Iterator[Piece]:
    return saving(served.model, view_request, asked, served.recent)


_STUDIES: dict[str, tuple[Callable[..., Iterator[Any]], Callable[..., int]]] = {  # and how many images they draw
    "count_tokens": (_count_tokens, lambda samples: 2 * samples),
    "compare_schedules": (_compare_schedules, lambda samples, labels: len(SCHEDULES) * samples * len(labels)),
    "ablate": (_ablate, lambda empty: len(empty.view_requests)),
    "dose": (_dose, lambda stage, knob: (1 + DOSES) * SEEDS),
    "verdict": (_verdict, lambda path, data: _AS_LONG_AS_CAN_BE if data else 1000),
    "estimate": (_estimate, lambda: 4 * PILOT_IMAGES),
    "occlusion": (_occlusion, lambda asked: 2 * MAX_COUNT),
    "position": (_position, lambda asked: 2 * MAX_COUNT),
    "saved": (_saved, lambda asked: 2 * MAX_COUNT),
}
_AS_LONG_AS_CAN_BE = 10**9  # images: a student trains for a minute


def _seconds_of_study(key: int, what: str, asked: ViewRequest | DistillRequest, *more: Any) -> int:
    return _seconds(key, _STUDIES[what][1](*more))


@gpu(_seconds_of_study)
def _study(key: int, what: str, asked: ViewRequest | DistillRequest, *more: Any) -> Generator[Any, None, None]:
    try:
        yield from _STUDIES[what][0](_SERVED[key], asked, *more)
    except UserError as error:
        yield _Wrong(str(error))


def study(served: Served, what: str, asked: ViewRequest | DistillRequest, *more: Any) -> Generator[Any, None, None]:
    """count_tokens (samples), compare_schedules (samples of each, labels), ablate (an empty sheet), dose (stage, knob)
    or, of a set, estimate or verdict (its file, real images): what is found so far. occlusion, position and saved (what
    is asked for): the pieces of an answer.

    Raises:
        UserError: what these raise.
    """
    for found in _study(served.key, what, asked, *more):
        if isinstance(found, _Wrong):
            raise UserError(found.message)
        yield found


# Sets


def _seconds_of_turn(key: int, distill_request: DistillRequest, path: Path, batch_size: int | None) -> int:
    return START + TURN


@gpu(_seconds_of_turn)
def _distill(
    key: int, distill_request: DistillRequest, path: Path, batch_size: int | None
) -> Generator[Progress | _Wrong, None, None]:
    end = time.monotonic() + TURN
    try:
        for progress in planned(_SERVED[key].model, distill_request, path, batch_size):
            yield progress
            if on_zero_gpu and time.monotonic() > end:
                return
    except UserError as error:
        yield _Wrong(str(error))


def distilled(
    served: Served, distill_request: DistillRequest, path: Path, batch_size: int | None
) -> Generator[Progress, None, None]:
    """A set, with the progress after every batch; on ZeroGPU in turns of `TURN` seconds, each with a GPU of its own.

    Raises:
        UserError: the request cannot be followed.
        OSError: the disk is full.
    """
    while not path.exists():
        for progress in _distill(served.key, distill_request, path, batch_size):
            if isinstance(progress, _Wrong):
                raise UserError(progress.message)
            yield progress


def planned(model: Model, distill_request: DistillRequest, path: Path, batch_size: int | None) -> Any:
    """What `hieramp.distill` plans by a request: iterate to make it."""
    labels, soft = list(distill_request.labels), distill_request.soft_labels
    how: dict[str, Any] = {
        "classes": labels,
        "seed": distill_request.seed,
        "soft_labels": soft,
        "batch_size": batch_size,
    }
    return hieramp.distill(model, distill_request.ipc, path, distill_request.settings, **how)
