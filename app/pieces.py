"""Answers that take longer than a moment, piece by piece: how far they are. Pure."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Piece:
    """An answer on its way."""

    doing: str  # the part of the work that `done` of `of` are of
    done: int
    of: int
    answer: dict[str, Any] | None = None  # with the last piece
