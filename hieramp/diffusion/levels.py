"""How noisy a latent is on its way from noise to picture, for both families of diffusion models.

A noised latent is z = a·x0 + s·ε. The linear path (flow matching) has a = 1 - t and s = t; a variance-preserving one
(DDPM) has a² + s² = 1. Divided by a + s the second is the first, with t = s / (a + s): so one sampler serves both.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hieramp.errors import UserError
from hieramp.scales import STAGES

# The stages of a VAR are scales, those of a diffusion model are noise levels: coarse is where a picture is still noise.
# Borders in log-SNR; at -4 the linear path is at t = 0.88, at -1 at t = 0.62.
COARSE_UNTIL, MID_UNTIL = -4.0, -1.0


class NoiseLevel(NamedTuple):
    """One noise level."""

    signal: float  # a
    noise: float  # s
    time: float  # what the network is told: 0 to 1000

    @property
    def t(self) -> float:
        """s / (a + s): from 1, nothing but noise, to 0, the picture."""
        return self.noise / (self.signal + self.noise)

    @property
    def log_snr(self) -> float:
        """λ = 2·ln(a / s)."""
        if self.signal <= 0:
            return -math.inf
        return math.inf if self.noise <= 0 else 2 * math.log(self.signal / self.noise)

    @property
    def stage(self) -> str:
        """coarse, mid or fine."""
        coarse, mid, fine = STAGES
        return coarse if self.log_snr < COARSE_UNTIL else mid if self.log_snr < MID_UNTIL else fine


def t_of(log_snr: float) -> float:
    """t of the linear path where λ is `log_snr`."""
    return 1 / (1 + math.exp(log_snr / 2))


def flow_levels(steps: int) -> list[NoiseLevel]:
    """The steps + 1 levels of a linear path, evenly from t = 1 to t = 0."""
    return [NoiseLevel(1 - t, t, 1000 * t) for t in ((steps - k) / steps for k in range(steps + 1))]


def alphas_bar(num_times: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
    """ᾱ_t of DDPM's linear schedule (Ho et al., arXiv 2006.11239), (num_times,) float64."""
    return np.cumprod(1 - np.linspace(first, last, num_times))


def ddpm_levels(steps: int, alpha_bar: np.ndarray) -> list[NoiseLevel]:
    """The steps + 1 levels of DDIM ("leading" spacing, the last one clean): every (T // steps)-th time.

    Raises:
        ValueError: more steps than there are times.
    """
    if not 1 <= steps <= len(alpha_bar):
        raise UserError(f"steps is {steps}; this model has noise levels for 1 to {len(alpha_bar)}")
    times = [k * (len(alpha_bar) // steps) for k in reversed(range(steps))]
    levels = [NoiseLevel(math.sqrt(alpha_bar[t]), math.sqrt(1 - alpha_bar[t]), float(t)) for t in times]
    return [*levels, NoiseLevel(1.0, 0.0, 0.0)]


def log_snr_at(time: int) -> float:
    """λ of DDPM's time 0 to 999."""
    alpha_bar = float(alphas_bar()[time])
    return math.log(alpha_bar / (1 - alpha_bar))


def nearest_level(levels: Sequence[NoiseLevel], log_snr: float) -> int:
    """The index of the level whose log-SNR is nearest."""
    return min(range(len(levels)), key=lambda index: abs(levels[index].log_snr - log_snr))
