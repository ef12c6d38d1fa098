"""What the viewer in the browser is given: pure functions from drawings to plain values, without Gradio.

A scene holds everything of one order: per scale the pictures so far as lossless PNG, the saliency as numbers,
the positions chosen and the tokens that changed as lists of positions. Rows are those of the batch: first the
baselines, then the amplified ones of the same seeds. The browser lays one over the other; it computes nothing.
"""

import base64
import re
from typing import Any

from PIL import Image
from torch import Tensor

from app import kinds
from app.examples import notice
from app.kinds import AnyModel
from app.orders import Order, address, as_command, as_python, caption, described_one, short_name
from hieramp import Step, figures
from hieramp.analysis.tokens import changed_tokens

THUMB = 128  # pictures of unfinished scales carry at most this many pixels a side
NUM_BELIEFS = 5
SIDES = ("baseline", "amplified")

Scene = dict[str, Any]


def scene_of(model: AnyModel, order: Order) -> Scene:
    """The scene before anything is drawn."""
    return {
        "name": short_name(model.class_names[order.label]),
        "caption": caption(order, model.kind),
        "seeds": list(order.seeds),
        "unit": kinds.UNIT[model.kind],
        **kinds.frame(model, order.settings),
        "size": model.image_size,
        "python": as_python(model, order),
        "command": as_command(model, order),
        "query": address(model, order),
        "steps": [],
        "finals": None,
        "seconds": None,
        "notice": "",
    }


def with_step(model: AnyModel, scene: Scene, order: Order, step: Step) -> Scene:
    """The scene after one more scale; after the last one with the finished pictures."""
    is_last = step.scale == len(scene["sides"]) - 1
    steps = [*scene["steps"], step_view(model, order, step)]
    scene = {**scene, "steps": steps, "finals": finals(model, order, step.image) if is_last else None}
    return {**scene, "notice": notice(model, order, scene)} if is_last else scene


def step_view(model: AnyModel, order: Order, step: Step) -> dict[str, Any]:
    count = len(order.seeds)
    chosen = step.chosen(order.settings)
    changed = changed_tokens(step.tokens[:count], step.tokens[count:])
    return {
        "images": [data_uri(thumb(figures.to_picture(image))) for image in step.image],
        "maps": [numbers(m) for m in step.saliency],
        "chosen": None if chosen is None else [places(row) for row in chosen],
        "changed": [places(row) for row in changed],
        "moved": numbers((step.image[count:] - step.image[:count]).abs().mean((1, 2, 3))),
        "beliefs": _class_probabilities(model, step),
    }


def _class_probabilities(model: AnyModel, step: Step) -> list[list[tuple[str, float]]] | None:
    """Per row the likeliest classes in the eyes of the class token."""
    if step.class_probabilities is None:
        return None
    count = min(NUM_BELIEFS, len(model.class_names))
    values, labels = step.class_probabilities.topk(count, dim=-1)
    names = [[short_name(model.class_names[label]) for label in row] for row in labels.tolist()]
    return [list(zip(row, numbers(p), strict=True)) for row, p in zip(names, values, strict=True)]


def finals(model: AnyModel, order: Order, images: Tensor) -> list[dict[str, str]]:
    """Per row the finished picture with its settings inside, and the name of its file."""
    count, name = len(order.seeds), model.class_names[order.label]
    finals = []
    for row, image in enumerate(images):
        side, seed = row // count, order.seeds[row % count]
        uri = data_uri(figures.to_picture(image), described_one(model, order, seed, side))
        finals.append({"uri": uri, "file": file_name(name, f"seed{seed}-{SIDES[side]}.png")})
    return finals


def block_view(order: Order, steps: list[Step], block: int) -> dict[str, Any] | None:
    """The saliency of one block, per scale and row: the mean over heads, then each head; None without class tokens."""
    maps = []
    for step in steps:
        if step.block_saliency is None:
            return None
        heads = step.block_saliency[:, block]
        maps.append([[numbers(row.mean(0)), *map(numbers, row)] for row in heads])
    return {"block": block, "seeds": list(order.seeds), "maps": maps}


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
    return f"{re.sub('[^a-z0-9]+', '-', short_name(class_name).lower()).strip('-') or 'class'}-{rest}"


def numbers(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.flatten().tolist()]


def places(mask: Tensor) -> list[int]:
    return mask.flatten().nonzero().flatten().tolist()
