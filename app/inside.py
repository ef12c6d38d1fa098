"""What the page shows of the inside of one token: plain values from `hieramp.analysis.mechanism`, without Gradio."""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from app import handlers
from app.pieces import Piece
from app.view_models import data_uri
from app.view_requests import ViewRequest, address, whole
from hieramp import Model, figures
from hieramp.analysis.mechanism import SIDES, AttentionRow, Mechanism, looking
from hieramp.generation.memory import RecentDrawings

AGAIN = "drawing it again, position by position"
KEPT = 4  # scales that were looked into last: another position of the same scale is then there at once
SHOWN = 8  # a difference of pictures is shown so many times as strong


class Looks:
    """The scales that were looked into last, of one model. Safe among threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Mechanism] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self,
        model: Model,
        view_request: ViewRequest,
        sample: int,
        scale: int,
        block: int | None,
        memory: RecentDrawings | None,
    ) -> Iterator[Piece | Mechanism]:
        """One scale of a sample's pair of pictures, at last, looked into anew where it is not at hand."""
        key = json.dumps([address(model, view_request), sample, scale, block])
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            steps = []
            for step in handlers.steps_of(model, view_request, memory):
                steps.append(step)
                yield Piece("drawing", len(steps), len(model.var.scales))
            rows = (sample, len(view_request.seeds) + sample)
            plain, amplified = ([step.tokens[row] for step in steps] for row in rows)
            what = (view_request.label, view_request.seeds[sample], view_request.settings)
            for so_far in looking(model, *what, scale, block, (plain, amplified)):
                found = so_far.found
                if found is None:
                    yield Piece(AGAIN, so_far.done, so_far.of)
        assert found is not None
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        yield found


def position_view(
    model: Model,
    view_request: ViewRequest,
    asked: Mapping[str, Any],
    looks: Looks,
    memory: RecentDrawings | None = None,
) -> Iterator[Piece]:
    """Everything about one position, piece by piece.

    `asked` names sample, scale, position, head (0: the mean) and perhaps a block.

    Raises:
        UserError: one of them is not there.
    """
    config = model.var.config
    sample = whole("the sample", asked.get("sample"), 0, len(view_request.seeds) - 1)
    scale = whole("the scale", asked.get("scale"), 0, len(config.sides) - 1)
    block = None if asked.get("block") is None else whole("the block", asked["block"], 0, config.depth - 1)
    head = whole("the head", asked.get("head", 0), 0, config.num_heads)
    position = whole("the position", asked.get("position"), 0, config.sides[scale] ** 2 - 1)
    for found in looks.find(model, view_request, sample, scale, block, memory):
        if isinstance(found, Piece):
            yield found
        else:
            view = _view_of(found, position, head)
            about = {
                "key": address(model, view_request),
                "sample": sample,
                "sides": list(config.sides[: scale + 1]),
                "mode": view_request.settings.mode,
            }
            of = model.var.scales.spans[scale].stop
            yield Piece(AGAIN, of, of, about | view)


def _view_of(found: Mechanism, position: int, head: int) -> dict[str, Any]:
    """What a look says of one position."""
    codes, added = found.likeliest(position), found.added(position)
    shares = {side: found.sides[side].probabilities(position)[codes] for side in SIDES}
    patches = found.patches(position, codes)
    left, top, wide = found.box(position)
    return {
        "scale": found.scale,
        "position": position,
        "block": found.block,
        "head": head,
        "amplified": found.is_amplified,
        "row": row_view(found.sides["amplified"].row(position), head),
        "plain": [round(x, 6) for x in _of_head(found.sides["baseline"].row(position).after, head).tolist()],
        "codes": [
            {
                "code": code,
                "patch": data_uri(figures.to_picture(patches[i])),
                "effect": data_uri(_stronger(patches[i] - patches[-1])),
                **{side: round(float(shares[side][i]), 5) for side in SIDES},
            }
            for i, code in enumerate(codes)
        ],
        "drawn": {
            "baseline": int(found.sides["baseline"].tokens_L[position]),
            "spared": found.sides["spared"].would_draw(position),
            "amplified": int(found.sides["amplified"].tokens_L[position]),
        },
        "kept": {side: int((found.sides[side].filtered_LV[position] > -torch.inf).sum()) for side in SIDES},
        "moved": {side: round(found.moved(position, side), 4) for side in ("spared", "baseline")},
        "added": {
            "image": data_uri(figures.to_picture(added.image)),
            "without": data_uri(figures.to_picture(added.without)),
            "difference": data_uri(_stronger(added.image - added.without)),
            "rms": added.rms,
            "box": [x / found.vqvae.config.image_size for x in (left, top, wide)],
        },
    }


def row_view(row: AttentionRow, head: int) -> dict[str, Any]:
    """An attention row of one head, or of their mean."""
    before, after = _of_head(row.before, head), _of_head(row.after, head)
    return {
        "logits": [round(x, 3) for x in _of_head(row.logits_HK, head).tolist()],
        "before": [round(x, 6) for x in before.tolist()],
        "after": [round(x, 6) for x in after.tolist()],
        "chosen": row.chosen.nonzero()[:, 0].tolist(),
        "strength": float((row.bias_K if row.bias_K.any() else row.factor_K)[row.chosen][:1].sum()),
        "share": [round(float(weights[row.chosen].sum()), 4) for weights in (before, after)],
    }


def _stronger(difference: Tensor) -> Image.Image:
    """A difference of pictures, SHOWN times as strong around a middle grey."""
    return figures.to_picture(difference * SHOWN / 2 + 0.5)


def _of_head(x_HK: Tensor, head: int) -> Tensor:
    return x_HK[head - 1] if head else x_HK.mean(0)
