"""Training the multi-scale VQ-VAE: reconstruction, commitment, and a codebook kept by moving averages.

The official training code was never released; the losses follow VAR's quantizer (arXiv 2404.02905, Eq. 5).
"""

import math
from dataclasses import dataclass

import torch
from accelerate.utils import broadcast, reduce
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from hieramp.data import to_signed
from hieramp.errors import UserError
from hieramp.perceptual import Distance
from hieramp.training.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    changed_alike,
    discriminator_loss,
    generator_loss,
    without_learning,
)
from hieramp.training.augment import randomly_flipped
from hieramp.training.loop import Objective
from hieramp.vqvae.autoencoder import to_unit
from hieramp.vqvae.model import VQVAE
from hieramp.vqvae.quantizer import Quantized

COMMITMENT = 0.25
CODE_DECAY = 0.98  # of the moving averages that keep the codebook
DEAD = 0.03  # a code used less than this share of the mean use is restarted
GRACE = 0.1  # share of the mean use that a restarted code begins with: about sixty steps to prove itself


class Codebook(nn.Module):
    """Moving averages behind the codes (van den Oord et al., 2017, appendix A.1), with restarts of dead codes."""

    use_V: Tensor
    sum_VC: Tensor

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        codes_VC = vqvae.quantize.embedding.weight.requires_grad_(False)
        self.codes_VC = codes_VC  # shared with the model
        self.num_tokens = vqvae.config.scales.num_tokens  # of an image
        self.register_buffer("use_V", torch.zeros(len(codes_VC)))  # all dead: the first batch fills the book
        self.register_buffer("sum_VC", torch.zeros_like(codes_VC))

    @torch.no_grad()
    def keep(self, batch_size: int) -> None:
        """Begin from the codes that the model has, as if all were used alike: they were trained before."""
        num_tokens = batch_size * self.num_tokens
        self.use_V.fill_(num_tokens / len(self.use_V))
        self.sum_VC.copy_(self.codes_VC * self.use_V[:, None])

    @torch.no_grad()
    def update(self, found: Quantized, restart: bool) -> Tensor:
        """Move the codes towards the vectors that chose them; returns how many codes were dead.

        Nothing here waits for the device, a GPU runs on.
        """
        z_NC = torch.cat(found.residuals)
        idx_N = torch.cat([idx_BL.flatten() for idx_BL in found.tokens])
        ones_N = torch.ones_like(idx_N, dtype=self.use_V.dtype)
        count_V = reduce(torch.zeros_like(self.use_V).index_add_(0, idx_N, ones_N), "sum")
        sum_VC = reduce(torch.zeros_like(self.sum_VC).index_add_(0, idx_N, z_NC.float()), "sum")
        self.use_V.lerp_(count_V, 1 - CODE_DECAY)
        self.sum_VC.lerp_(sum_VC, 1 - CODE_DECAY)
        dead_V = self.use_V <= DEAD * self.use_V.mean()
        if restart:
            self._restart(dead_V, z_NC, idx_N)
        self.codes_VC.copy_(self.sum_VC / self.use_V.clamp_min(1e-6)[:, None])
        return dead_V.sum()

    def _restart(self, dead_V: Tensor, z_NC: Tensor, idx_N: Tensor) -> None:
        """Move dead codes onto vectors of this batch that are badly served, as k-means++ would."""
        error_N = (z_NC - self.codes_VC[idx_N]).square().sum(1).float()
        # A race of exponentials draws without replacement (Efraimidis and Spirakis, 2006), as torch.multinomial
        # does, which would wait for the device.
        race_N = (error_N + 1e-12) / torch.empty_like(error_N).exponential_()
        chosen = race_N.topk(min(len(race_N), len(dead_V))).indices
        fresh_VC = broadcast(z_NC[chosen].float())[(dead_V.cumsum(0) - 1) % len(chosen)]
        use = self.use_V.mean() * GRACE
        self.use_V.copy_(torch.where(dead_V, use, self.use_V))
        self.sum_VC.copy_(torch.where(dead_V[:, None], fresh_VC * use, self.sum_VC))


@dataclass(frozen=True)
class LookOptions:
    """What a tokenizer's reconstructions are judged by besides their pixels."""

    perceptual: str | None = None  # a network, as --perceptual takes it; None: pixels alone
    perceptual_weight: float = 1.0
    adversarial: float = 0.0  # weight of the patch discriminator; 0: none
    adversarial_from: float = 0.3  # share of the run from which on it takes part
    augment: bool = True  # DiffAugment: both kinds of images changed alike before the discriminator sees them

    def __post_init__(self) -> None:
        for name in ("perceptual_weight", "adversarial"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}: give a number from 0 on")
        if not 0 <= self.adversarial_from < 1:
            raise UserError(f"adversarial_from is {self.adversarial_from}: give a share of the run, from 0 to below 1")


class Look(nn.Module):
    """The losses of how a reconstruction looks: perceptual, and adversarial with the discriminator that it trains.

    Generator and discriminator take one step together: the verdict that the decoder learns from has the
    discriminator's weights fixed, the one that the discriminator learns from has the images fixed.
    """

    def __init__(self, options: LookOptions, image_size: int, distance: Distance | None = None) -> None:
        super().__init__()
        self.options = options
        # in a list: it is no part of what is trained or saved
        self.distance = [distance] if distance else []
        self.discriminator = PatchDiscriminator(image_size) if options.adversarial else None
        self.is_judged = False  # whether the discriminator takes part yet

    def forward(
        self, x: Tensor, made: Tensor, mse: Tensor, last_layer: nn.Parameter
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to the loss, and values to log. Images and reconstructions (B, 3, H, W) in [-1, 1]."""
        logged: dict[str, Tensor] = {}
        added = mse.new_zeros(())
        for distance in self.distance:
            if isinstance(distance, nn.Module):
                distance.to(x.device)
            logged["perceptual"] = distance(made.float(), x)
            added = added + self.options.perceptual_weight * logged["perceptual"]
        if self.discriminator is not None:
            adversarial, more = self._adversarial(x, made, mse + added, last_layer)
            added, logged = added + adversarial, logged | more
        return added, {name: value.detach() for name, value in logged.items()}

    def _adversarial(
        self, x: Tensor, made: Tensor, reconstruction: Tensor, last_layer: nn.Parameter
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.discriminator is not None
        if not self.is_judged:  # all weights are in the graph, for runs of several processes
            return sum((p.sum() * 0 for p in self.discriminator.parameters()), x.new_zeros(())), {}
        real, fake = changed_alike(x, made) if self.options.augment else (x, made.float())
        fooled = generator_loss(without_learning(self.discriminator, fake))
        weight = adaptive_weight(reconstruction, fooled, last_layer) if torch.is_grad_enabled() else fooled.new_ones(())
        learned = discriminator_loss(self.discriminator(real), self.discriminator(fake.detach()))
        added = self.options.adversarial * weight * fooled + learned
        return added, {"adversarial": fooled, "adversarial_weight": weight, "discriminator": learned}


class VQVAEObjective(Objective):
    """(images uint8, labels) to losses; the labels are not used."""

    model: VQVAE

    def __init__(self, vqvae: VQVAE, look: LookOptions | None = None, distance: Distance | None = None) -> None:
        super().__init__()
        self.model = vqvae
        self.codebook = Codebook(vqvae)
        self.look = Look(look or LookOptions(), vqvae.config.image_size, distance)
        self.found: Quantized | None = None

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        x = randomly_flipped(to_signed(images_BCHW))
        z = self.model.latent(x)
        found = self.model.quantize.quantize(z)
        f_hat = found.partial[-1]
        # straight through to the encoder, and the φ of the quantizer learn from the pixels too
        reconstruction = self.model.decode(f_hat + (z - z.detach()))
        mse = F.mse_loss(reconstruction.float(), x)
        # Each partial sum should already be close to the latent, and the encoder stay close to the codes.
        # A pull towards the last sum alone lets the latent grow without bound (loss 0.03 to 5 in 100 steps).
        towards_latent = torch.stack([F.mse_loss(f, z.detach()) for f in found.partial]).mean()
        commitment = torch.stack([F.mse_loss(z, f.detach()) for f in found.partial]).mean()
        self.found = found
        looks, logged = self.look(x, reconstruction, mse, self.model.decoder.conv_out.weight)
        return {
            "loss": mse + looks + towards_latent + COMMITMENT * commitment,
            "psnr": 10 * torch.log10(4 / mse.detach()),
            "quantization": towards_latent.detach(),
            **logged,
        }

    def before_step(self, progress: float) -> None:
        self.look.is_judged = progress >= self.look.options.adversarial_from

    def apart(self) -> set[str]:
        return discriminator_of(self)

    def after_step(self, progress: float) -> dict[str, Tensor]:
        """Update the codebook; restarts end with the last fifth, so that the codes settle."""
        assert self.found is not None
        dead = self.codebook.update(self.found, restart=progress < 0.8)
        unused_V = torch.zeros_like(self.codebook.use_V)
        usage = {
            f"usage/scale{s}": unused_V.index_fill(0, idx_BL.flatten(), 1.0).mean()
            for s, idx_BL in enumerate(self.found.tokens)
        }
        self.found = None
        return {"dead_codes": dead, **usage}

    def matrices(self) -> set[str]:
        """The convolutions that Muon takes: all but the first and the last, which see pixels."""
        return inner_convolutions(self)


class DecoderObjective(Objective):
    """(images uint8, labels) to losses of the decoder alone: its input is what the tokens say, as when it is drawn.

    Encoder, codes and φ are fixed, so that the tokens of every image stay as they are.
    """

    model: VQVAE

    def __init__(self, vqvae: VQVAE, look: LookOptions, distance: Distance | None = None) -> None:
        super().__init__()
        self.model = vqvae
        for part in (vqvae.encoder, vqvae.quant_conv, vqvae.quantize):
            part.requires_grad_(False)
        self.look = Look(look, vqvae.config.image_size, distance)

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        x = randomly_flipped(to_signed(images_BCHW))
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            f_hat = self.model.embed(self.model.encode(x))
        reconstruction = self.model.decode(f_hat)
        mse = F.mse_loss(reconstruction.float(), x)
        looks, logged = self.look(x, reconstruction, mse, self.model.decoder.conv_out.weight)
        return {"loss": mse + looks, "psnr": 10 * torch.log10(4 / mse.detach()), **logged}

    def before_step(self, progress: float) -> None:
        self.look.is_judged = progress >= self.look.options.adversarial_from

    def apart(self) -> set[str]:
        return discriminator_of(self)

    def matrices(self) -> set[str]:
        return inner_convolutions(self)


def inner_convolutions(module: nn.Module) -> set[str]:
    """The convolutions that Muon takes: all of the VQ-VAE's but the first and the last, which see pixels."""
    outer = ("model.encoder.conv_in.", "model.decoder.conv_out.")
    named = module.named_parameters()
    return {name for name, p in named if p.ndim == 4 and name.startswith("model.") and not name.startswith(outer)}


def discriminator_of(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_parameters() if name.startswith("look.discriminator.")}


def reconstruction_sheet(vqvae: VQVAE, images_BCHW: Tensor) -> Image.Image:
    """Two rows: images, and what is left of them after the tokens."""
    x = to_signed(images_BCHW.to(next(vqvae.parameters()).device))
    pair = torch.cat([to_unit(x), vqvae.to_images(vqvae.embed(vqvae.encode(x)))])
    return to_pil_image(make_grid(pair.cpu(), nrow=len(x), padding=1))
