"""A diffusion model that draws: latents, denoiser and class names under one name, as `hieramp.generation` for VARs.

An image depends on (model, label, seed, settings) alone, to the bit. A network's last bits depend on the shape of the
batch that it computes; so images are computed in groups of one size, the last one filled up, from noise to picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hieramp.amplification.settings import CLASS_TOKEN
from hieramp.class_conditional import ClassConditionalModel
from hieramp.devices import prefer_flash, to_device_async
from hieramp.diffusion.amplifier import Amplifier
from hieramp.diffusion.class_token import DiTClassToken
from hieramp.diffusion.latents import Latents
from hieramp.diffusion.levels import NoiseLevel
from hieramp.diffusion.noise import gaussian
from hieramp.diffusion.sampler import Denoiser, Moment, sample
from hieramp.errors import UserError
from hieramp.settings import DEFAULTS, Settings, SettingsLike

GROUP = {"cpu": 4, "cuda": 32}  # images computed at once


class _GroupStep(NamedTuple):
    """One step of a group, filled up."""

    moment: Moment
    saliency: Tensor  # (N, h, w)
    amplified: Tensor  # (N, h, w) bool


@dataclass(frozen=True)
class DiffusionStep:
    """One step of all images, from one noise level to the next; pictures are decoded when first looked at."""

    index: int
    level: NoiseLevel  # where it began
    following: NoiseLevel
    _groups: tuple[_GroupStep, ...] = field(repr=False)
    _count: int = field(repr=False)
    _latents: Latents = field(repr=False)

    @property
    def is_last(self) -> bool:
        return self.following.noise == 0

    @cached_property
    def latent(self) -> Tensor:
        """(B, K, n, n), where the step led; after the last step the latent of the picture."""
        return self._joined([group.moment.after for group in self._groups])

    @cached_property
    def image(self) -> Tensor:
        """The picture as the model foresees it at this step, (B, 3, H, W) in [0, 1]; at the last step the picture."""
        shown = [group.moment.after if self.is_last else group.moment.guided.x0 for group in self._groups]
        with torch.no_grad():
            return self._joined([self._latents.decode(z) for z in shown])

    @cached_property
    def saliency(self) -> Tensor:
        """(B, h, w), sums to 1: how far the class moves each token, averaged over the steps so far.

        Uniform where no unconditional half was computed.
        """
        return self._joined([group.saliency for group in self._groups])

    @cached_property
    def amplified(self) -> Tensor:
        """(B, h, w) bool: the tokens whose attention was amplified in this step."""
        return self._joined([group.amplified for group in self._groups])

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts))[: self._count]


@dataclass(frozen=True)
class DiffusionDrawing:
    """Finished images and how they came about."""

    images: Tensor  # (B, 3, H, W) in [0, 1]
    latents: Tensor  # (B, K, n, n)
    saliency: tuple[Tensor, ...]  # per step (B, h, w)
    labels: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class _Request:
    """What to draw: one label, seed and setting per image; the settings differ in their amplification alone."""

    labels: tuple[int, ...]
    seeds: tuple[int, ...]
    settings: tuple[Settings, ...]
    maps: bool

    def group(self, start: int, size: int) -> "_Request":
        """The images from `start` on, filled up to `size` with the first of them."""

        def filled(values: tuple) -> tuple:
            some = values[start : start + size]
            return some + some[:1] * (size - len(some))

        return replace(
            self,
            labels=filled(self.labels),
            seeds=filled(self.seeds),
            settings=filled(self.settings),
        )


@dataclass(eq=False)
class DiffusionModel(ClassConditionalModel):
    """Draws images of its classes. Made by `hieramp.load` or `hieramp.diffusion.official.from_diffusers`."""

    latents: Latents
    denoiser: Denoiser
    class_names: tuple[str, ...]
    name: str = "model"
    folder: Path | None = None
    wnids: tuple[str, ...] = ()  # ImageNet ids of the classes, where they have any
    defaults: Settings = DEFAULTS["dit"]  # what is drawn with where nothing is said
    class_token: DiTClassToken | None = None  # for maps; it computes in float32 and changes no picture by itself
    kind: ClassVar[str] = "dit"  # which settings it has

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    @property
    def dtype(self) -> torch.dtype:
        """In which the transformer computes."""
        return self.denoiser.dtype

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.latents.image_size

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "DiffusionModel":
        """Move to a device; the transformer computes in `dtype` (None: as it did), all else in float32."""
        self.latents.to(device)
        self.denoiser.to(device, dtype or self.dtype)
        if self.class_token is not None:
            self.class_token.to(device)
        if self.device.type == "cuda":
            prefer_flash()
        return self

    @property
    def states(self) -> tuple[dict[str, Tensor], ...]:
        """All weights that decide about a picture."""
        return self.latents.state_dict(), self.denoiser.state_dict()

    @property
    def depth(self) -> int:
        """Blocks of the transformer."""
        return self.denoiser.depth

    def check(self, settings: Settings) -> None:
        """Raise ValueError where settings are none of this model's."""
        settings.check_kind(self.kind)
        settings.resolved_blocks(self.depth)
        if settings.map_from == CLASS_TOKEN and self.class_token is None:
            raise UserError(
                f"{self.name} has no class token for its map: train one with python -m hieramp train class-tokens "
                "--kind dit, or leave map from at guidance"
            )
        self.denoiser.levels(settings.steps)  # says so where there are not as many

    def generate(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None = None,
        settings: SettingsLike = None,
        *,
        maps: bool = False,
        **options: Any,
    ) -> DiffusionDrawing:
        """Draw one image per label; see `steps` for the arguments and errors."""
        request = self._request(labels, seeds, settings, options, maps)
        saliency = []
        for step in self._draw(request):
            saliency.append(step.saliency)
        return DiffusionDrawing(step.image, step.latent, tuple(saliency), request.labels, request.seeds)

    def steps(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None = None,
        settings: SettingsLike = None,
        *,
        maps: bool = False,
        **options: Any,
    ) -> Iterator[DiffusionStep]:
        """Draw one image per label, yielding every step from noise to picture.

        An image depends on (model, label, seed, settings) alone. `settings` are those of all images, or one for each
        image; None is the defaults of a diffusion transformer. An `Amplification` does for settings that are otherwise
        the defaults, and any field of `Settings` may be given by its name as well, as may `amplification=`:
        `guidance=2.0, steps=50, solver="heun"`. Images of one call may differ in their amplification alone: (ρ, α) by
        stage, where a stage is a span of noise levels (`hieramp.diffusion.levels`); α = 0 is off. Guidance g means
        (1 + g)·conditional - g·unconditional; 0 is without. `seeds` are drawn at random when left out. `maps` computes
        the saliency also where nothing needs it (without guidance and amplification).

        Raises:
            ValueError: a label the model does not have, counts that differ, a setting out of range, or one that only
                other kinds of model have.
            TypeError: an option that is no setting.
        """
        return self._draw(self._request(labels, seeds, settings, options, maps))

    def _request(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None,
        settings: SettingsLike,
        options: dict[str, Any],
        maps: bool,
    ) -> _Request:
        return _Request(*self.checked(labels, seeds, settings, options), maps)

    def _draw(self, request: _Request) -> Iterator[DiffusionStep]:
        size, count = GROUP.get(self.device.type, 4), len(request.labels)
        groups = [self._draw_group(request.group(start, size)) for start in range(0, count, size)]
        levels = self.denoiser.levels(request.settings[0].steps)
        for index, (level, following) in enumerate(pairwise(levels)):
            yield DiffusionStep(index, level, following, tuple(map(next, groups)), count, self.latents)

    def _draw_group(self, request: _Request) -> Iterator[_GroupStep]:
        denoiser, device = self.denoiser, self.device
        how = request.settings[0]
        amplifier = Amplifier(denoiser, request.labels, request.seeds, request.settings, request.maps, self.class_token)
        levels = denoiser.levels(how.steps)
        moments = sample(
            denoiser,
            gaussian(request.labels, request.seeds, denoiser.shape, device),
            levels,
            to_device_async(torch.tensor(request.labels), device),
            solver=how.solver,
            guidance=how.guidance,
            attention=amplifier,
        )
        grid = len(request.labels), denoiser.token_side, denoiser.token_side
        for moment in moments:
            saliency, chosen = amplifier.map.saliency(), amplifier.chosen
            yield _GroupStep(
                moment,
                torch.full(grid, 1 / (grid[1] * grid[2]), device=device) if saliency is None else saliency,
                torch.zeros(grid, dtype=torch.bool, device=device) if chosen is None else chosen.view(grid),
            )
