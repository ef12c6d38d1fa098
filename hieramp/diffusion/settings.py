"""What a diffusion model is sampled with, beside guidance and amplification."""

from dataclasses import dataclass
from typing import Annotated

from hieramp.diffusion.sampler import Solver
from hieramp.fields import Choice, Knob, Number, check_fields

# w = 1 + guidance. 2 to 3 is for pictures that show their class, 1.5 for those that are spread like the data.
GUIDANCE = 1.5
ONLY = ("dit",)
_SOLVERS = Choice((("euler", "Euler"), ("heun", "Heun: the network is asked twice a step")))


@dataclass(frozen=True)
class Solving:
    """In how many steps, and by which method, the way from noise to latent is computed.

    Heun's method asks the network twice a step, but for the last.

    Raises:
        ValueError: not a whole number from 1 to 1000, or an unknown solver.
    """

    steps: Annotated[
        int,
        Knob(
            Number(1, 1000, shown=(1, 100), step=1, unit="steps", whole=True),
            "Steps",
            "Of a diffusion transformer, from noise to picture.",
            "solving",
            ONLY,
            always=True,
        ),
    ] = 25
    solver: Annotated[
        Solver,
        Knob(_SOLVERS, "Solver", "Of a diffusion transformer: how a step is computed.", "solving", ONLY, always=True),
    ] = "euler"

    def __post_init__(self) -> None:
        check_fields(self)
