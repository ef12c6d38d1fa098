"""One scale of a drawing as its user sees it; whatever is expensive is worked out when first looked at.

Letters: B images asked for, U rows computed (images that are the same so far share one), L positions, V codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hieramp.amplification.saliency import chosen_positions
from hieramp.amplification.settings import Amplification
from hieramp.devices import to_device_async
from hieramp.generation.ambiguity import is_unambiguous
from hieramp.generation.sampling import random_scores
from hieramp.generation.scale import ScaleResult, ScaleSettings
from hieramp.vqvae.model import VQVAE


def pick_rows(x: Tensor, rows: Sequence[int]) -> Tensor:
    """These rows; the same tensor where it is all of them in order."""
    return x if list(rows) == list(range(len(x))) else x[to_device_async(torch.tensor(rows), x.device)]


@dataclass(frozen=True)
class ComputedRows:
    """One scale of the rows that were computed. Steps of several drawings may look at it."""

    vqvae: VQVAE
    settings: ScaleSettings
    result: ScaleResult
    keys_U2: Tensor
    is_drawn: bool  # False where the tokens were given

    @cached_property
    def images(self) -> Tensor:
        """(U, 3, H, W) in [0, 1]."""
        return self.vqvae.to_images(self.result.f_hat)

    @cached_property
    def is_unambiguous(self) -> Tensor:
        """(U,) bool."""
        return is_unambiguous(self.vqvae, self.settings, self.result, self.is_drawn)

    def random_scores(self) -> Tensor:
        """(U, L): what random positions are ranked by."""
        return random_scores(self.keys_U2, self.settings.scale, self.settings.num_positions)


@dataclass(frozen=True)
class Step:
    """One scale of all images."""

    scale: int
    side: int  # n
    rows: ComputedRows = field(repr=False)
    row_of_image: list[int] = field(repr=False)

    def _per_image(self, x_U: Tensor) -> Tensor:
        return pick_rows(x_U, self.row_of_image)

    @cached_property
    def tokens(self) -> Tensor:
        """(B, n²) int64."""
        return self._per_image(self.rows.result.tokens)

    @cached_property
    def image(self) -> Tensor:
        """The picture so far, (B, 3, H, W) in [0, 1]."""
        return self._per_image(self.rows.images)

    @cached_property
    def saliency(self) -> Tensor:
        """(B, n, n), sums to 1: the conditional half's, of the block that is amplified (depth - 2 by default)."""
        return self._per_image(self.rows.result.saliency()).unflatten(-1, (self.side, self.side))

    def chosen(self, amplification: Amplification) -> Tensor | None:
        """Which positions `amplification` means on these images, (B, n, n) bool; None at a scale it leaves alone."""
        choice = amplification.choice_at(self.scale, self.rows.settings.var.scales)
        if choice is None:
            return None
        random_BL = self._per_image(self.rows.random_scores()) if choice.where == "random" else None
        return chosen_positions(self.saliency, choice, random_BL)

    @cached_property
    def logits(self) -> Tensor:
        """(B, n², V) after guidance, before top-k and top-p."""
        return self._per_image(self.rows.result.logits)

    @cached_property
    def block_saliency(self) -> Tensor | None:
        """(B, blocks, heads, n, n), where details were asked for and the scale has a class token."""
        attention = self.rows.result.attention
        return None if attention is None else self._per_image(attention).unflatten(-1, (self.side, self.side))

    @cached_property
    def class_logits(self) -> Tensor | None:
        """(B, classes): the class token's own class logits, likewise."""
        class_logits = self.rows.result.class_logits
        return None if class_logits is None else self._per_image(class_logits)

    @cached_property
    def class_probabilities(self) -> Tensor | None:
        """(B, classes): the same as probabilities."""
        return None if self.class_logits is None else self.class_logits.softmax(-1)

    @cached_property
    def is_unambiguous(self) -> Tensor:
        """(B,) bool: no token and no salient position of this scale was decided so closely that rounding could turn it.

        Float32 arithmetic rounds differently at another batch size, thread count or machine. What "could" means, and
        how far to rely on it: `hieramp.generation.ambiguity`.
        """
        return self._per_image(self.rows.is_unambiguous)
