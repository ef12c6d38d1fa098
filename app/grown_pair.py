"""What the viewer shows of a sample, and its pair of pictures as it grew, with the maps over it. Pure.

A pair of pictures is a sample's baseline and its amplified one. P stands for these two, n for positions a side.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from app import denoising, handlers, kinds
from app.denoising import RecentGrowth
from app.distill_requests import has_classifier
from app.kinds import AnyModel
from app.pieces import Piece
from app.verdicts import occlusion_view
from app.view_requests import ViewRequest, whole
from hieramp import Step
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.fields import Number
from hieramp.generation.memory import RecentDrawings

T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """What a visitor looks at, checked."""

    sample: int
    scale: int
    overlay: float  # of the map over the pictures, 0 to 1
    outline: bool
    shared: bool  # whether both maps have one colour scale
    finished: bool  # whether the finished pictures lie below, whatever the scale
    compare: bool
    block: int | None  # None: the one that is amplified
    head: int  # 0: the mean of all
    occlusion: bool  # whether the map is the classifier's


@dataclass(frozen=True)
class GrownPair:
    """A pair as it grew."""

    titles: tuple[str, ...]  # of the steps
    images: tuple[Tensor, ...]  # per step (P, 3, H, W) in [0, 1]
    maps: tuple[Tensor, ...]  # per step (P, n, n)
    chosen: tuple[Tensor | None, ...]  # per step (P, n, n) bool; None where nothing is amplified
    arrays: dict[str, NDArray[Any]]  # all there is to know of the maps, by name


def read_shown(model: AnyModel, view_request: ViewRequest, asked: Mapping[str, Any]) -> Shown:
    """What the viewer tells of itself.

    Raises:
        UserError: a sample, scale, block or head that is not there, or an overlay that is no share.
    """
    last = len(kinds.frame(model, view_request.settings)["sides"]) - 1
    overlay = Number().check("the overlay", asked.get("overlay", 0))
    if not 0 <= overlay <= 1:
        raise UserError(f"the overlay is {overlay:g}; give a share from 0 to 1")
    block, head = None, 0
    if not isinstance(model, DiffusionModel):
        config = model.var.config
        block = None if asked.get("block") is None else whole("the block", asked["block"], 0, config.depth - 1)
        head = whole("the head", asked.get("head", 0), 0, config.num_heads)
    return Shown(
        sample=whole("the sample", asked.get("sample", 0), 0, len(view_request.seeds) - 1),
        scale=whole("the scale", asked.get("scale", last), 0, last),
        overlay=float(overlay),
        outline=bool(asked.get("outline")),
        shared=bool(asked.get("shared", True)),
        finished=bool(asked.get("finished")),
        compare=bool(asked.get("compare")),
        block=block,
        head=head,
        occlusion=bool(asked.get("occlusion")) and has_classifier(model),
    )


def draw(
    model: AnyModel, view_request: ViewRequest, shown: Shown, memory: handlers.Memory | None = None
) -> Generator[Piece, None, GrownPair]:
    """The pair that is looked at, with the maps that lie over it; on the way what is done of it.

    Raises:
        UserError: a block is asked for, and the model has no class tokens.
    """
    drawn = yield from _bare(model, view_request, shown, memory)
    if not shown.occlusion:
        return drawn
    view: dict[str, Any] | None = None
    for piece in occlusion_view(model, view_request, {"sample": shown.sample}, memory):
        view = piece.answer
        yield replace(piece, answer=None)
    assert view is not None
    maps = tuple(torch.tensor(pair).view_as(m) for pair, m in zip(view["maps"], drawn.maps, strict=True))
    return replace(drawn, maps=maps, arrays=drawn.arrays | {f"occlusion_{i}": _array(m) for i, m in enumerate(maps)})


def _bare(
    model: AnyModel, view_request: ViewRequest, shown: Shown, memory: handlers.Memory | None
) -> Generator[Piece, None, GrownPair]:
    """The pair with the model's own maps."""
    rows = [shown.sample, len(view_request.seeds) + shown.sample]
    titles = tuple(_titles(model, view_request))
    if isinstance(model, DiffusionModel):
        growth = memory if isinstance(memory, RecentGrowth) else None
        steps = yield from _collected(denoising.shown(model, view_request, growth), len(titles))
        arrays = {f"saliency_{i}": _array(step.saliency[rows]) for i, step in enumerate(steps)}
        arrays |= {f"chosen_{i}": step.amplified[rows].cpu().numpy() for i, step in enumerate(steps)}
        return GrownPair(
            titles,
            tuple(step.image[rows].cpu() for step in steps),
            tuple(step.saliency[rows].cpu() for step in steps),
            tuple(step.amplified[rows].cpu().view_as(step.saliency[rows]) for step in steps),
            arrays,
        )
    recent = memory if isinstance(memory, RecentDrawings) else None
    grown = yield from _collected(handlers.steps_of(model, view_request, recent), len(titles))
    chosen = [step.chosen(view_request.settings) for step in grown]
    maps = [_map_of(model.name, step, rows, shown) for step in grown]
    arrays = _var_arrays(grown, rows, chosen)
    return GrownPair(
        titles,
        tuple(step.image[rows].cpu() for step in grown),
        tuple(maps),
        # nothing is amplified in a baseline, which is marked as the viewer marks it: where it would be
        tuple(None if mask is None else mask[rows].cpu() for mask in chosen),
        arrays,
    )


def _collected(steps: Iterable[T], count: int) -> Generator[Piece, None, list[T]]:
    collected = list[T]()
    for step in steps:
        collected.append(step)
        yield Piece("drawing", len(collected), count)
    return collected


def _titles(model: AnyModel, view_request: ViewRequest) -> list[str]:
    frame, unit = kinds.frame(model, view_request.settings), kinds.UNIT[model.kind]
    return [f"{unit} {number}, {title}" for number, title in zip(frame["numbers"], frame["titles"], strict=True)]


def _map_of(name: str, step: Step, rows: Sequence[int], shown: Shown) -> Tensor:
    if shown.block is None:
        return step.saliency[rows].cpu()
    if step.block_saliency is None:
        raise UserError(f"{name} has no class tokens, so no block has a saliency of its own: choose the amplified one")
    heads = step.block_saliency[rows, shown.block].cpu()
    return heads[:, shown.head - 1] if shown.head else heads.mean(1)


def _var_arrays(steps: Sequence[Step], rows: Sequence[int], chosen: Sequence[Tensor | None]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for i, (step, mask) in enumerate(zip(steps, chosen, strict=True)):
        arrays[f"saliency_{i}"] = _array(step.saliency[rows])
        arrays[f"tokens_{i}"] = step.tokens[rows].view(2, step.side, step.side).cpu().numpy()
        if mask is not None:
            arrays[f"chosen_{i}"] = mask[rows].cpu().numpy()
        if step.block_saliency is not None:
            arrays[f"block_saliency_{i}"] = _array(step.block_saliency[rows])
    return arrays


def _array(x: Tensor) -> NDArray[Any]:
    return x.detach().float().cpu().numpy()
