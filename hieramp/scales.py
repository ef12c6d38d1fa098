"""The scales of a VAR: sides, where each scale lies in the token sequence, and its stage.

A model with S scales draws S square token maps, map s of side n_s, from coarse to fine.
Its sequence is their concatenation: L = sum of n_s² tokens.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from hieramp.errors import UserError

STAGES = ("coarse", "mid", "fine")
OFFICIAL_SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


@dataclass(frozen=True)
class Scales:
    """Sides of the token maps, coarsest first; sides[0] is 1 and the sides never shrink."""

    sides: tuple[int, ...]

    def __post_init__(self) -> None:
        sides = self.sides
        if len(sides) < 2 or sides[0] != 1 or any(a >= b for a, b in pairwise(sides)):
            raise UserError(f"sides must start at 1 and grow, like {OFFICIAL_SIDES}; got {sides}")

    def __len__(self) -> int:
        return len(self.sides)

    @property
    def num_tokens(self) -> int:
        """L, the length of the whole sequence."""
        return self.spans[-1].stop

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """Where each scale lies in the sequence."""
        spans, start = [], 0
        for side in self.sides:
            spans.append(slice(start, start + side * side))
            start += side * side
        return tuple(spans)

    @cached_property
    def stages(self) -> dict[str, tuple[int, ...]]:
        """The scales of each stage. Scale 0 has one position and belongs to none (docs/method.md).

        Scales 1 … S-1 in three contiguous groups as equal as possible; the finer groups take the remainder.
        """
        count, extra = divmod(len(self.sides) - 1, len(STAGES))
        groups: dict[str, tuple[int, ...]] = {}
        start = 1
        for i, stage in enumerate(STAGES):
            stop = start + count + (i >= len(STAGES) - extra)
            groups[stage] = tuple(range(start, stop))
            start = stop
        return groups

    def stage_of(self, scale: int) -> str | None:
        """The stage of `scale`, None for scale 0."""
        return next((stage for stage, scales in self.stages.items() if scale in scales), None)
