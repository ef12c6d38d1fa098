"""Minimax (Gu et al., CVPR 2024, arXiv 2311.15529): draw from a model that was fine-tuned for sets of few images.

All of it is in the training (`hieramp.training.minimax`); the drawing is as ever. So this asks only for such a model.
"""

from dataclasses import dataclass
from typing import ClassVar

from hieramp.checkpoints import read_config
from hieramp.distillation.methods.method import Method, Work
from hieramp.errors import UserError

OBJECTIVE = "minimax"


@dataclass(frozen=True)
class Minimax(Method):
    name: ClassVar[str] = "minimax"
    title: ClassVar[str] = "a model fine-tuned by train dit --objective minimax (arXiv 2311.15529)"
    because: ClassVar[str] = "fine-tunes the latents that a diffusion transformer predicts"
    needs_data: ClassVar[bool] = False

    def check(self, work: Work) -> None:
        folder = work.model.folder
        trained = read_config(folder).get("trained", {}).get("dit", {}) if folder else {}
        if trained.get("objective") != OBJECTIVE:
            raise UserError(
                f"{work.model.name} was not fine-tuned for minimax: run python -m hieramp train dit --objective "
                f"minimax --warm-start {work.model.name} first, and give its folder as --model"
            )
