"""What the viewer in the browser is given: pure functions from drawings to plain values, without Gradio.

A view model holds everything of one request: per scale the pictures so far as lossless PNG, the saliency as numbers,
the positions chosen and the tokens that changed as lists of positions. Rows are those of the batch: first the
baselines, then the amplified ones of the same seeds. The browser lays one over the other; it computes nothing.
"""

import base64
from typing import Any

from PIL import Image
from torch import Tensor

from app import kinds
from app.examples import notice
from app.kinds import AnyModel
from app.names import name_of
from app.view_requests import ViewRequest, address, as_command, as_python, caption, described_one
from hieramp import Step, figures
from hieramp.analysis.tokens import changed_tokens
from hieramp.class_names import slug

THUMB = 128  # pictures of unfinished scales carry at most this many pixels a side
NUM_BELIEFS = 5
SIDES = ("baseline", "amplified")

ViewModel = dict[str, Any]


def view_model_of(model: AnyModel, view_request: ViewRequest) -> ViewModel:
    """The view model before anything is drawn."""
    return {
        "name": name_of(model, view_request.label),
        "caption": caption(view_request, model.kind),
        "seeds": list(view_request.seeds),
        "unit": kinds.UNIT[model.kind],
        **kinds.frame(model, view_request.settings),
        "size": model.image_size,
        "python": as_python(model, view_request),
        "command": as_command(model, view_request),
        "query": address(model, view_request),
        "steps": [],
        "finals": None,
        "seconds": None,
        "notice": "",
    }


def with_step(model: AnyModel, view_model: ViewModel, view_request: ViewRequest, step: Step) -> ViewModel:
    """The view model after one more scale; after the last one with the finished pictures."""
    is_last = step.scale == len(view_model["sides"]) - 1
    steps = [*view_model["steps"], step_view(model, view_request, step)]
    view_model = {**view_model, "steps": steps, "finals": finals(model, view_request, step.image) if is_last else None}
    return {**view_model, "notice": notice(model, view_request, view_model)} if is_last else view_model


def step_view(model: AnyModel, view_request: ViewRequest, step: Step) -> dict[str, Any]:
    count = len(view_request.seeds)
    chosen = step.chosen(view_request.settings)
    changed = changed_tokens(step.tokens[:count], step.tokens[count:])
    return {
        "images": [data_uri(thumb(figures.to_picture(image))) for image in step.image],
        "maps": [numbers(m) for m in step.saliency],
        "chosen": None if chosen is None else [places(row) for row in chosen],
        "changed": [places(row) for row in changed],
        "moved": moved(step.image[:count], step.image[count:]),
        "beliefs": _class_probabilities(model, step),
    }


def _class_probabilities(model: AnyModel, step: Step) -> list[list[tuple[str, float]]] | None:
    """Per row the likeliest classes in the eyes of the class token."""
    if step.class_probabilities is None:
        return None
    count = min(NUM_BELIEFS, len(model.class_names))
    values, labels = step.class_probabilities.topk(count, dim=-1)
    names = [[name_of(model, label) for label in row] for row in labels.tolist()]
    return [list(zip(row, numbers(p), strict=True)) for row, p in zip(names, values, strict=True)]


def finals(model: AnyModel, view_request: ViewRequest, images: Tensor) -> list[dict[str, str]]:
    """Per row the finished picture with its settings inside, and the name of its file."""
    count, name = len(view_request.seeds), name_of(model, view_request.label)
    finals = []
    for row, image in enumerate(images):
        side, seed = row // count, view_request.seeds[row % count]
        uri = data_uri(figures.to_picture(image), described_one(model, view_request, seed, side))
        finals.append({"uri": uri, "file": file_name(name, f"seed{seed}-{SIDES[side]}.png")})
    return finals


def block_view(view_request: ViewRequest, steps: list[Step], block: int) -> dict[str, Any] | None:
    """The saliency of one block, per scale and row: the mean over heads, then each head; None without class tokens."""
    maps = []
    for step in steps:
        if step.block_saliency is None:
            return None
        heads = step.block_saliency[:, block]
        maps.append([[numbers(row.mean(0)), *map(numbers, row)] for row in heads])
    return {"block": block, "seeds": list(view_request.seeds), "maps": maps}


def thumb(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((THUMB, THUMB))
    return small


def data_uri(picture: Image.Image, settings: dict[str, Any] | None = None) -> str:
    """A PNG as a data: address; `settings` go into it where `hieramp.figures.read_settings` finds them."""
    return png_uri(figures.png_bytes(picture, settings))


def png_uri(data: bytes) -> str:
    """A PNG file as a data: address."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def file_name(class_name: str, rest: str) -> str:
    """A name that every file system takes."""
    return f"{slug(class_name)}-{rest}"


def moved(plain: Tensor, amplified: Tensor) -> list[float]:
    """By how much the pixels of pictures differ from those of others, on average, of 1."""
    return numbers((amplified - plain).abs().mean((1, 2, 3)))


def numbers(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.flatten().tolist()]


def places(mask: Tensor) -> list[int]:
    return mask.flatten().nonzero().flatten().tolist()
