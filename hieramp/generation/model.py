"""A model that draws: VQ-VAE, VAR and class names under one name."""

import difflib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hieramp.amplification.settings import OFF, Amplification
from hieramp.devices import prefer_flash
from hieramp.generation.captured import CudaGraphCache, CudaRecorder
from hieramp.generation.loop import Given, Memory, Request, Step, draw
from hieramp.generation.sampling import PLAIN, Sampling, by_stage
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
class Model:
    """Draws images of its classes. Made by `hieramp.load` or `hieramp.from_official`."""

    vqvae: VQVAE
    var: VAR
    class_names: tuple[str, ...]
    name: str = "model"
    folder: Path | None = None
    wnids: tuple[str, ...] = field(default=())  # ImageNet ids of the classes, where they have any
    captured: CudaGraphCache | None = field(default=None, repr=False)  # recorded scales, on a GPU

    @property
    def device(self) -> torch.device:
        return self.var.pos_start.device

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.vqvae.config.image_size

    @property
    def has_class_tokens(self) -> bool:
        return bool(self.var.config.class_token_scales)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32, cuda_graphs: bool = False) -> "Model":
        """Move to a device; the transformer computes in `dtype`, the VQ-VAE in float32.

        With `cuda_graphs`, on a GPU, the scales of a batch size are recorded as CUDA graphs when it is drawn for the
        second time, and replayed after that: the same images with fewer launches.
        """
        self.vqvae.to(device)
        self.var.to(device, dtype)
        self.captured = None
        if self.device.type == "cuda":
            prefer_flash()
            self.captured = CudaGraphCache(partial(CudaRecorder, self.device)) if cuda_graphs else None
        return self

    def label_of(self, name: str | int) -> int:
        """The label of a class name, number or ImageNet id.

        Raises:
            ValueError: there is no such class; names the nearest ones.
        """
        text = str(name).strip()
        if text.isdigit():
            if int(text) < self.var.config.num_classes:
                return int(text)
            raise ValueError(
                f"class {text} does not exist: {self.name} has classes 0 to {self.var.config.num_classes - 1}"
            )
        for names in (self.class_names, self.wnids):
            lowered = [entry.lower() for entry in names]
            if text.lower() in lowered:
                return lowered.index(text.lower())
            # ImageNet names list synonyms: "tench, Tinca tinca"
            for i, entry in enumerate(lowered):
                if text.lower() in (part.strip() for part in entry.split(",")):
                    return i
        near = difflib.get_close_matches(text.lower(), [n.lower() for n in self.class_names], n=3, cutoff=0.4)
        hint = ", ".join(near or self.class_names[:10])
        raise ValueError(f"unknown class {text!r}; {'the nearest are' if near else 'there are'}: {hint}")

    def generate(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None = None,
        amplification: Amplification | Sequence[Amplification | None] | None = None,
        guidance: float = 4.0,
        top_k: int = 900,
        top_p: float = 0.95,
        given: Sequence[Tensor] = (),
        temperature: float | Sequence[float] = PLAIN,
        guidance_power: float = 1.0,
    ) -> Drawing:
        """Draw one image per label; see `steps` for the arguments and errors."""
        sampling = Sampling(guidance, top_k, top_p, by_stage(temperature), guidance_power)
        request = self._request(labels, seeds, amplification, sampling, False, given)
        tokens, saliency = [], []
        for step in draw(self.vqvae, self.var, request, captured=self.captured):  # a step holds its logits: let each go
            tokens.append(step.tokens)
            saliency.append(step.saliency)
        return Drawing(step.image, tuple(tokens), tuple(saliency), request.labels, request.seeds)

    def steps(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None = None,
        amplification: Amplification | Sequence[Amplification | None] | None = None,
        guidance: float = 4.0,
        top_k: int = 900,
        top_p: float = 0.95,
        details: bool = False,
        memory: Memory | None = None,
        given: Sequence[Tensor] = (),
        temperature: float | Sequence[float] = PLAIN,
        guidance_power: float = 1.0,
    ) -> Iterator[Step]:
        """Draw one image per label, yielding every scale from coarse to fine.

        An image depends on (model, label, seed, settings) alone. `amplification` is one setting for all
        images or one per image; None is off. `seeds` are drawn at random when left out. `details` adds the
        saliency of every block and head and what the class tokens believe. `memory` keeps drawings
        (`hieramp.generation.memory.RecentDrawings`): what an earlier one shares is not computed again.
        `given` are the tokens of the first scales, coarsest first, per scale (B, n²) whole numbers, as of
        `model.vqvae.encode`: they are taken instead of drawn, and the model draws the finer scales to them.
        `temperature` is one number or three, of the coarse, mid and fine scales: under 1 the likelier codes win more
        often, 0 takes the likeliest; it applies to what top-k and top-p leave. Guidance grows with the scale s of S as
        (s / (S - 1)) to `guidance_power`: 1 is evenly, 0 the same for all.

        Raises:
            ValueError: a label the model does not have, counts that differ, a setting out of range, or given
                tokens of another shape or beyond the codebook.
        """
        sampling = Sampling(guidance, top_k, top_p, by_stage(temperature), guidance_power)
        request = self._request(labels, seeds, amplification, sampling, details, given)
        return draw(self.vqvae, self.var, request, memory, self.captured)

    def _request(
        self,
        labels: Sequence[int],
        seeds: Sequence[int] | None,
        amplification: Amplification | Sequence[Amplification | None] | None,
        sampling: Sampling,
        details: bool,
        given: Sequence[Tensor],
    ) -> Request:
        labels = tuple(int(label) for label in labels)
        if not labels:
            raise ValueError("no labels: name at least one class to draw")
        for label in labels:
            if not 0 <= label < self.var.config.num_classes:
                raise ValueError(
                    f"class {label} does not exist: {self.name} has 0 to {self.var.config.num_classes - 1}"
                )
        seeds = tuple(secrets.randbelow(2**32) for _ in labels) if seeds is None else tuple(int(s) for s in seeds)
        if amplification is None or isinstance(amplification, Amplification):
            amplifications = (amplification or OFF,) * len(labels)
        else:
            amplifications = tuple(amp or OFF for amp in amplification)
        if not len(seeds) == len(amplifications) == len(labels):
            counts = f"{len(labels)} labels, {len(seeds)} seeds, {len(amplifications)} amplifications"
            raise ValueError(f"counts differ: {counts}; give one of each per image")
        for amp in set(amplifications):
            amp.check(self.var.scales, self.var.config.depth)
        return Request(labels, seeds, amplifications, sampling, details, self._given(given, len(labels)))

    def _given(self, given: Sequence[Tensor], num_images: int) -> tuple[Given, ...]:
        """Tokens per scale (B, n²) to what each image takes."""
        sides, num_codes = self.var.scales.sides, self.var.config.num_codes
        if len(given) > len(sides):
            raise ValueError(f"tokens of {len(given)} scales are given, {self.name} has {len(sides)}: give no more")
        for scale, (side, tokens) in enumerate(zip(sides, given, strict=False)):
            shape, wanted = tuple(tokens.shape), (num_images, side * side)
            if shape != wanted or tokens.is_floating_point():
                raise ValueError(f"given[{scale}] is {shape} of {tokens.dtype}: give {wanted} whole numbers")
            if tokens.min() < 0 or tokens.max() >= num_codes:
                worst = int(tokens.min()) if tokens.min() < 0 else int(tokens.max())
                raise ValueError(f"given[{scale}] holds code {worst}; {self.name} has codes 0 to {num_codes - 1}")
        per_scale = [[tuple(row) for row in tokens.tolist()] for tokens in given]
        return tuple(zip(*per_scale, strict=True))
