"""Training the transformer: token cross-entropy under teacher forcing, alone or together with the class tokens."""

from collections.abc import Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.training.loop import Objective
from hieramp.training.tokens import TokenBatch, Tokenizer, drop_labels
from hieramp.var.class_tokens import is_class_token
from hieramp.var.model import VAR, token_loss
from hieramp.var.passes import append_known_tokens

LABEL_DROP = 0.1


class VARObjective(Objective):
    """(images uint8, labels) to the loss of every scale.

    From `shift_until` of the run on images stay where they are, so that none is drawn shifted.
    """

    model: VAR

    def __init__(self, var: VAR, tokenizer: Tokenizer, shift_until: float = 0.8) -> None:
        super().__init__()
        self.model = var
        self.tokenizer, self.shift_until = tokenizer, shift_until

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        batch = self.tokenizer(images_BCHW)
        labels = drop_labels(labels_B, self.model.null_label, LABEL_DROP)
        inputs, open_BL = part_known(self.model, batch)
        result = self.model(labels, inputs, class_tokens=False)
        loss_BL = token_loss(result.logits_BLV, batch.tokens_BL)
        return {"loss": mean_of(loss_BL, open_BL), **per_scale(self.model, loss_BL.detach(), open_BL)}

    def before_step(self, progress: float) -> None:
        if progress >= self.shift_until:
            self.tokenizer.shift = 0

    def variant(self) -> Hashable:
        return self.tokenizer.shift

    def matrices(self) -> set[str]:
        return block_matrices(self)

    def compile_parts(self, backend: str = "inductor") -> bool:
        for block in self.model.blocks:  # alike: one compilation serves them all
            block.compile(fullgraph=True, backend=backend)
        return True


class ClassTokenObjective(Objective):
    """Token loss + λ·L_cls (HierAmp, Eq. 6) for class tokens that share the blocks' projections.

    condition "kept": L_cls on every row, labels dropped at the usual rate. AdaLN carries the class, so the
    tokens can solve L_cls without looking at the image.
    condition "dropped": half of the rows get the null label, and only those count in L_cls, so that the
    tokens have to look.
    """

    model: VAR

    def __init__(
        self, var: VAR, tokenizer: Tokenizer, condition: str, weight: float = 1.0, with_backbone: bool = False
    ) -> None:
        super().__init__()
        self.model = var
        self.tokenizer = tokenizer
        self.dropped, self.weight, self.with_backbone = condition == "dropped", weight, with_backbone

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        batch = self.tokenizer(images_BCHW)
        labels = drop_labels(labels_B, self.model.null_label, 0.5 if self.dropped else LABEL_DROP)
        inputs, open_BL = part_known(self.model, batch) if self.with_backbone else (batch.inputs_BLC, None)
        result = self.model(labels, inputs)
        assert result.class_logits_BSK is not None
        loss_BL = token_loss(result.logits_BLV, batch.tokens_BL)
        targets_BS = labels_B[:, None].expand(result.class_logits_BSK.shape[:2])
        class_BS = F.cross_entropy(result.class_logits_BSK.mT, targets_BS, reduction="none")
        counted_B = labels.eq(self.model.null_label).float() if self.dropped else torch.ones_like(labels_B).float()
        class_loss = (class_BS.mean(1) * counted_B).sum() / counted_B.sum().clamp_min(1)
        correct_BS = (result.class_logits_BSK.argmax(-1) == targets_BS).float() * counted_B[:, None]
        accuracy_S = correct_BS.sum(0) / counted_B.sum().clamp_min(1)
        named = zip(self.model.config.class_token_scales, accuracy_S, strict=True)
        return {
            "loss": mean_of(loss_BL, open_BL) + self.weight * class_loss,
            "class_loss": class_loss.detach(),
            **{f"class_accuracy/scale{scale}": accuracy for scale, accuracy in named},
            **per_scale(self.model, loss_BL.detach(), open_BL),
        }

    def matrices(self) -> set[str]:
        return block_matrices(self)


def part_known(var: VAR, batch: TokenBatch) -> tuple[Tensor, Tensor | None]:
    """The input of a batch whose rows stand before any of the passes over the last scale, and which tokens are open.

    A model with one pass learns all tokens from nothing: None.
    """
    passes = var.config.last_passes
    if passes == 1:
        return batch.inputs_BLC, None
    done_B1 = torch.randint(passes, (len(batch.tokens_BL), 1), device=batch.tokens_BL.device)
    known_BN = var.pass_N < done_B1
    before = batch.tokens_BL.shape[1] - known_BN.shape[1]
    return append_known_tokens(batch.inputs_BLC, batch.codes_BNC, known_BN), F.pad(~known_BN, (before, 0), value=True)


def mean_of(loss_BL: Tensor, open_BL: Tensor | None) -> Tensor:
    return loss_BL.mean() if open_BL is None else (loss_BL * open_BL).sum() / open_BL.sum()


def per_scale(var: VAR, loss_BL: Tensor, open_BL: Tensor | None) -> dict[str, Tensor]:
    """The mean loss of each scale, of its open tokens."""
    spans = enumerate(var.scales.spans)
    return {f"tokens/scale{s}": mean_of(loss_BL[:, at], None if open_BL is None else open_BL[:, at]) for s, at in spans}


def block_matrices(module: nn.Module) -> set[str]:
    """What Muon takes: the matrices of attention and FFN. AdaLN sees a handful of classes: too low a rank."""
    endings = ("attn.mat_qkv.weight", "attn.proj.weight", "ffn.fc1.weight", "ffn.fc2.weight")
    return {name for name, _ in module.named_parameters() if name.endswith(endings)}


def only_class_tokens(var: VAR) -> None:
    """Freeze everything but the class tokens and their head."""
    for name, parameter in var.named_parameters():
        parameter.requires_grad_(is_class_token(name))
