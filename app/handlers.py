"""What the page draws, as plain functions and generators on a model; Gradio is not needed to run or test them."""

import secrets
import time
from collections.abc import Generator, Iterator
from typing import Any

from app import denoising, scenes
from app.orders import Order, described, described_one, whole
from app.scenes import Scene
from hieramp import Model, Step, figures
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.generation.memory import Memory, Prefix, RecentDrawings
from hieramp.generation.request import Request
from hieramp.var.model import VAR


class Watched:
    """A memory, and whether a drawing went on from something in it."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.has_helped = memory, False

    def best(self, request: Request, var: VAR) -> Prefix | None:
        found = self.memory.best(request, var)
        self.has_helped = self.has_helped or found is not None
        return found

    def keep(self, prefix: Prefix, var: VAR) -> None:
        self.memory.keep(prefix, var)


def steps_of(model: Model, order: Order, memory: Memory | None = None) -> Iterator[Step]:
    """Baselines and amplified pictures in one batch, scale by scale, with what the class tokens tell."""
    return model.steps(*order.batch, return_attention=True, memory=memory)


def grow(model: Model, order: Order, memory: RecentDrawings | None = None) -> Generator[Scene, None, None]:
    """The scene after every scale; with the last one the seconds that it took, unless some came from memory."""
    if isinstance(model, DiffusionModel):
        yield from denoising.grow(model, order)
        return
    scene, watched, seconds = scenes.scene_of(model, order), Watched(memory) if memory else None, 0.0
    steps, started = steps_of(model, order, watched), time.perf_counter()
    for step in steps:
        scene = scenes.with_step(model, scene, order, step)
        seconds += time.perf_counter() - started  # whoever watches may take their time
        if scene["finals"] and not (watched and watched.has_helped):
            scene["seconds"] = seconds
        yield scene
        started = time.perf_counter()


def block_view(
    model: Model, order: Order, sample: float | None, block: float | None, memory: RecentDrawings | None = None
) -> dict[str, Any]:
    """The saliency of one block of one sample, with every head.

    Raises:
        UserError: a sample or block that is not there, or a model without class tokens.
    """
    if isinstance(model, DiffusionModel):
        raise UserError(f"{model.name} has no class tokens, so no block has a saliency of its own")
    i = whole("the sample", sample, 0, len(order.seeds) - 1)
    wanted = whole("the block", block, 0, model.var.config.depth - 1)
    steps = list(steps_of(model, order, memory))
    view = scenes.block_view(order, steps, wanted)
    if view is None:
        raise UserError(f"{model.name} has no class tokens, so no block has a saliency of its own")
    rows = (i, len(order.seeds) + i)
    return {**view, "sample": i, "maps": [[maps[row] for row in rows] for maps in view["maps"]]}


def generate(model: Model, order: Order) -> dict[str, Any]:
    """Settings and finished pictures, as data: addresses of PNGs."""
    images = model.generate(*order.batch).images
    count = len(order.seeds)
    answer: dict[str, Any] = {"settings": described(model, order)}
    for side, label in enumerate(scenes.SIDES):
        answer[label] = [
            scenes.data_uri(figures.to_picture(images[side * count + i]), described_one(model, order, seed, side))
            for i, seed in enumerate(order.seeds)
        ]
    return answer


def saliency(model: Model, order: Order) -> dict[str, Any]:
    """Per scale the saliency maps and beliefs of both pictures of an order for one seed."""
    if isinstance(model, DiffusionModel):
        return denoising.saliency(model, order)
    maps = []
    for step in steps_of(model, order):
        view = scenes.step_view(model, order, step)
        about: dict[str, Any] = {"scale": step.scale, "side": step.side}
        for row, label in enumerate(scenes.SIDES):
            about[label] = {"saliency": step.saliency[row].tolist(), "beliefs": (view["beliefs"] or [None] * 2)[row]}
        maps.append({**about, "chosen": (view["chosen"] or [None] * 2)[1], "changed": view["changed"][0]})
    return {"settings": described(model, order), "scales": maps}


def random_class(model: Model, besides: Any = None) -> int:
    """The label of any class but the one that is there, where there are others."""
    found, count = secrets.randbelow(len(model.class_names)), len(model.class_names)
    return (found + 1) % count if found == besides else found


def random_seed(besides: Any = None) -> int:
    """Short enough to be read aloud, and not the one that is there."""
    found = secrets.randbelow(100_000)
    return (found + 1) % 100_000 if found == besides else found
