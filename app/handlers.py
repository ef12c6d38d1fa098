"""What the page draws, as plain functions and generators on a model; Gradio is not needed to run or test them."""

import secrets
import time
from collections.abc import Generator, Iterator
from typing import Any

from app import denoising, view_models
from app.denoising import RecentGrowth, ShownStep
from app.kinds import AnyModel
from app.view_models import ViewModel
from app.view_requests import ViewRequest, described, described_one, whole
from hieramp import Model, Step, figures
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.generation.memory import Prefix, PrefixCache, RecentDrawings
from hieramp.generation.request import Request
from hieramp.var.model import VAR

Memory = RecentDrawings | RecentGrowth  # of a VAR, of a diffusion transformer


class Watched:
    """A memory, and whether a drawing went on from something in it."""

    def __init__(self, memory: PrefixCache) -> None:
        self.memory, self.has_helped = memory, False

    def best(self, request: Request, var: VAR) -> Prefix | None:
        found = self.memory.best(request, var)
        self.has_helped = self.has_helped or found is not None
        return found

    def keep(self, prefix: Prefix, var: VAR) -> None:
        self.memory.keep(prefix, var)


def steps_of(model: Model, view_request: ViewRequest, memory: PrefixCache | None = None) -> Iterator[Step]:
    """Baselines and amplified pictures in one batch, scale by scale, with what the class tokens tell."""
    return model.steps(*view_request.batch, return_attention=True, memory=memory)


def shown_steps(
    model: AnyModel, view_request: ViewRequest, memory: Memory | None = None
) -> Iterator[Step] | Iterator[ShownStep]:
    """The same of a model of either kind: the steps that are shown."""
    if isinstance(model, DiffusionModel):
        return denoising.shown(model, view_request, memory if isinstance(memory, RecentGrowth) else None)
    return steps_of(model, view_request, memory if isinstance(memory, RecentDrawings) else None)


def grow(model: AnyModel, view_request: ViewRequest, memory: Memory | None = None) -> Generator[ViewModel, None, None]:
    """The view model after every scale; with the last one the seconds that it took, unless some came from memory."""
    if isinstance(model, DiffusionModel):
        growth = memory if isinstance(memory, RecentGrowth) else None
        yield from denoising.grow(model, view_request, growth)
        return
    watched = Watched(memory) if isinstance(memory, RecentDrawings) else None
    view_model, seconds = view_models.view_model_of(model, view_request), 0.0
    steps, started = steps_of(model, view_request, watched), time.perf_counter()
    for step in steps:
        view_model = view_models.with_step(model, view_model, view_request, step)
        seconds += time.perf_counter() - started  # whoever watches may take their time
        if view_model["finals"] and not (watched and watched.has_helped):
            view_model["seconds"] = seconds
        yield view_model
        started = time.perf_counter()


def block_view(
    model: Model,
    view_request: ViewRequest,
    sample: float | None,
    block: float | None,
    memory: RecentDrawings | None = None,
) -> dict[str, Any]:
    """The saliency of one block of one sample, with every head.

    Raises:
        UserError: a sample or block that is not there, or a model without class tokens.
    """
    if isinstance(model, DiffusionModel):
        raise UserError(f"{model.name} has no class tokens, so no block has a saliency of its own")
    i = whole("the sample", sample, 0, len(view_request.seeds) - 1)
    wanted = whole("the block", block, 0, model.var.config.depth - 1)
    steps = list(steps_of(model, view_request, memory))
    view = view_models.block_view(view_request, steps, wanted)
    if view is None:
        raise UserError(f"{model.name} has no class tokens, so no block has a saliency of its own")
    rows = (i, len(view_request.seeds) + i)
    return {**view, "sample": i, "maps": [[maps[row] for row in rows] for maps in view["maps"]]}


def generate(model: Model, view_request: ViewRequest) -> dict[str, Any]:
    """Settings and finished pictures, as data: addresses of PNGs."""
    images = model.generate(*view_request.batch).images
    count = len(view_request.seeds)
    answer: dict[str, Any] = {"settings": described(model, view_request)}
    for side, label in enumerate(view_models.SIDES):
        answer[label] = [
            view_models.data_uri(
                figures.to_picture(images[side * count + i]), described_one(model, view_request, seed, side)
            )
            for i, seed in enumerate(view_request.seeds)
        ]
    return answer


def saliency(model: Model, view_request: ViewRequest) -> dict[str, Any]:
    """Per scale the saliency maps and beliefs of both pictures of a request for one seed."""
    if isinstance(model, DiffusionModel):
        return denoising.saliency(model, view_request)
    maps = []
    for step in steps_of(model, view_request):
        view = view_models.step_view(model, view_request, step)
        about: dict[str, Any] = {"scale": step.scale, "side": step.side}
        for row, label in enumerate(view_models.SIDES):
            about[label] = {"saliency": step.saliency[row].tolist(), "beliefs": (view["beliefs"] or [None] * 2)[row]}
        maps.append({**about, "chosen": (view["chosen"] or [None] * 2)[1], "changed": view["changed"][0]})
    return {"settings": described(model, view_request), "scales": maps}


def random_class(model: Model, besides: Any = None) -> int:
    """The label of any class but the one that is there, where there are others."""
    found, count = secrets.randbelow(len(model.class_names)), len(model.class_names)
    return (found + 1) % count if found == besides else found


def random_seed(besides: Any = None) -> int:
    """Short enough to be read aloud, and not the one that is there."""
    found = secrets.randbelow(100_000)
    return (found + 1) % 100_000 if found == besides else found
