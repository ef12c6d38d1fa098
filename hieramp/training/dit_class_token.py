"""Training the class token of a diffusion transformer: it names the class from what it looks at in a noised picture."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.diffusion.class_token import SPANS, DiTClassToken, Seen
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import LatentBasis
from hieramp.diffusion.levels import COARSE_UNTIL, MID_UNTIL, t_of
from hieramp.scales import STAGES
from hieramp.training.class_tokens import FIXED_WEIGHT, ClassTokenOptions, from_uniform, share_in_common, turned_round
from hieramp.training.dit import DiTObjective
from hieramp.training.loop import Objective
from hieramp.vqvae.model import VQVAE

# t from the picture on: where a stage begins and ends, fine first
SPANS_OF_T = tuple(zip((0.0, t_of(MID_UNTIL), t_of(COARSE_UNTIL)), (t_of(MID_UNTIL), t_of(COARSE_UNTIL), 1.0)))


class DiTClassTokenObjective(Objective):
    """L_cls (HierAmp, Eq. 6) of a class token that looks at noised pictures, and what keeps its maps honest.

    The class is hidden from the transformer, which stands still. Every stage of noise gets a third of the batch, with t
    even within it. The penalties are those of `training.class_tokens`: a map that is the same for all pictures (of a
    stage), the class named from what the map leaves out, narrow maps.
    """

    model: DiTClassToken

    def __init__(
        self, token: DiTClassToken, dit: DiT, vqvae: VQVAE, basis: LatentBasis, options: ClassTokenOptions
    ) -> None:
        super().__init__()
        self.model, self.options = token, options
        # in lists: no part of what is trained
        self.latents_of, self.frozen = [DiTObjective(dit, vqvae, basis)], [dit.eval().requires_grad_(False)]

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        (latents_of,), rows = self.latents_of, len(images_BCHW)
        latents_of.basis.to(images_BCHW.device)
        t_B, stage_B = torch.rand(rows, device=images_BCHW.device), torch.arange(rows, device=images_BCHW.device) % 3
        for stage, (low, high) in enumerate(SPANS_OF_T):
            t_B = torch.where(stage_B == stage, low + (high - low) * t_B, t_B)
        return self.looking(self.noised(latents_of.latents(images_BCHW), t_B), t_B, labels_B)

    @torch.no_grad()
    def noised(self, x0_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """The image tokens of noised pictures as they enter the block, the class hidden, (B, T, D)."""
        (dit,) = self.frozen
        dit.to(x0_BCHW.device)
        t_B111 = t_B[:, None, None, None]
        z = (1 - t_B111) * x0_BCHW + t_B111 * torch.randn_like(x0_BCHW)
        labels = torch.full((len(z),), dit.null_label, device=z.device)
        return dit.tokens_at(self.model.config.class_token_block, z, 1000 * t_B, labels)

    def looking(self, x_BTD: Tensor, t_B: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """The loss of the token on these image tokens, rows of the three stages in turn, and its terms."""
        seen = self.model(x_BTD, t_B)
        logits_BK = self.model.answer(seen)
        m_BT = seen.map()
        means = {"class_loss": F.cross_entropy(logits_BK, labels_B), "narrow": from_uniform(m_BT).mean()}
        fixed, logged = [], {}
        right_B = (logits_BK.detach().argmax(-1) == labels_B).float()
        for number, stage in enumerate(reversed(STAGES)):
            fixed.append(share_in_common(m_BT[number::3]))
            logged[f"class_accuracy/{stage}"] = right_B[number::3].mean()
        fixed_3 = torch.stack(fixed)
        means["fixed_share"] = fixed_3.mean()
        too_fixed = (fixed_3 - self.options.same_map).clamp_min(0).mean()
        loss = means["class_loss"] + FIXED_WEIGHT * too_fixed + self.options.narrow * means["narrow"]
        if self.options.left_out:
            turned = Seen(turned_round(seen.weights_BHT), seen.values_BHTD.detach()).read()
            head = self.model.head
            chances_BK = F.linear(turned, head.weight.detach(), head.bias.detach()).float().softmax(-1)
            means["left_out"] = chances_BK.gather(1, labels_B[:, None]).mean()
            loss = loss + self.options.left_out * means["left_out"]
        return {"loss": loss, **{name: mean.detach() for name, mean in means.items()}, **logged}

    @torch.no_grad()
    def calibrate(self, images_BCHW: Tensor) -> None:
        """Show the token what image tokens look like at each span of t, before it learns."""
        (latents_of,) = self.latents_of
        latents_of.basis.to(images_BCHW.device)
        x0 = torch.cat([latents_of.latents(some) for some in images_BCHW.split(50)])
        for span in range(SPANS):
            t_B = (span + torch.rand(len(x0), device=x0.device)) / SPANS
            parts = [self.noised(some, t) for some, t in zip(x0.split(50), t_B.split(50), strict=True)]
            self.model.calibrate(span, torch.cat(parts))
