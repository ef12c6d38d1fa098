"""What to amplify: ρ and strength for each stage, how, and in which blocks.

method.md, "Saliency and amplification"; HierAmp, arXiv 2603.06932, Algorithm 1.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hieramp.scales import STAGES, Scales

Mode = Literal["logit", "attention"]
Where = Literal["salient", "least", "random"]
Stage = tuple[float, float]


@dataclass(frozen=True)
class ScaleStrength:
    """What happens at one scale: the share of positions and the strength; positions named by hand replace the share."""

    rho: float
    strength: float
    positions: tuple[int, ...] = ()
    where: Where = "salient"


@dataclass(frozen=True)
class Amplification:
    """(ρ, strength) for each stage; None leaves the stage alone.

    mode "logit": the strength is β, added to the logits of salient keys before the softmax; 0 is off.
    mode "attention": the strength is γ, by which the weights of salient keys are multiplied after the
    softmax, without renormalising; 1 is off, under 1 weakens.
    blocks: where to amplify, None for depth - 2. scales: a subset of the scales, None for all.
    positions: {scale: positions}, row by row from 0, to be amplified there instead of the most salient ones.
    where: which share ρ is meant, the most salient positions or, as controls that tell what the saliency is worth,
    the least salient ones or random ones (drawn from an image's label and seed, other ones at every scale).

    Raises:
        ValueError: ρ outside (0, 1], a strength that is not finite (or γ under 0), an unknown mode or `where`.
    """

    coarse: Stage | None = None
    mid: Stage | None = None
    fine: Stage | None = None
    mode: Mode = "logit"
    blocks: tuple[int, ...] | None = None
    scales: tuple[int, ...] | None = None
    positions: Mapping[int, Iterable[int]] | tuple[tuple[int, tuple[int, ...]], ...] | None = None  # kept as pairs
    where: Where = "salient"

    def __post_init__(self) -> None:
        if self.mode not in ("logit", "attention"):
            raise ValueError(f"mode is {self.mode!r}; it must be 'logit' or 'attention'")
        if self.where not in ("salient", "least", "random"):
            raise ValueError(f"where is {self.where!r}; it must be 'salient', 'least' or 'random'")
        for stage in STAGES:
            value = getattr(self, stage)
            if value is None:
                continue
            try:
                rho, strength = map(float, value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{stage} is {value!r}; give (rho, strength) or None") from error
            if not 0 < rho <= 1:
                raise ValueError(f"rho of {stage} is {rho:g}; it must be over 0 and at most 1 (100%)")
            if not math.isfinite(strength) or (self.mode == "attention" and strength < 0):
                need = "a number of at least 0" if self.mode == "attention" else "a finite number"
                raise ValueError(f"the strength of {stage} is {strength:g}; it must be {need}")
            object.__setattr__(self, stage, (rho, strength))
        for name in ("blocks", "scales"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _distinct(getattr(self, name)))
        if self.positions is not None:
            pairs = self.positions.items() if isinstance(self.positions, Mapping) else self.positions
            named = ((int(scale), _distinct(positions)) for scale, positions in pairs)
            object.__setattr__(self, "positions", tuple(sorted(pair for pair in named if pair[1])) or None)

    @property
    def neutral(self) -> float:
        """The strength that changes nothing."""
        return 0.0 if self.mode == "logit" else 1.0

    @property
    def is_off(self) -> bool:
        stages = (self.coarse, self.mid, self.fine)
        return all(stage is None or stage[1] == self.neutral for stage in stages)

    @property
    def named_positions(self) -> dict[int, tuple[int, ...]]:
        """Per scale the positions named by hand."""
        return {scale: tuple(named) for scale, named in dict(self.positions or ()).items()}

    def at(self, scale: int, scales: Scales) -> ScaleStrength | None:
        """What this does at `scale`; None where it changes nothing."""
        choice = self.choice_at(scale, scales)
        return None if choice is None or choice.strength == self.neutral else choice

    def choice_at(self, scale: int, scales: Scales) -> ScaleStrength | None:
        """The same, also where the strength chosen is the one that changes nothing."""
        stage = scales.stage_of(scale)
        if stage is None or (self.scales is not None and scale not in self.scales):
            return None
        value = getattr(self, stage)
        if value is None:
            return None
        rho, strength = value
        return ScaleStrength(rho, strength, self.named_positions.get(scale, ()), self.where)

    def resolved_blocks(self, depth: int) -> tuple[int, ...]:
        """The blocks to amplify in a model of this depth.

        Raises:
            ValueError: a block the model does not have.
        """
        if self.blocks is None:
            return (max(0, depth - 2),)
        for block in self.blocks:
            if not 0 <= block < depth:
                raise ValueError(f"block {block} does not exist: this model has blocks 0 to {depth - 1}")
        return self.blocks

    def read_block(self, depth: int) -> int:
        """The block whose saliency is reported: depth - 2 if it is amplified, else the last one that is."""
        blocks, default = self.resolved_blocks(depth), max(0, depth - 2)
        return default if default in blocks or self.is_off else blocks[-1]

    def check(self, scales: Scales, depth: int) -> None:
        """Raise ValueError where the blocks, scales or positions named are not the model's."""
        self.resolved_blocks(depth)
        named = self.named_positions
        for scale in (*(self.scales or ()), *named):
            if not 0 <= scale < len(scales):
                raise ValueError(f"scale {scale} does not exist: this model has scales 0 to {len(scales) - 1}")
        for scale, positions in named.items():
            last = scales.sides[scale] ** 2 - 1
            for position in positions:
                if not 0 <= position <= last:
                    raise ValueError(f"position {position} does not exist: scale {scale} has positions 0 to {last}")


def _distinct(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(map(int, numbers))))


OFF = Amplification()
# The paper's eight schedules: Section 4 and supplement F, which weakens one stage by a factor on the weights.
_ON, _UP, _DOWN = (0.5, 5.0), (0.5, 5.0), (0.5, 0.5)
SCHEDULES: dict[str, Amplification] = {
    "off": OFF,
    "coarse": Amplification(coarse=_ON),
    "mid": Amplification(mid=_ON),
    "fine": Amplification(fine=_ON),
    "all": Amplification(_ON, _ON, _ON),
    "weak-coarse": Amplification(_DOWN, _UP, _UP, mode="attention"),
    "weak-mid": Amplification(_UP, _DOWN, _UP, mode="attention"),
    "weak-fine": Amplification(_UP, _UP, _DOWN, mode="attention"),
}


def parse_stages(text: str, mode: Mode = "logit", blocks: tuple[int, ...] | None = None) -> Amplification:
    """ "coarse=50%:5,mid=off,fine=30%:2", or the name of a schedule, to an Amplification.

    Stages that are not named stay off. ρ is a percentage or a fraction.

    Raises:
        ValueError: the text is neither, or a number is out of range.
    """
    if text in SCHEDULES:
        if text.startswith("weak-"):
            return SCHEDULES[text]
        chosen = SCHEDULES[text]
        return Amplification(chosen.coarse, chosen.mid, chosen.fine, mode, blocks)
    stages: dict[str, Stage | None] = {}
    for item in text.split(","):
        name, found, value = item.strip().partition("=")
        if not found or name not in STAGES or name in stages:
            names = ", ".join(SCHEDULES)
            raise ValueError(
                f"cannot read stage {item.strip()!r}: write coarse=50%:5,mid=off,fine=30%:2, or one of {names}"
            )
        stages[name] = None if value.strip().lower() == "off" else _parse_stage(value)
    return Amplification(stages.get("coarse"), stages.get("mid"), stages.get("fine"), mode, blocks)


def _parse_stage(value: str) -> Stage:
    share, found, strength = value.partition(":")
    try:
        if not found:
            raise ValueError
        rho = float(share.strip().removesuffix("%")) / (100 if share.strip().endswith("%") else 1)
        return rho, float(strength)
    except ValueError as error:
        raise ValueError(f"cannot read {value!r}: write share:strength, like 50%:5, or off") from error
