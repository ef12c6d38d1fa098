"""Training class tokens with projections of their own: they name the class from what they look at, nothing else."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.training.loop import Objective
from hieramp.training.tokens import Tokenizer, drop_labels
from hieramp.training.var import LABEL_DROP, block_matrices, mean_of, part_known, per_scale
from hieramp.var.class_tokens import Reading
from hieramp.var.model import VAR, token_loss

FIXED_WEIGHT = 2.0  # of the penalty on a fixed share beyond what is allowed


@dataclass(frozen=True)
class ClassTokenOptions:
    """What kind of class tokens are trained, and how."""

    attention: Literal["own", "shared"] = "own"
    with_backbone: bool = False
    # of class tokens with projections of their own; the defaults are what served best (docs/notebook)
    watch_block: int | None = None  # where they look; None: two thirds up
    width: int | None = None  # of their keys and values; None: the transformer's
    same_map: float = 0.42  # share of the maps' variance that may be one pattern of positions; more is penalised
    left_out: float = 2.0  # weight of the penalty on naming the class from what the map leaves out
    narrow: float = 0.0  # weight of the penalty on narrow maps; below 0 it is one on wide maps
    # of class tokens that share the blocks' projections
    condition: str = "dropped"
    read_only: bool = False


class OwnClassTokenObjective(Objective):
    """L_cls (HierAmp, Eq. 6) of class tokens that look with the label hidden, and what keeps their maps honest.

    A class token answers from its values under its map alone. Three penalties shape the map besides:
    the share of the maps' variance over the batch that is one fixed pattern of positions, as far as it is more than
    same_map (`analysis.faithfulness.fixed_share` measures the same);
    left_out times the chance of the right class when the map is turned round, values and head standing still: a map
    pays for the parts of an object that it passes over;
    narrow times the mean of KL(map ‖ uniform) over the batch.
    All are means over the scales. Scale 0 has one position and counts for nothing.
    """

    model: VAR

    def __init__(self, var: VAR, tokenizer: Tokenizer, options: ClassTokenOptions, shift_until: float = 0.8) -> None:
        super().__init__()
        self.model = var
        self.tokenizer, self.shift_until = tokenizer, shift_until
        self.options = options

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        batch = self.tokenizer(images_BCHW)
        # the finest scale is read as its first pass finds it, with nothing known
        losses = self.looking(self.model.watched_input(batch.inputs_BLC), labels_B)
        if self.options.with_backbone:
            labels = drop_labels(labels_B, self.model.null_label, LABEL_DROP)
            inputs, open_BL = part_known(self.model, batch)
            loss_BL = token_loss(self.model(labels, inputs, class_tokens=False).logits_BLV, batch.tokens_BL)
            losses["loss"] = losses["loss"] + mean_of(loss_BL, open_BL)
            losses |= per_scale(self.model, loss_BL.detach(), open_BL)
        return losses

    def looking(self, image_BLC: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """The loss of class tokens that look at these image tokens, as they enter the watched block, and its terms."""
        logged: dict[str, Tensor] = {}
        reading = self.model.read_all(image_BLC)
        logits_BSK = self.model.answer(reading)
        terms: dict[str, list[Tensor]] = {"class_loss": [], "fixed_share": [], "left_out": [], "narrow": []}
        too_fixed: list[Tensor] = []
        for i, scale in enumerate(self.model.config.class_token_scales):
            if scale == 0:
                continue
            logits_BK = logits_BSK[:, i]
            logged[f"class_accuracy/scale{scale}"] = (logits_BK.argmax(-1) == labels_B).float().mean()
            terms["class_loss"].append(F.cross_entropy(logits_BK, labels_B))
            span = self.model.scales.spans[scale]
            weights_BHL = reading.weights_BHSL[:, :, i, span]
            m_BL = weights_BHL.mean(1)
            terms["fixed_share"].append(share_in_common(m_BL))
            too_fixed.append((terms["fixed_share"][-1] - self.options.same_map).clamp_min(0))
            terms["narrow"].append(from_uniform(m_BL).mean())
            if self.options.left_out:
                terms["left_out"].append(self._left_out(weights_BHL, reading.values_BHLD[:, :, span], labels_B))
        means = {name: torch.stack(values).mean() for name, values in terms.items() if values}
        loss = (
            means["class_loss"] + FIXED_WEIGHT * torch.stack(too_fixed).mean() + self.options.narrow * means["narrow"]
        )
        if self.options.left_out:
            loss = loss + self.options.left_out * means["left_out"]
        logged |= {name: mean.detach() for name, mean in means.items()}
        return {"loss": loss, **logged}

    def _left_out(self, weights_BHL: Tensor, values_BHLD: Tensor, labels_B: Tensor) -> Tensor:
        """The chance of the right class in what is read with every head's map turned round."""
        read_BW = Reading(turned_round(weights_BHL)[:, :, None], values_BHLD.detach()).read()[:, 0]
        head = self.model.class_head
        chances_BK = F.linear(read_BW, head.weight.detach(), head.bias.detach()).float().softmax(-1)
        return chances_BK.gather(1, labels_B[:, None]).mean()

    def before_step(self, progress: float) -> None:
        if self.options.with_backbone and progress >= self.shift_until:
            self.tokenizer.shift = 0

    def matrices(self) -> set[str]:
        return block_matrices(self)


def turned_round(weights_BHL: Tensor) -> Tensor:
    """Weights that are highest where these are lowest; each row sums to 1."""
    turned_BHL = weights_BHL.amax(-1, keepdim=True) - weights_BHL
    return turned_BHL / turned_BHL.sum(-1, keepdim=True).clamp_min(1e-6)


def share_in_common(m_BL: Tensor) -> Tensor:
    """The share, in [0, 1], of the maps' squared distances from uniform that their mean accounts for."""
    away_BL = m_BL - 1 / m_BL.shape[1]
    return away_BL.mean(0).square().mean() / away_BL.square().mean().clamp_min(1e-12)


def from_uniform(m_L: Tensor) -> Tensor:
    """KL(map ‖ uniform) in nats over the last dimension."""
    return (m_L * (m_L * m_L.shape[-1]).clamp_min(1e-9).log()).sum(-1)
