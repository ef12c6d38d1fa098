"""Sampling as pure functions over logits, with noise that belongs to an image, not to a batch.

The noise is a counter-based hash of (seed, label, scale, position, code): the same on every device, at any
batch size and in any order. Letters: B rows, L positions, V codes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hieramp.devices import to_device_async
from hieramp.fields import Knob, Number, PerStage, check_fields, to_json
from hieramp.scales import STAGES, Scales

_GOLDEN = 0x9E3779B9
PIECE = 32768  # words of noise made at once on a CPU
Temperature = tuple[float, float, float]  # coarse, mid, fine
PLAIN: Temperature = (1.0, 1.0, 1.0)
RANDOM_OFFSET = 1024  # added to a scale: random numbers that its sampling noise does not use
Words = TypeVar("Words", Tensor, np.ndarray)  # int32


@dataclass(frozen=True)
class Sampling:
    """Guidance, top-k, top-p and temperature; 0 switches either filter off.

    Guidance grows with the scale, by a power of how far it is: 1 is evenly (VAR), under 1 sooner, 0 the same for all.
    What top-k and top-p leave is drawn from at a temperature, one for each stage; scale 0 counts as coarse. A single
    number is that of all three. 1 is the plain draw; under it the likelier codes win more often; 0 takes the likeliest.

    Raises:
        ValueError: a negative or non-finite value, top_p over 1, or not one or three temperatures.
    """

    guidance: Annotated[
        float,
        Knob(
            Number(0, shown=(0, 10), step=0.1),
            "Guidance",
            "Strength of classifier-free guidance at the last scale; 0 is without.",
            "sampling",
            models=("var", "dit"),
            always=True,
        ),
    ] = 4.0
    top_k: Annotated[
        int,
        Knob(
            Number(0, shown=(0, 900), step=1, unit="codes", whole=True, upto="num_codes"),
            "Top-k (0 is off)",
            "Tokens are drawn from the likeliest so many codes; 0 is off.",
            "sampling",
            always=True,
        ),
    ] = 900
    top_p: Annotated[
        float,
        Knob(
            Number(0, 1, unit="probability"),
            "Top-p (0 is off)",
            "Tokens are drawn from the smallest set of codes with this probability; 0 is off.",
            "sampling",
            always=True,
        ),
    ] = 0.95
    temperature: Annotated[
        Temperature,  # a single number is that of every stage
        Knob(
            PerStage(Number(0, shown=(0, 1.5), step=0.05), rest=1.0),
            "Temperature",
            "Of the draw: 1 is plain, under it the likelier codes win more often, 0 takes the likeliest.",
            "sampling",
        ),
    ] = PLAIN
    guidance_power: Annotated[
        float,
        Knob(
            Number(0, shown=(0, 2), step=0.05),
            "Guidance power (0: the same at all scales)",
            "How guidance grows with the scale: 1 evenly, 0.5 with its root, 0 the same for all.",
            "sampling",
        ),
    ] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def guidance_at(self, scale: int, num_scales: int) -> float:
        """t = guidance · (s/(S-1))^power: it grows with the scale (docs/method.md, where the power is 1)."""
        return self.guidance * (scale / (num_scales - 1)) ** self.guidance_power

    def temperature_at(self, scale: int, scales: Scales) -> float:
        """Of this scale, by its stage."""
        return self.temperature[STAGES.index(scales.stage_of(scale) or STAGES[0])]

    @property
    def temperature_label(self) -> str:
        """ "0.6" where all are alike, else the stages where it is not 1: "mid 0.8, fine 0.6"; "" for a plain draw."""
        if self.temperature == PLAIN:
            return ""
        if len(set(self.temperature)) == 1:
            return f"{self.temperature[0]:g}"
        return ", ".join(f"{stage} {t:g}" for stage, t in zip(STAGES, self.temperature, strict=True) if t != 1)

    @property
    def guidance_label(self) -> str:
        """ "4", or where it does not grow evenly "2.5 (power 0.5)"."""
        return f"{self.guidance:g}" + ("" if self.guidance_power == 1 else f" (power {self.guidance_power:g})")

    def options(self) -> dict[str, Any]:
        """By their names, ready for JSON; what came later is named only where it is not plain."""
        return to_json(self)


def guide(conditional: Tensor, unconditional: Tensor, t: float) -> Tensor:
    """Classifier-free guidance: (1+t)·conditional - t·unconditional."""
    return torch.lerp(unconditional, conditional, 1 + t)


def filter_logits(logits_BLV: Tensor, top_k: int, top_p: float, slack: float = 0.0) -> Tensor:
    """Everything but the top-k codes, then everything but the smallest set of mass top_p, becomes -inf.

    `slack` keeps whatever logits that err by so much could keep; a negative one only what they must keep.
    """
    num_codes = logits_BLV.shape[-1]
    by_rank, by_mass = 0 < top_k < num_codes, 0 < top_p < 1
    if not (by_rank or by_mass):
        return logits_BLV
    ascending = _ascending(logits_BLV)
    cut_BL1 = torch.full_like(ascending[..., :1], -torch.inf)
    if by_rank:
        dropped = torch.full_like(cut_BL1, num_codes - top_k, dtype=torch.long)
        cut_BL1 = _cut(ascending, dropped, slack)
        ascending = ascending.masked_fill(ascending < cut_BL1, -torch.inf)
    if by_mass:
        # an error of the logits is a relative error of the mass in the tail
        dropped = (ascending.softmax(-1).cumsum(-1) <= (1 - top_p) * (1 - slack)).sum(-1, keepdim=True)
        cut_BL1 = torch.maximum(cut_BL1, _cut(ascending, dropped.clamp(max=num_codes - 1), slack))
    return logits_BLV.masked_fill(logits_BLV < cut_BL1, -torch.inf)


def _ascending(x_BLV: Tensor) -> Tensor:
    """Sorted along the codes; on a CPU by numpy, whose vectorised sort took a quarter of torch's time."""
    return torch.from_numpy(np.sort(x_BLV.numpy(), axis=-1)) if x_BLV.device.type == "cpu" else x_BLV.sort(-1).values


def _cut(ascending_BLV: Tensor, dropped_BL1: Tensor, slack: float) -> Tensor:
    """The lowest logit to keep where the `dropped` lowest go, (B, L, 1)."""
    lowest = ascending_BLV.gather(-1, dropped_BL1)
    if slack >= 0:
        return lowest - slack
    below = ascending_BLV.gather(-1, (dropped_BL1 - 1).clamp(min=0)).masked_fill(dropped_BL1 == 0, -torch.inf)
    return torch.maximum(lowest, below - slack).minimum(ascending_BLV[..., -1:])


def noise_keys(labels: Sequence[int], seeds: Sequence[int], device: torch.device) -> Tensor:
    """Two 32-bit words per image from its label and seed, (B, 2) int64."""
    words = []
    for label, seed in zip(labels, seeds, strict=True):
        digest = hashlib.blake2b(f"{label}/{seed}".encode(), digest_size=8).digest()
        words.append([int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")])
    return to_device_async(torch.tensor(words, dtype=torch.int64), device)


def _int32(word: int) -> int:
    """The int32 of the same bits: torch has no arithmetic of unsigned words."""
    return (word ^ 0x80000000) - 0x80000000


def _mix(x: Words) -> Words:
    """A bijection of 32-bit words that scatters their bits (constants of Wellons' "prospecting for hash functions").

    In place, on int32 whose products wrap; the masks make the shifts logical.
    """
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= _int32(0x846CA68B)
    x ^= (x >> 16) & 0xFFFF
    return x


def _words(place_L1: Words, code_V: Words, key: Words) -> Words:
    """The word of every position and code."""
    return _mix(_mix(place_L1 + code_V) ^ key)


def _gumbel(words: Tensor) -> Tensor:
    uniform = ((words >> 9) & 0x7FFFFF).float().add_(0.5).mul_(2.0**-23)  # exact in float32, never 0 or 1
    return uniform.log_().neg_().log_().neg_()


def gumbel_noise(keys_B2: Tensor, scale: int, num_positions: int, num_codes: int) -> Tensor:
    """Standard Gumbel noise of each image for one scale, (B, L, V) float32."""
    device = keys_B2.device
    keys_B2 = keys_B2.to(torch.int32)  # keeps the lower 32 bits
    position_L = torch.arange(num_positions, dtype=torch.int32, device=device) + (scale + 1) * 65536
    code_V = torch.arange(num_codes, dtype=torch.int32, device=device) * _int32(_GOLDEN)
    place_BL1 = _mix(_mix(position_L) ^ keys_B2[:, :1])[..., None]
    if device.type != "cpu":
        return _gumbel(_words(place_BL1, code_V, keys_B2[:, 1, None, None]))
    # by numpy in pieces that stay in the processor's cache: a quarter of the time
    noise_BLV, codes = torch.empty(len(keys_B2), num_positions, num_codes), code_V.numpy()
    some = max(1, PIECE // num_codes)
    for noise_LV, place_L1, key in zip(noise_BLV, place_BL1.numpy(), keys_B2[:, 1].numpy(), strict=True):
        for start in range(0, num_positions, some):
            words = _words(place_L1[start : start + some], codes, key)
            noise_LV[start : start + some] = _gumbel(torch.from_numpy(words))
    return noise_BLV


def random_scores(keys_B2: Tensor, scale: int, num_positions: int) -> Tensor:
    """A random number for every position of each image at one scale, independent of its noise, (B, L) float32."""
    return gumbel_noise(keys_B2, scale + RANDOM_OFFSET, num_positions, 1)[..., 0]


def sample(logits_BLV: Tensor, noise_BLV: Tensor) -> Tensor:
    """One token per position by the Gumbel-max trick, (B, L): an exact draw from softmax(logits).

    With the noise times a temperature T it is one from softmax(logits / T), and with T = 0 the likeliest code.

    Two settings that share their noise agree on a token wherever their distributions allow it, so a
    comparison shows what the setting changed and not what chance did.
    """
    return (logits_BLV + noise_BLV).argmax(-1)
