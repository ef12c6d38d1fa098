"""DIVER (arXiv 2605.12649): a distilled set drawn anew by a diffusion model, which keeps what its images mean.

Of each image x̃ with its label: z0 = E(x̃); the noised z_tf = √ᾱ_tf·z0 + √(1-ᾱ_tf)·ε is where the drawing begins
(semantic inheritance), and within a window of its steps (fusion) z ← z - γ·σ_t·(z_t - z0) after each (guidance).
Steps are those of the paper: 50 of DDIM, counted from 0, the picture, to 50, noise; step n is DDPM's time 20·n. Models
of either path are told by their noise level. What the paper leaves open is an option by name, its defaults being the
paper's words as they stand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from hieramp.diffusion.levels import NoiseLevel, alphas_bar, ddpm_levels
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.noise import gaussian
from hieramp.diffusion.sampler import Denoiser, Guide, Moment, sample
from hieramp.errors import UserError
from hieramp.fields import Choice, Knob, Number, check_fields

METHOD = "diver"
PAPER_STEPS = 50  # what noise levels and window are counted in
_STEP = Number(0, PAPER_STEPS, shown=(0, PAPER_STEPS), step=1, unit="step", whole=True)
_ONLY = ("dit",)


def _choice(*options: tuple[str, str]) -> Choice:
    return Choice(options)


@dataclass(frozen=True)
class Diver:
    """How a set is recovered.

    Raises:
        UserError: a value out of range, or a window that begins below its end.
    """

    steps: Annotated[
        int,
        Knob(
            Number(1, 1000, shown=(1, 100), step=1, unit="steps", whole=True),
            "Steps",
            "From noise to picture.",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = 50
    guidance: Annotated[
        float,
        Knob(
            Number(0, shown=(0, 10), step=0.1),
            "Guidance",
            "Classifier-free guidance g, w = 1 + g; 0 is without.",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = 3.0
    noise_level: Annotated[
        int,
        Knob(
            Number(1, PAPER_STEPS, shown=(1, PAPER_STEPS), step=1, unit="step", whole=True),
            "Noise level",
            "Step of 50 whose noise is put on the given images: 50 leaves nothing of them.",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = 25
    start: Annotated[
        str,
        Knob(
            _choice(("top", "at the first step"), ("level", "at the step of its noise")),
            "Start",
            "Where the noised latents enter. top: in the place of noise, as in the paper; level: where the model "
            "expects as much noise as they have (SDEdit, img2img).",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = "top"
    window_start: Annotated[
        int,
        Knob(_STEP, "Window from", "Step of 50 from which on the drawing is pulled.", "diver", _ONLY, always=True),
    ] = 40
    window_end: Annotated[
        int,
        Knob(
            _STEP,
            "Window to",
            "Step of 50 at which that ends; where it begins and ends at one step there is no pull.",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = 25
    gamma: Annotated[
        float,
        Knob(
            Number(0, shown=(0, 1)), "Pull γ", "Strength of the pull to the given image.", "diver", _ONLY, always=True
        ),
    ] = 0.1
    pull: Annotated[
        str,
        Knob(
            _choice(("z", "the noised latent"), ("x0", "the foreseen picture")),
            "Pulled",
            "What is pulled to the given latent. z: the noised latent, as in the paper; x0: the picture that the "
            "model foresees (the form of MGD3).",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = "z"
    difference: Annotated[
        str,
        Knob(
            _choice(("before", "before the step"), ("after", "after the step")),
            "Difference",
            "Which latent is compared with the given one where z is pulled: the one before the step, or after.",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = "before"
    sigma: Annotated[
        str,
        Knob(
            _choice(("marginal", "√(1 - ᾱ)"), ("posterior", "of a DDPM step")),
            "σ",
            "What γ is multiplied by: the noise of the level, or the deviation of a DDPM step from it.",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = "marginal"
    grid: Annotated[
        str,
        Knob(
            _choice(("ddim", "as DDIM's"), ("model", "the model's own")),
            "Grid",
            "Noise levels of the steps: those of DDIM, half of them in the noisier half, or the model's own.",
            "diver",
            _ONLY,
            always=True,
        ),
    ] = "ddim"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.window_start < self.window_end:
            raise UserError(
                f"the window is from step {self.window_start} to {self.window_end}; steps are counted down, "
                "so it must begin at the higher one"
            )

    def levels(self, denoiser: Denoiser) -> list[NoiseLevel]:
        """The noise levels of the drawing, steps + 1 of them."""
        own = denoiser.levels(self.steps)
        if self.grid == "model" or not _is_linear(own):
            return own
        ts = [level.t for level in ddpm_levels(self.steps, alphas_bar())]
        return [NoiseLevel(1 - t, t, 1000 * t) for t in ts]

    def first(self, levels: Sequence[NoiseLevel]) -> int:
        """The step with which the drawing begins."""
        if self.start == "top":
            return 0
        t = paper_level(self.noise_level).t
        return min(range(len(levels) - 1), key=lambda k: abs(levels[k].t - t))

    def begin(self, z0: Tensor, eps: Tensor, levels: Sequence[NoiseLevel]) -> Tensor:
        """Where the drawing begins, at `levels[first]`."""
        level = levels[self.first(levels)]
        if self.start == "level":
            return level.signal * z0 + level.noise * eps
        noised = paper_level(self.noise_level)
        return _norm(level) * (noised.signal * z0 + noised.noise * eps)

    def guides(self, z0: Tensor, levels: Sequence[NoiseLevel]) -> list[Guide]:
        """The pull, as what the sampler adds to ε; none where the window is empty."""
        if self.window_start == self.window_end or self.gamma == 0:
            return []
        high, low = paper_level(self.window_start).t, paper_level(self.window_end).t

        def guide(moment: Moment) -> Tensor:
            level, following = levels[moment.number : moment.number + 2]
            if not low < level.t <= high:
                return torch.zeros_like(z0)
            strength = self.gamma * _sigma(level, following, self.sigma)
            if self.pull == "x0":
                return -strength * (z0 - moment.guided.x0)
            return _as_eps(-strength * _norm(following) * (self._compared(moment, following) - z0), level, following)

        return [guide]

    def _compared(self, moment: Moment, following: NoiseLevel) -> Tensor:
        """The latent that is compared with the given one, in the coordinates in which a² + s² = 1."""
        if self.difference == "before":
            return moment.z / _norm(moment.level)
        guided = moment.guided
        return (following.signal * guided.x0 + following.noise * guided.eps) / _norm(following)


def paper_level(step: int) -> NoiseLevel:
    """The noise of a step of the paper's 50, of DDPM's time 20·step."""
    if step == 0:
        return NoiseLevel(1.0, 0.0, 0.0)
    time = step * (1000 // PAPER_STEPS)
    alpha = float(alphas_bar()[time]) if time < 1000 else 0.0
    return NoiseLevel(math.sqrt(alpha), math.sqrt(1 - alpha), float(time))


def _is_linear(levels: Sequence[NoiseLevel]) -> bool:
    return all(math.isclose(level.signal + level.noise, 1) for level in levels)


def _norm(level: NoiseLevel) -> float:
    """What a latent of this level is divided by to have a² + s² = 1."""
    return math.hypot(level.signal, level.noise)


def _sigma(level: NoiseLevel, following: NoiseLevel, kind: str) -> float:
    noise = level.noise / _norm(level)
    if kind == "marginal":
        return noise
    kept, kept_then = (level.signal / _norm(level)) ** 2, (following.signal / _norm(following)) ** 2
    return math.sqrt((1 - kept_then) / (1 - kept) * (1 - kept / kept_then))


def _as_eps(moved: Tensor, level: NoiseLevel, following: NoiseLevel) -> Tensor:
    """What has to be added to ε so that Euler's step leads `moved` further."""
    here, there = level.signal + level.noise, following.signal + following.noise
    return moved * (level.signal / (here * there * (following.t - level.t)))


@torch.no_grad()
def recovered(
    model: DiffusionModel,
    images_BCHW: Tensor,
    labels: Sequence[int],
    seeds: Sequence[int],
    diver: Diver | None = None,
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] of the model's size, drawn anew; the same shape."""
    diver = diver or Diver()
    denoiser, device = model.denoiser, model.device
    z0 = model.latents.encode(images_BCHW.to(device))
    levels = diver.levels(denoiser)
    z = diver.begin(z0, gaussian(labels, seeds, denoiser.shape, device), levels)
    for moment in sample(
        denoiser,
        z,
        levels,
        torch.tensor(labels, device=device),
        guidance=diver.guidance,
        guides=diver.guides(z0, levels),
        first=diver.first(levels),
    ):
        z = moment.after
    return model.latents.decode(z)
