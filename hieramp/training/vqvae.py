"""Training the multi-scale VQ-VAE: reconstruction, commitment, and a codebook kept by moving averages.

The official training code was never released; the losses follow VAR's quantizer (arXiv 2404.02905, Eq. 5).
"""

import torch
from accelerate.utils import broadcast, reduce
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from hieramp.data import to_signed
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


class VQVAEObjective(Objective):
    """(images uint8, labels) to losses; the labels are not used."""

    model: VQVAE

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        self.model = vqvae
        self.codebook = Codebook(vqvae)
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
        return {
            "loss": mse + towards_latent + COMMITMENT * commitment,
            "psnr": 10 * torch.log10(4 / mse.detach()),
            "quantization": towards_latent.detach(),
        }

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
        outer = ("model.encoder.conv_in.", "model.decoder.conv_out.")
        return {name for name, p in self.named_parameters() if p.ndim == 4 and not name.startswith(outer)}


def reconstruction_sheet(vqvae: VQVAE, images_BCHW: Tensor) -> Image.Image:
    """Two rows: images, and what is left of them after the tokens."""
    x = to_signed(images_BCHW.to(next(vqvae.parameters()).device))
    pair = torch.cat([to_unit(x), vqvae.to_images(vqvae.embed(vqvae.encode(x)))])
    return to_pil_image(make_grid(pair.cpu(), nrow=len(x), padding=1))
