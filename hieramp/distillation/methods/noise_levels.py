"""Noise levels as the papers name them: steps of DDPM, or log-SNR; and the grid of levels that a set is drawn along."""

from dataclasses import dataclass
from math import sqrt

from hieramp.diffusion.levels import NoiseLevel, alphas_bar, ddpm_levels, log_snr_at
from hieramp.diffusion.sampler import Denoiser
from hieramp.errors import UserError
from hieramp.fields import Number

# At 50 steps half of DDPM's levels lie above t = 0.775, of an even grid a quarter.
GRIDS = (("vp", "as DDPM's"), ("even", "evenly in t"))


@dataclass(frozen=True)
class LogSNR(Number):
    """λ = 2·ln(a / s); as text also a step of DDPM with its 1,000 times respaced, such as 25/50 (DiT's)."""

    low: float = -30.0
    high: float = 30.0
    unit: str = "log-SNR"

    @property
    def metavar(self) -> str:
        return "LOG-SNR"

    def parse(self, name: str, text: str) -> float | int:
        step, found, steps = text.partition("/")
        if not found:
            return super().parse(name, text)
        if not (step.isdecimal() and steps.isdecimal() and int(step) < int(steps) <= 1000 and int(steps) > 1):
            raise UserError(f"{name} is {text[:40]!r}; give a log-SNR such as -2.5, or a step of DDPM such as 25/50")
        return log_snr_of(int(step), int(steps))


def log_snr_of(step: int, steps: int) -> float:
    """λ of a step of DDPM whose 1,000 times were respaced evenly to `steps`, both ends included (DiT), to 2 digits."""
    return round(log_snr_at(round(step * 999 / (steps - 1))), 2)


def levels_of(denoiser: Denoiser, steps: int, grid: str) -> tuple[NoiseLevel, ...]:
    """The steps + 1 levels of a grid, from noise to the clean latent.

    Raises:
        UserError: a model that has DDPM's levels alone, and an even grid; or more steps than there are levels.
    """
    own = denoiser.levels(steps)
    if has_ddpm_levels(denoiser):
        if grid != "vp":
            raise UserError("grid is even, and this model has DDPM's noise levels alone: leave --grid out")
        return tuple(own)
    if grid == "even":
        return tuple(own)
    return tuple(map(on_linear_path, ddpm_levels(steps, alphas_bar())))


def has_ddpm_levels(denoiser: Denoiser) -> bool:
    """Whether a model knows the noise levels of DDPM alone; the others take any t."""
    return denoiser.levels(1)[0].signal > 0


def on_linear_path(level: NoiseLevel) -> NoiseLevel:
    """The same log-SNR with a = 1 - t and s = t."""
    return NoiseLevel(1 - level.t, level.t, 1000 * level.t)


def respaced(denoiser: Denoiser, steps: int = 50) -> list[NoiseLevel]:
    """DDPM's levels at 0 to 999 respaced evenly (DiT), the least noisy first, as the model takes them."""
    alpha_bar, times = alphas_bar(), [round(step * 999 / (steps - 1)) for step in range(steps)]
    levels = [NoiseLevel(sqrt(alpha_bar[time]), sqrt(1 - alpha_bar[time]), float(time)) for time in times]
    return levels if has_ddpm_levels(denoiser) else list(map(on_linear_path, levels))
