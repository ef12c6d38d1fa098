"""How a diffusion transformer's pictures grow on the page: by noise level, where a VAR's grow by scale.

The view models are those of app/view_models.py. A step shows the picture that the model foresees, its map M, and the
positions that it amplified, which were chosen by the map of the steps before.
"""

from collections.abc import Generator, Iterator
from typing import Any

from app import kinds, view_models
from app.view_models import ViewModel
from app.view_requests import ViewRequest, described
from hieramp import figures
from hieramp.diffusion.model import DiffusionModel, DiffusionStep


def shown(model: DiffusionModel, view_request: ViewRequest) -> Iterator[DiffusionStep]:
    """Baselines and amplified pictures in one batch, step by step, those steps that are shown."""
    wanted = set(kinds.shown_steps(view_request.settings))
    return (step for step in model.steps(*view_request.batch, maps=True) if step.index in wanted)


def grow(model: DiffusionModel, view_request: ViewRequest) -> Generator[ViewModel, None, None]:
    """The view model after every step that is shown."""
    view_model = view_models.view_model_of(model, view_request)
    for step in shown(model, view_request):
        view_model = {**view_model, "steps": [*view_model["steps"], step_view(step)]}
        if step.is_last:
            view_model = {**view_model, "finals": view_models.finals(model, view_request, step.image)}
        yield view_model


def step_view(step: DiffusionStep) -> dict[str, Any]:
    """A step as the viewer takes it; a diffusion transformer has neither tokens that could differ nor class tokens."""
    return {
        "images": [view_models.data_uri(view_models.thumb(figures.to_picture(image))) for image in step.image],
        "maps": [view_models.numbers(m) for m in step.saliency],
        "chosen": [view_models.places(row) for row in step.amplified],
        "changed": None,
        "beliefs": None,
    }


def saliency(model: DiffusionModel, view_request: ViewRequest) -> dict[str, Any]:
    """Per step that is shown the maps of both pictures for one seed, and the positions that it amplified."""
    found = []
    for step in shown(model, view_request):
        about: dict[str, Any] = {"step": step.index, "t": step.following.t, "side": step.saliency.shape[-1]}
        for row, label in enumerate(view_models.SIDES):
            about[label] = {"saliency": step.saliency[row].tolist()}
        found.append({**about, "chosen": view_models.places(step.amplified[1])})
    return {"settings": described(model, view_request), "steps": found}
