"""Training the diffusion transformer: flow matching on the continuous latents of the VQ-VAE."""

from collections.abc import Hashable

import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.data import to_signed
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import LatentBasis
from hieramp.diffusion.levels import COARSE_UNTIL, MID_UNTIL, t_of
from hieramp.scales import STAGES
from hieramp.training.augment import randomly_flipped
from hieramp.training.loop import Objective
from hieramp.training.tokens import drop_labels
from hieramp.training.var import LABEL_DROP
from hieramp.vqvae.model import VQVAE


class DiTObjective(Objective):
    """(images uint8, labels) to the mean squared error of the velocity.

    t = sigmoid(n) with n standard normal (SD3, arXiv 2403.03206): the middle of the way, where most is decided, is
    learned most. Half of the images are mirrored.
    """

    model: DiT

    def __init__(self, dit: DiT, vqvae: VQVAE, basis: LatentBasis) -> None:
        super().__init__()
        self.model, self.basis = dit, basis
        self.frozen = [vqvae.eval().requires_grad_(False)]  # in a list: it is no part of what is trained
        # a resumed run takes the basis up with its weights
        self.register_load_state_dict_post_hook(lambda *_: basis.check_belongs(vqvae, "the unfinished run"))

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        x0 = self.latents(images_BCHW)
        t_B = torch.randn(len(x0), device=x0.device).sigmoid()
        t_B111, noise = t_B[:, None, None, None], torch.randn_like(x0)
        labels = drop_labels(labels_B, self.model.null_label, LABEL_DROP)
        v = self.model((1 - t_B111) * x0 + t_B111 * noise, 1000 * t_B, labels)
        loss_B = F.mse_loss(v.float(), noise - x0, reduction="none").mean((1, 2, 3))
        further = self.further(x0, (1 - t_B111) * x0 + t_B111 * (noise - v.float()), labels_B)
        loss = loss_B.mean() + sum(further.values())
        return {"loss": loss, **further, **per_stage(loss_B.detach(), t_B)}

    def further(self, x0_BCHW: Tensor, predicted_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """What is added to the loss, by its names: of the latents, those predicted of them, and their labels."""
        return {}

    @torch.no_grad()
    def latents(self, images_BCHW: Tensor) -> Tensor:
        """(B, K, n, n) of images that are mirrored or not."""
        (vqvae,) = self.frozen
        vqvae.to(images_BCHW.device)
        f_BCHW = vqvae.latent(randomly_flipped(to_signed(images_BCHW)))
        with torch.autocast(images_BCHW.device.type, enabled=False):
            return self.basis.project(f_BCHW)

    def variant(self) -> Hashable:
        return "noised"

    def matrices(self) -> set[str]:
        """What Muon takes: the matrices of attention and FFN, as for the VAR."""
        endings = ("attn.qkv.weight", "attn.proj.weight", "fc1.weight", "fc2.weight")
        return {name for name, _ in self.named_parameters() if name.endswith(endings)}

    def compile_parts(self, backend: str = "inductor") -> bool:
        for block in self.model.blocks:  # alike: one compilation serves them all
            block.compile(fullgraph=True, backend=backend)
        return True


def per_stage(loss_B: Tensor, t_B: Tensor) -> dict[str, Tensor]:
    """The mean loss of each stage of noise; of one that no row of the batch is in, zero."""
    fine, coarse = t_B <= t_of(MID_UNTIL), t_B > t_of(COARSE_UNTIL)
    rows = dict(zip(reversed(STAGES), (fine, ~(fine | coarse), coarse), strict=True))
    return {f"velocity/{stage}": _mean_where(loss_B, row_B) for stage, row_B in rows.items()}


def _mean_where(values_B: Tensor, chosen_B: Tensor) -> Tensor:
    """The mean of the chosen values, 0 where none is."""
    return (values_B * chosen_B).sum() / chosen_B.sum().clamp_min(1)
