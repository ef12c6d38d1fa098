"""What a diffusion model is sampled with, beside guidance and amplification."""

from dataclasses import dataclass

from hieramp.amplification.settings import Amplification
from hieramp.diffusion.sampler import SOLVERS, Solver
from hieramp.errors import UserError

MAX_STEPS = 1000
# w = 1 + guidance. 2 to 3 is for pictures that show their class, 1.5 for those that are spread like the data.
GUIDANCE = 1.5
# Where a schedule is to be on, and none is named: half of the positions with α = 1 in all stages.
AMPLIFIED = Amplification((0.5, 1.0), (0.5, 1.0), (0.5, 1.0))


@dataclass(frozen=True)
class Solving:
    """In how many steps, and by which method, the way from noise to latent is computed.

    Heun's method asks the network twice a step, but for the last.

    Raises:
        ValueError: not a whole number from 1 to 1000, or an unknown solver.
    """

    steps: int = 25
    solver: Solver = "euler"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS or int(self.steps) != self.steps:
            raise UserError(f"steps is {self.steps}; it must be a whole number from 1 to {MAX_STEPS}")
        if self.solver not in SOLVERS:
            raise UserError(f"solver is {self.solver!r}; it must be {' or '.join(map(repr, SOLVERS))}")
