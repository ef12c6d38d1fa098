"""The latents that a diffusion model learns: those of a VQ-VAE before quantisation, in a basis of their own.

The encoder's channels are correlated, and most of their variance lies in a few directions. The basis keeps the
principal components that a picture is decoded from as well as from all of them, under one common scale, so that a
model spends nothing on what cannot be seen. It belongs to the VQ-VAE that it was fitted to.
Letters: B images, C channels of the VQ-VAE's latent, K components, n positions a side.
"""

from bisect import bisect_left
from typing import Protocol

import torch
from torch import Tensor, nn

from hieramp.checkpoints import fingerprint
from hieramp.data import to_signed
from hieramp.errors import UserError
from hieramp.vqvae.autoencoder import to_unit
from hieramp.vqvae.model import VQVAE

LOSS_DB = 0.1  # what the pictures may lose by the components that are left out
AT_ONCE = 64


class Latents(Protocol):
    """Pictures to the latents that a diffusion model is trained on, and back."""

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Images in [0, 1], (B, 3, H, W), to latents (B, K, n, n)."""
        ...

    def decode(self, z_BKHW: Tensor) -> Tensor:
        """Latents to images in [0, 1]."""
        ...

    @property
    def image_size(self) -> int: ...

    def to(self, device: torch.device | str) -> object: ...

    def state_dict(self) -> dict[str, Tensor]: ...


class LatentBasis(nn.Module):
    """w = Uᵀ(f - μ) / s: mean μ (C), components U (C, K), one scale s = √(mean variance of the K components)."""

    mean: Tensor
    components: Tensor
    scale: Tensor
    vqvae: Tensor

    def __init__(self, channels: int, num_components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("components", torch.zeros(channels, num_components))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("vqvae", torch.zeros(32, dtype=torch.uint8))  # SHA-256 of the weights it was fitted to

    @property
    def num_components(self) -> int:
        return self.components.shape[1]

    def project(self, f_BCHW: Tensor) -> Tensor:
        """Latents of the VQ-VAE, (B, C, n, n), to those of the model, (B, K, n, n)."""
        centred = f_BCHW.float() - self.mean[:, None, None]
        return torch.einsum("bchw,ck->bkhw", centred, self.components) / self.scale

    def restore(self, w_BKHW: Tensor) -> Tensor:
        """The way back; what the components leave out is at its mean."""
        f = torch.einsum("bkhw,ck->bchw", w_BKHW * self.scale, self.components)
        return f + self.mean[:, None, None]

    def check_belongs(self, vqvae: VQVAE, what: str) -> None:
        """Raise ValueError where it was fitted to another VQ-VAE."""
        if not torch.equal(self.vqvae.cpu(), hash_of(vqvae)):
            raise UserError(
                f"{what} was trained on the latents of another VQ-VAE: "
                "put that VQ-VAE back, or train dit anew on the one that is there"
            )


def hash_of(vqvae: VQVAE) -> Tensor:
    """SHA-256 of the weights, 32 bytes."""
    return torch.tensor(list(bytes.fromhex(fingerprint(vqvae.state_dict()))), dtype=torch.uint8)


def basis_of(state: dict[str, Tensor]) -> LatentBasis:
    """From its weights."""
    basis = LatentBasis(*state["components"].shape)
    basis.load_state_dict(state)
    return basis


@torch.no_grad()
def fit_basis(vqvae: VQVAE, images_BCHW: Tensor, num_components: int | None = None) -> LatentBasis:
    """The principal components of the latents of uint8 images, over all positions.

    As many as it takes to decode pictures within 0.1 dB of what all components give, or as many as are given.

    Raises:
        ValueError: all images are alike.
    """
    signed = to_signed(images_BCHW)
    f_NCHW = torch.cat([vqvae.latent(some) for some in signed.split(AT_ONCE)])
    values = f_NCHW.double().movedim(1, -1).flatten(0, -2)
    mean = values.mean(0)
    variances, vectors = torch.linalg.eigh((values - mean).T @ (values - mean) / len(values))
    variances, vectors = variances.flip(0).clamp_min(0), vectors.flip(1)
    if variances[0] <= 0:
        raise UserError("the latents of all images are alike: give images that differ")
    # of the two directions of a component, the one in which its largest entry is positive
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    count = num_components or _enough(vqvae, signed, f_NCHW, mean, vectors)
    basis = LatentBasis(len(mean), count)
    basis.mean.copy_(mean)
    basis.components.copy_(vectors[:, :count])
    basis.scale.copy_(variances[:count].mean().sqrt())
    basis.vqvae.copy_(hash_of(vqvae))
    return basis.to(images_BCHW.device)


def _enough(vqvae: VQVAE, signed: Tensor, f_NCHW: Tensor, mean: Tensor, vectors: Tensor) -> int:
    """The fewest components from which pictures come within LOSS_DB of those from all, by their mean squared error."""
    num_channels = len(mean)
    shown = slice(None, None, -(-len(signed) // (2 * AT_ONCE)))  # of all classes
    targets, f = to_unit(signed[shown]), f_NCHW[shown]

    def error(count: int) -> float:
        kept = (vectors[:, :count] @ vectors[:, :count].T).float()
        middle = mean.float()[:, None, None]
        near = torch.einsum("bchw,cd->bdhw", f - middle, kept) + middle
        parts = zip(near.split(AT_ONCE), targets.split(AT_ONCE), strict=True)
        return sum(float((vqvae.to_images(z) - x).square().sum()) for z, x in parts)

    most = error(num_channels) * 10 ** (LOSS_DB / 10)
    return 1 + bisect_left(range(1, num_channels), True, key=lambda count: error(count) <= most)


def vqvae_of(latents: object) -> VQVAE | None:
    """The VQ-VAE whose latents these are, which can tell the tokens of a picture; None of another autoencoder's."""
    return latents.vqvae if isinstance(latents, VQLatents) else None


class VQLatents:
    """The latents of a VQ-VAE in a basis fitted to it."""

    def __init__(self, vqvae: VQVAE, basis: LatentBasis) -> None:
        self.vqvae, self.basis = vqvae, basis

    @property
    def image_size(self) -> int:
        return self.vqvae.config.image_size

    def to(self, device: torch.device | str) -> "VQLatents":
        self.vqvae.to(device)
        self.basis.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        basis = {f"basis.{key}": value for key, value in self.basis.state_dict().items()}
        return {**self.vqvae.state_dict(), **basis}

    def encode(self, images_BCHW: Tensor) -> Tensor:
        return self.basis.project(self.vqvae.latent(images_BCHW * 2 - 1))

    def decode(self, z_BKHW: Tensor) -> Tensor:
        return self.vqvae.to_images(self.basis.restore(z_BKHW))
