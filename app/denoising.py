"""How a diffusion transformer's pictures grow on the page: by noise level, where a VAR's grow by scale.

The scenes are those of app/scenes.py. A step shows the picture that the model foresees, its map M, and the positions
that it amplified, which were chosen by the map of the steps before.
"""

from collections.abc import Generator, Iterator
from typing import Any

from app import kinds, scenes
from app.orders import Order, described
from app.scenes import Scene
from hieramp import figures
from hieramp.diffusion.model import DiffusionModel, DiffusionStep


def shown(model: DiffusionModel, order: Order) -> Iterator[DiffusionStep]:
    """Baselines and amplified pictures in one batch, step by step, those steps that are shown."""
    wanted = set(kinds.shown_steps(order.settings))
    return (step for step in model.steps(*order.batch, maps=True) if step.index in wanted)


def grow(model: DiffusionModel, order: Order) -> Generator[Scene, None, None]:
    """The scene after every step that is shown."""
    scene = scenes.scene_of(model, order)
    for step in shown(model, order):
        scene = {**scene, "steps": [*scene["steps"], step_view(step)]}
        if step.is_last:
            scene = {**scene, "finals": scenes.finals(model, order, step.image)}
        yield scene


def step_view(step: DiffusionStep) -> dict[str, Any]:
    """A step as the viewer takes it; a diffusion transformer has neither tokens that could differ nor class tokens."""
    return {
        "images": [scenes.data_uri(scenes.thumb(figures.to_picture(image))) for image in step.image],
        "maps": [scenes.numbers(m) for m in step.saliency],
        "chosen": [scenes.places(row) for row in step.amplified],
        "changed": None,
        "beliefs": None,
    }


def saliency(model: DiffusionModel, order: Order) -> dict[str, Any]:
    """Per step that is shown the maps of both pictures for one seed, and the positions that it amplified."""
    found = []
    for step in shown(model, order):
        about: dict[str, Any] = {"step": step.index, "t": step.following.t, "side": step.saliency.shape[-1]}
        for row, label in enumerate(scenes.SIDES):
            about[label] = {"saliency": step.saliency[row].tolist()}
        found.append({**about, "chosen": scenes.places(step.amplified[1])})
    return {"settings": described(model, order), "steps": found}
