"""A model that draws: VQ-VAE, VAR and class names under one name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hieramp.class_conditional import ClassConditionalModel
from hieramp.devices import prefer_flash
from hieramp.generation.captured import CudaGraphCache, CudaRecorder
from hieramp.generation.loop import PrefixCache, PrefixTokens, Request, Step, draw
from hieramp.settings import DEFAULTS, Settings, SettingsLike
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE


@dataclass(frozen=True)
class Drawing:
    """Finished images and how they came about."""

    images: Tensor  # (B, 3, H, W) in [0, 1]
    tokens: tuple[Tensor, ...]  # per scale (B, n²)
    saliency: tuple[Tensor, ...]  # per scale (B, n, n), the conditional half's
    labels: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(eq=False)
class Model(ClassConditionalModel):
    """Draws images of its classes. Made by `hieramp.load` or `hieramp.from_official`."""

    vqvae: VQVAE
    var: VAR
    class_names: tuple[str, ...]
    name: str = "model"
    folder: Path | None = None
    wnids: tuple[str, ...] = field(default=())  # ImageNet ids of the classes, where they have any
    captured: CudaGraphCache | None = field(default=None, repr=False)  # recorded scales, on a GPU
    defaults: Settings = DEFAULTS["var"]  # what is drawn with where nothing is said
    kind: ClassVar[str] = "var"  # which settings it has

    @property
    def device(self) -> torch.device:
        return self.var.pos_start.device

    @property
    def dtype(self) -> torch.dtype:
        """In which the transformer computes."""
        return self.var.pos_start.dtype

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.vqvae.config.image_size

    @property
    def has_class_tokens(self) -> bool:
        return bool(self.var.config.class_token_scales)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None, cuda_graphs: bool = True) -> "Model":
        """Move to a device; the transformer computes in `dtype` (None: as it did), the VQ-VAE in float32.

        On a GPU its decoder computes in half precision too, where the transformer does: it is half of the work there.

        With `cuda_graphs`, on a GPU, the scales of a batch size are recorded as CUDA graphs when it is drawn for the
        second time, and replayed after that: the same images with fewer launches.
        """
        self.vqvae.to(device)
        self.var.to(device, dtype or self.dtype)
        is_half = self.device.type == "cuda" and self.dtype.itemsize < 4
        self.vqvae.set_decoder(self.dtype if is_half else torch.float32)
        self.captured = None
        if self.device.type == "cuda":
            prefer_flash()
            self.captured = CudaGraphCache(partial(CudaRecorder, self.device)) if cuda_graphs else None
        return self

    @property
    def states(self) -> tuple[dict[str, Tensor], ...]:
        """All weights that decide about a picture."""
        return self.vqvae.state_dict(), self.var.state_dict()

    @property
    def depth(self) -> int:
        """Blocks of the transformer."""
        return self.var.config.depth

    def generate(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None = None,
        settings: SettingsLike = None,
        *,
        prefix_tokens: Sequence[Tensor] = (),
        **options: Any,
    ) -> Drawing:
        """Draw one image per label; see `steps` for the arguments and errors."""
        request = self._request(labels, seeds, settings, options, False, prefix_tokens)
        tokens, saliency = [], []
        for step in draw(self.vqvae, self.var, request, captured=self.captured):  # a step holds its logits: let each go
            tokens.append(step.tokens)
            saliency.append(step.saliency)
        return Drawing(step.image, tuple(tokens), tuple(saliency), request.labels, request.seeds)

    def steps(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None = None,
        settings: SettingsLike = None,
        *,
        return_attention: bool = False,
        memory: PrefixCache | None = None,
        prefix_tokens: Sequence[Tensor] = (),
        **options: Any,
    ) -> Iterator[Step]:
        """Draw one image per label, yielding every scale from coarse to fine.

        An image depends on (model, label, seed, settings) alone. `settings` are those of all images, or one for each
        image; None is the model's `defaults`. An `Amplification` does for settings that are otherwise those, and any
        field of `Settings` may be given by its name as well, as may `amplification=`: `guidance=2.0, temperature=0.7`.
        Images of one call may differ in their amplification alone. `seeds` are drawn at random when left out.

        `return_attention` adds the saliency of every block and head and the class tokens' logits. `memory` keeps
        drawings (`hieramp.generation.memory.RecentDrawings`): what an earlier one shares is not computed again.
        `prefix_tokens` are the tokens of the first scales, coarsest first, per scale (B, n²) whole numbers, as of
        `model.vqvae.encode`: they are taken instead of drawn, and the model draws the finer scales to them.

        Raises:
            ValueError: a label the model does not have, counts that differ, a setting out of range, or given
                tokens of another shape or beyond the codebook.
            TypeError: an option that is no setting.
        """
        request = self._request(labels, seeds, settings, options, return_attention, prefix_tokens)
        return draw(self.vqvae, self.var, request, memory, self.captured)

    def check(self, settings: Settings) -> None:
        """Raise ValueError where the settings name what this model does not have."""
        settings.check_kind(self.kind)
        settings.check(self.var.scales, self.var.config.depth)

    def _request(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None,
        settings: SettingsLike,
        options: dict[str, Any],
        return_attention: bool,
        prefix_tokens: Sequence[Tensor],
    ) -> Request:
        labels, seeds, per_image = self.checked(labels, seeds, settings, options)
        amplifications = tuple(one.amplification for one in per_image)
        return Request(
            labels,
            seeds,
            amplifications,
            per_image[0].sampling,
            return_attention,
            self._prefix_tokens(prefix_tokens, len(labels)),
        )

    def _prefix_tokens(self, prefix_tokens: Sequence[Tensor], num_images: int) -> tuple[PrefixTokens, ...]:
        """Tokens per scale (B, n²) to what each image takes."""
        sides, num_codes = self.var.scales.sides, self.var.config.num_codes
        if len(prefix_tokens) > len(sides):
            raise ValueError(
                f"tokens of {len(prefix_tokens)} scales are given, {self.name} has {len(sides)}: give no more"
            )
        for scale, (side, tokens) in enumerate(zip(sides, prefix_tokens, strict=False)):
            shape, wanted = tuple(tokens.shape), (num_images, side * side)
            if shape != wanted or tokens.is_floating_point():
                raise ValueError(f"prefix_tokens[{scale}] is {shape} of {tokens.dtype}: give {wanted} whole numbers")
            if tokens.min() < 0 or tokens.max() >= num_codes:
                worst = int(tokens.min()) if tokens.min() < 0 else int(tokens.max())
                raise ValueError(
                    f"prefix_tokens[{scale}] holds code {worst}; {self.name} has codes 0 to {num_codes - 1}"
                )
        per_scale = [[tuple(row) for row in tokens.tolist()] for tokens in prefix_tokens]
        return tuple(zip(*per_scale, strict=True))
