"""What to amplify: ρ and strength for each stage, how, and in which blocks.

docs/method.md, "Saliency and amplification"; HierAmp, arXiv 2603.06932, Algorithm 1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from hieramp.errors import UserError
from hieramp.fields import Choice, Indices, Knob, Number, Positions, ShareStrength, check_fields
from hieramp.scales import STAGES, Scales

Mode = Literal["logit", "attention"]
Where = Literal["salient", "least", "random"]
MapFrom = Literal["guidance", "class-token"]
Stage = tuple[float, float]
NEUTRAL = {"logit": 0.0, "attention": 1.0}  # the strength that changes nothing

BOTH = "var", "dit"  # kinds of model
CLASS_TOKEN = "class-token"
_SHARE = ShareStrength(
    Number(0, 1, shown=(0.01, 1), unit="share of the positions", over=True), Number(shown=(0, 10), step=0.1)
)
_MODES = Choice((("logit", "logit: add β, 0 is off"), ("attention", "attention: multiply by γ, 1 is off")))
_MAPS = Choice((("guidance", "the difference of guidance"), (CLASS_TOKEN, "a class token")))
_WHERE = Choice((("salient", "most salient"), ("least", "least salient"), ("random", "random")))


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
    A diffusion transformer has no modes, scales or positions: the strength is α of A ⊙ (1 + α·M), and 0 is off.
    blocks: where to amplify, None for depth - 2. scales: a subset of the scales, None for all.
    positions: {scale: positions}, row by row from 0, to be amplified there instead of the most salient ones.
    where: which share ρ is meant, the most salient positions or, as controls that tell what the saliency is worth,
    the least salient ones or random ones (drawn from an image's label and seed, other ones at every scale).
    map_from: of a diffusion transformer, whether M is the difference of the two halves of guidance or what a class
    token looks at that was trained for it. A VAR takes its class tokens where it has some.

    Raises:
        UserError: ρ outside (0, 1], a strength that is not finite (or γ under 0), an unknown mode or `where`, or no
            block at all.
    """

    coarse: Annotated[
        Stage | None,
        Knob(
            _SHARE,
            "Coarse",
            "Share and strength at the coarse scales.",
            "stages",
            BOTH,
            always=True,
            inside="stages",
        ),
    ] = None
    mid: Annotated[
        Stage | None,
        Knob(
            _SHARE,
            "Mid",
            "Share and strength at the mid scales.",
            "stages",
            BOTH,
            always=True,
            inside="stages",
        ),
    ] = None
    fine: Annotated[
        Stage | None,
        Knob(
            _SHARE,
            "Fine",
            "Share and strength at the fine scales.",
            "stages",
            BOTH,
            always=True,
            inside="stages",
        ),
    ] = None
    mode: Annotated[
        Mode,
        Knob(
            _MODES,
            "Mode",
            "How: logit adds β to the logits of salient keys, attention multiplies their weights by γ.",
            "mode",
            always=True,
        ),
    ] = "logit"
    blocks: Annotated[
        tuple[int, ...] | None,
        Knob(
            Indices("depth - 2"), "Blocks", "Blocks to amplify, from 0; none: depth - 2.", "location", BOTH, always=True
        ),
    ] = None
    scales: Annotated[
        tuple[int, ...] | None,
        Knob(Indices("all scales"), "Scales", "Scales to amplify, from 1; none: all.", "location", always=True),
    ] = None
    positions: Annotated[
        Mapping[int, Iterable[int]] | tuple[tuple[int, tuple[int, ...]], ...] | None,  # kept as pairs
        Knob(
            Positions(),
            "Positions",
            "Positions to amplify instead: per scale a hexadecimal number, whose bit i is position i.",
            "location",
            always=True,
            was="painted",
        ),
    ] = None
    where: Annotated[
        Where,
        Knob(_WHERE, "Positions chosen", "Which share is amplified; least and random are controls.", "location", BOTH),
    ] = "salient"
    map_from: Annotated[
        MapFrom,
        Knob(_MAPS, "Map from", "Of a diffusion transformer: what its map M is made of.", "location", ("dit",)),
    ] = "guidance"

    def __post_init__(self) -> None:
        check_fields(self)
        for stage in STAGES:
            value = getattr(self, stage)
            if value is not None and self.mode == "attention" and value[1] < 0:
                raise UserError(f"{stage} strength is {value[1]:g}; in the mode attention it must be at least 0")

    @property
    def neutral(self) -> float:
        """The strength that changes nothing."""
        return NEUTRAL[self.mode]

    @property
    def is_off(self) -> bool:
        stages = (self.coarse, self.mid, self.fine)
        return all(stage is None or stage[1] == self.neutral for stage in stages)

    @property
    def schedule(self) -> str | None:
        """The name of the paper's schedule that these stages and mode are, wherever they apply; None of another one."""
        stages = {stage: getattr(self, stage) for stage in STAGES}
        acting: dict[str, Any] = {stage: value for stage, value in stages.items() if value and value[1] != self.neutral}
        ours = Amplification(**acting, mode=self.mode if acting else "logit")
        return None if self.positions else next((name for name, one in SCHEDULES.items() if one == ours), None)

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
            UserError: a block the model does not have.
        """
        if self.blocks is None:
            return (max(0, depth - 2),)
        for block in self.blocks:
            if not 0 <= block < depth:
                raise UserError(f"block {block} does not exist: this model has blocks 0 to {depth - 1}")
        return self.blocks

    def read_block(self, depth: int) -> int:
        """The block whose saliency is reported: depth - 2 if it is amplified, else the last one that is."""
        blocks, default = self.resolved_blocks(depth), max(0, depth - 2)
        return default if default in blocks or self.is_off else blocks[-1]

    def check(self, scales: Scales, depth: int) -> None:
        """Raise UserError where the blocks, scales or positions named are not the model's."""
        self.resolved_blocks(depth)
        named = self.named_positions
        for scale in (*(self.scales or ()), *named):
            if not 0 <= scale < len(scales):
                raise UserError(f"scale {scale} does not exist: this model has scales 0 to {len(scales) - 1}")
        for scale in named:
            if scales.stage_of(scale) is None:
                raise UserError(f"scale {scale} has no stage, so none of it is amplified: name scales from 1")
        for scale, positions in named.items():
            last = scales.sides[scale] ** 2 - 1
            for position in positions:
                if not 0 <= position <= last:
                    raise UserError(f"position {position} does not exist: scale {scale} has positions 0 to {last}")


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
_ALPHA = (0.5, 1.0)
# the same stages on a diffusion transformer, with an α: the paper tells of none
OUTPUT_SCHEDULES: dict[str, Amplification] = {
    "off": OFF,
    "coarse": Amplification(coarse=_ALPHA),
    "mid": Amplification(mid=_ALPHA),
    "fine": Amplification(fine=_ALPHA),
    "all": Amplification(_ALPHA, _ALPHA, _ALPHA),
}


def parse_stages(
    text: str,
    mode: Mode | None = None,
    blocks: tuple[int, ...] | None = None,
    schedules: Mapping[str, Amplification] = SCHEDULES,
) -> Amplification:
    """ "coarse=50%:5,mid=off,fine=30%:2", or the name of a schedule, to an Amplification.

    Stages that are not named stay off. ρ is a percentage or a fraction. A mode or blocks that are given hold, whatever
    the schedule says.

    Raises:
        UserError: the text is neither, or a number is out of range.
    """
    given: dict[str, Any] = {"blocks": blocks} | ({"mode": mode} if mode else {})
    if text in schedules:
        return replace(schedules[text], **given)
    stages: dict[str, Any] = {}
    for item in text.split(","):
        name, found, value = (part.strip() for part in item.partition("="))
        if not found or name not in STAGES or name in stages:
            names = ", ".join(schedules)
            raise UserError(
                f"cannot read stage {item.strip()!r}: write coarse=50%:5,mid=off,fine=30%:2, or one of {names}"
            )
        stages[name] = _SHARE.parse(name, value)
    return Amplification(**stages, **given)
