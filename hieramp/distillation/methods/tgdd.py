"""TGDD (arXiv 2606.21705): anchors of each class chosen by the tokens of a multi-scale VQ-VAE.

1. Every real image has a histogram p of its codes over all scales: coarse scales weigh 3, mid ones 1, fine ones 0.5.
2. k-means with k = IPC on the histograms of a class, in their first 512 principal components.
3. In each cluster the images with the highest structural score are averaged in the latent: the 20 first, from IPC 50 on
   the 10 first. The score: far from the histogram P of the class (Jensen-Shannon divergence), not concentrated (Σp²),
   rich in the codes that are the class's own (TF-IDF).
4. A diffusion transformer is pulled to these anchors as by MGD³. A VAR, which has no noise to pull in, is given the
   anchor's tokens at the first scales and draws the finer ones: this project's analogue, not the paper's.
The paper weighs the three terms by a regression on ImageNet (2.96, -10.99, 2.07 of the raw terms). Their spread differs
from data to data: here each is brought to mean 0 and spread 1 over the class, and they count alike. What the paper's
TF-IDF tokens are is not told: here the tenth of all codes whose frequency in the class times log(images / images that
have the code) is largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hieramp.checkpoints import fingerprint
from hieramp.devices import to_device_async
from hieramp.diffusion.latents import VQLatents
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.maker import full_float32
from hieramp.distillation.methods.anchors import AnchorsOf, k_means, nearest_to, projected
from hieramp.distillation.methods.images import ENCODED_AT_ONCE
from hieramp.distillation.methods.method import EITHER, VAR, Parts, Work
from hieramp.distillation.methods.mgd3 import Pulled
from hieramp.distillation.methods.store import Stage, Tensors
from hieramp.distillation.plan import Item
from hieramp.errors import UserError
from hieramp.fields import Knob, Number
from hieramp.generation.model import Model
from hieramp.scales import STAGES, Scales
from hieramp.seeds import seed_of
from hieramp.vqvae.model import VQVAE

WEIGHTS = (3.0, 1.0, 0.5)  # of the coarse, mid and fine scales
TOP, TOP_OF_MANY, MANY = 20, 10, 50  # images averaged; so many from this IPC on
OWN_SHARE = 0.1  # of the codes that are taken for the class's own


def histograms(tokens_NL: Tensor, scales: Scales, num_codes: int) -> np.ndarray:
    """Of each image the weighted frequencies of its codes, (N, V) float64, that sum to 1; scale 0 counts as coarse."""
    p_NV = torch.zeros(len(tokens_NL), num_codes, dtype=torch.float64)
    for stage, weight in zip(STAGES, WEIGHTS, strict=True):
        mine = [s for s in range(len(scales)) if (scales.stage_of(s) or STAGES[0]) == stage]
        if not mine:
            continue
        found = torch.cat([tokens_NL[:, scales.spans[s]] for s in mine], 1).long()
        p_NV.scatter_add_(1, found, torch.full(found.shape, weight / found.shape[1], dtype=torch.float64))
    return (p_NV / p_NV.sum(1, keepdim=True)).numpy()


def own_codes(p_NV: np.ndarray, inverse_frequency_V: np.ndarray) -> np.ndarray:
    """Which codes are the class's own by TF-IDF, (V,) bool."""
    tf_idf_V = p_NV.mean(0) * inverse_frequency_V
    first = np.argsort(-tf_idf_V, kind="stable")[: max(1, round(OWN_SHARE * len(tf_idf_V)))]
    own_V = np.zeros(len(tf_idf_V), bool)
    own_V[first] = tf_idf_V[first] > 0
    return own_V


def structural_scores(p_NV: np.ndarray, own_V: np.ndarray) -> np.ndarray:
    """Of each image of a class: divergence from the class, less concentration, plus what is on its own codes, (N,)."""
    class_V = p_NV.mean(0)
    middle_NV = (p_NV + class_V) / 2
    divergence_N = (_entropy_terms(p_NV, middle_NV) + _entropy_terms(class_V[None], middle_NV)) / 2
    terms = divergence_N, -(p_NV**2).sum(1), p_NV[:, own_V].sum(1)
    return sum(((term - term.mean()) / max(term.std(), 1e-12) for term in terms), np.zeros(len(p_NV)))


def _entropy_terms(p_NV: np.ndarray, q_NV: np.ndarray) -> np.ndarray:
    """KL(p ‖ q) in nats, row by row."""
    ratio_NV = np.divide(p_NV, q_NV, out=np.ones_like(q_NV), where=(p_NV > 0) & (q_NV > 0))
    return (p_NV * np.log(ratio_NV)).sum(1)


@dataclass(frozen=True)
class FirstScales:
    """The tokens of the anchors of items at the first scales, per scale (B, n²)."""

    anchors: AnchorsOf  # all tokens of an anchor, (ipc, L)
    scales: Scales
    count: int

    def __call__(self, items: Sequence[Item]) -> list[Tensor]:
        tokens_BL = self.anchors(items)
        return [tokens_BL[:, span] for span in self.scales.spans[: self.count]]


@dataclass(frozen=True)
class TGDD(Pulled):
    name: ClassVar[str] = "tgdd"
    title: ClassVar[str] = "anchors by the tokens of the VQ-VAE (arXiv 2606.21705)"
    kinds: ClassVar[tuple[str, ...]] = EITHER
    weighs: ClassVar[bool] = False  # an anchor stands for itself

    cluster_pca: Annotated[
        int,
        Knob(
            Number(0, 4096, unit="count", whole=True),
            "PCA",
            "Cluster in so many principal components of a class; 0: without (tgdd: 512).",
            "methods",
            EITHER,
        ),
    ] = 512
    averaged: Annotated[
        int,
        Knob(
            Number(0, 100_000, unit="count", whole=True),
            "Averaged",
            "Images of a cluster whose mean is the anchor; 0: 20, from IPC 50 on 10.",
            "methods",
            EITHER,
        ),
    ] = 0
    anchor_scales: Annotated[
        int,
        Knob(
            Number(1, 100, unit="count", whole=True),
            "Anchor scales",
            "Of a VAR: so many first scales are the anchor's, the finer ones are drawn.",
            "methods",
            VAR,
        ),
    ] = 3

    def check(self, work: Work) -> None:
        scales = _vqvae_of(work.model).config.scales
        if isinstance(work.model, DiffusionModel):
            super().check(work)
            return
        work.real.check_count(work.ipc, self.images_per_class, self.name)
        if self.anchor_scales > len(scales):
            raise UserError(
                f"anchor scales is {self.anchor_scales}, and {work.model.name} has {len(scales)} scales: give no more"
            )

    def prepare(self, work: Work) -> Parts:
        if isinstance(work.model, DiffusionModel):
            return super().prepare(work)
        scales = _vqvae_of(work.model).config.scales
        return Parts(prefix=FirstScales(self._found(work, "tokens"), scales, self.anchor_scales))

    def anchors(self, work: Work) -> AnchorsOf:
        return self._found(work, {"centroid": "means", "nearest": "nearest"}[self.anchor])

    def _found(self, work: Work, what: str) -> AnchorsOf:
        """Of each class the latents or the tokens of its anchors."""
        stage, codes = self._codes(work)
        top = self.averaged or (TOP if work.ipc < MANY else TOP_OF_MANY)
        about = {
            "of": stage.hash,
            "classes": sorted(codes),
            "k": work.ipc,
            "pca": self.cluster_pca,
            "top": top,
            "anchor": self.anchor,
            "seed": work.seed,
        }
        vqvae = _vqvae_of(work.model)
        rare_V = _inverse_frequency([one["tokens"] for one in codes.values()], vqvae.config.num_codes)
        jobs = {str(label): partial(self._chosen, work, label, one, rare_V, top) for label, one in codes.items()}
        found = work.store.stage("tgdd", about).get(jobs, work.model.device, "anchors by tokens")
        return AnchorsOf({label: found[str(label)][what] for label in codes}, work.ipc)

    def _chosen(self, work: Work, label: int, one: Tensors, rare_V: np.ndarray, top: int) -> Tensors:
        """Of a class, the largest cluster first: the mean latents of its anchors, the real ones nearest to them, and
        for a VAR the tokens of what is asked for; and the clusters' sizes."""
        vqvae = _vqvae_of(work.model)
        p_NV = histograms(one["tokens"], vqvae.config.scales, vqvae.config.num_codes)
        scores_N = structural_scores(p_NV, own_codes(p_NV, rare_V))
        cluster_N = k_means(projected(p_NV, self.cluster_pca), work.ipc, seed_of(work.seed, label)).cluster
        sizes = np.bincount(cluster_N, minlength=work.ipc)
        flat = one["z"].flatten(1).double().numpy()
        means, nearest = [], []
        for cluster in np.argsort(-sizes, kind="stable"):
            members = np.flatnonzero(cluster_N == cluster)
            best = members[np.argsort(-scores_N[members], kind="stable")[:top]]
            means.append(flat[best].mean(0))
            nearest.append(nearest_to(flat, best, means[-1]))
        found = {
            "means": torch.from_numpy(np.stack(means)).float().unflatten(1, one["z"].shape[1:]),
            "nearest": one["z"][torch.tensor(nearest)],
            "sizes": torch.from_numpy(np.sort(sizes)[::-1].copy()),
        }
        if isinstance(work.model, Model):
            z = found["means" if self.anchor == "centroid" else "nearest"]
            tokens = vqvae.quantize.quantize(z.to(work.model.device)).tokens
            found["tokens"] = torch.cat(tokens, 1).cpu()
        return found

    def _codes(self, work: Work) -> tuple[Stage, dict[int, Tensors]]:
        """Tokens of all scales (N, L) and latents (N, C, h, w) of the real images of each class."""
        model, real = work.model, work.real
        limit = [self.images_per_class, work.seed] if self.images_per_class else None
        about: dict[str, Any] = {
            "vqvae": fingerprint(_vqvae_of(model).state_dict()),
            "latents": fingerprint(model.latents.state_dict()) if isinstance(model, DiffusionModel) else None,
            "images": real.source.signature,
            "device": model.device.type,
            "limit": limit,
        }
        stage, of_class = work.store.stage("codes", about), {}
        jobs: dict[str, Any] = {}
        for label in work.classes:
            chunks = real.chunks(label, self.images_per_class, work.seed)
            jobs |= {key: partial(self._read, work, some) for key, some in chunks.items()}
            of_class[label] = list(chunks)
        found = stage.get(jobs, model.device, "tokens of the real images")
        return stage, {
            label: {name: torch.cat([found[key][name] for key in keys]) for name in ("tokens", "z")}
            for label, keys in of_class.items()
        }

    @torch.no_grad()
    def _read(self, work: Work, indices: Sequence[int]) -> Tensors:
        model, vqvae, tokens, latents = work.model, _vqvae_of(work.model), [], []
        for some in torch.tensor(indices).split(ENCODED_AT_ONCE):
            pixels = to_device_async(work.real.pixels(some.tolist(), vqvae.config.image_size), model.device)
            with full_float32():
                f = vqvae.latent(pixels.float() / 127.5 - 1)
                tokens.append(torch.cat(vqvae.quantize.quantize(f).tokens, 1).int().cpu())
                z = model.latents.basis.project(f) if isinstance(model, DiffusionModel) else f  # type: ignore[attr-defined]
                latents.append(z.float().cpu())
        return {"tokens": torch.cat(tokens), "z": torch.cat(latents)}


def _inverse_frequency(tokens: Sequence[Tensor], num_codes: int) -> np.ndarray:
    """log(images / images that have the code), (V,); 0 for a code that none has."""
    has_V = torch.zeros(num_codes, dtype=torch.float64)
    for some_NL in tokens:
        for part_NL in some_NL.long().split(256):
            has_V += torch.zeros(len(part_NL), num_codes, dtype=torch.float64).scatter_(1, part_NL, 1.0).sum(0)
    count = sum(map(len, tokens))
    return torch.where(has_V > 0, (count / has_V.clamp_min(1)).log(), 0.0).numpy()


def _vqvae_of(model: Model | DiffusionModel) -> VQVAE:
    """Raise UserError where a model has no multi-scale VQ-VAE."""
    if isinstance(model, Model):
        return model.vqvae
    if isinstance(model.latents, VQLatents):
        return model.latents.vqvae
    raise UserError(f"tgdd reads the tokens of a multi-scale VQ-VAE, and {model.name} has none: take mgd3")
