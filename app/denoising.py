"""How a diffusion transformer's pictures grow on the page: by noise level, where a VAR's grow by scale.

The view models are those of app/view_models.py. A step shows the picture that the model foresees, its map M, and the
positions that it amplified, which were chosen by the map of the steps before.
"""

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from app import kinds, view_models
from app.view_models import ViewModel
from app.view_requests import ViewRequest, described
from hieramp import figures
from hieramp.diffusion.model import DiffusionModel, DiffusionStep


@dataclass(frozen=True)
class ShownStep:
    """What is shown of a step, of all images of a batch."""

    index: int
    t: float  # where it led
    is_last: bool
    image: Tensor  # (B, 3, H, W) in [0, 1]
    saliency: Tensor  # (B, n, n)
    amplified: Tensor  # (B, n, n) bool

    @classmethod
    def of(cls, step: DiffusionStep) -> "ShownStep":
        return cls(step.index, step.following.t, step.is_last, step.image, step.saliency, step.amplified)

    @property
    def side(self) -> int:
        """Positions of its map a side."""
        return self.saliency.shape[-1]

    @property
    def num_bytes(self) -> int:
        return self.image.nbytes + self.saliency.nbytes + self.amplified.nbytes


class RecentGrowth:
    """The newest drawings of one model as they grew, up to `max_bytes` together: whoever asks about the pair on screen
    does not draw it again. The oldest go first. Safe among threads."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[ViewRequest, tuple[ShownStep, ...]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        return sum(step.num_bytes for steps in self._kept.values() for step in steps)

    def find(self, view_request: ViewRequest) -> tuple[ShownStep, ...] | None:
        with self._lock:
            if view_request in self._kept:
                self._kept.move_to_end(view_request)
            return self._kept.get(view_request)

    def keep(self, view_request: ViewRequest, steps: tuple[ShownStep, ...]) -> None:
        with self._lock:
            self._kept[view_request] = steps
            while self._kept and self.num_bytes > self.max_bytes:
                self._kept.popitem(last=False)


def shown(model: DiffusionModel, view_request: ViewRequest, memory: RecentGrowth | None = None) -> Iterator[ShownStep]:
    """Baselines and amplified pictures in one batch, step by step, those steps that are shown."""
    known = memory.find(view_request) if memory else None
    if known is not None:
        yield from known
        return
    wanted, steps = set(kinds.shown_steps(view_request.settings)), list[ShownStep]()
    for step in model.steps(*view_request.batch, maps=True):
        if step.index in wanted:
            steps.append(ShownStep.of(step))
            yield steps[-1]
    if memory:
        memory.keep(view_request, tuple(steps))


def grow(
    model: DiffusionModel, view_request: ViewRequest, memory: RecentGrowth | None = None
) -> Generator[ViewModel, None, None]:
    """The view model after every step that is shown."""
    view_model = view_models.view_model_of(model, view_request)
    for step in shown(model, view_request, memory):
        view_model = {**view_model, "steps": [*view_model["steps"], step_view(step)]}
        if step.is_last:
            view_model = {**view_model, "finals": view_models.finals(model, view_request, step.image)}
        yield view_model


def step_view(step: ShownStep) -> dict[str, Any]:
    """A step as the viewer takes it; a diffusion transformer has neither tokens that could differ nor class tokens."""
    count = len(step.image) // 2
    return {
        "images": [view_models.data_uri(view_models.thumb(figures.to_picture(image))) for image in step.image],
        "maps": [view_models.numbers(m) for m in step.saliency],
        "chosen": [view_models.places(row) for row in step.amplified],
        "changed": None,
        "moved": view_models.moved(step.image[:count], step.image[count:]),
        "beliefs": None,
    }


def saliency(model: DiffusionModel, view_request: ViewRequest) -> dict[str, Any]:
    """Per step that is shown the maps of both pictures for one seed, and the positions that it amplified."""
    found = []
    for step in shown(model, view_request):
        about: dict[str, Any] = {"step": step.index, "t": step.t, "side": step.side}
        for row, label in enumerate(view_models.SIDES):
            about[label] = {"saliency": step.saliency[row].tolist()}
        found.append({**about, "chosen": view_models.places(step.amplified[1])})
    return {"settings": described(model, view_request), "steps": found}
