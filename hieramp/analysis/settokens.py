"""Token entropy and coverage of a set of images, real or drawn alike: its images are encoded by the VQ-VAE.

A drawn image encodes to other tokens than it was drawn from, so compare these figures with one another alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hieramp.analysis.bootstrap import MeanUsage, UsageDifference, code_counts, mean_usage, usage_difference
from hieramp.analysis.fidelity import in_batches
from hieramp.analysis.tokens import CodeCounts, Risen, Usage, changed_tokens, share_that_rose
from hieramp.errors import UserError
from hieramp.scales import Scales
from hieramp.vqvae.model import VQVAE


@dataclass(frozen=True)
class SetUsage:
    """Code usage of every class of a set, per place: a stage ("coarse") or a scale ("scale 3")."""

    labels: tuple[int, ...]
    places: dict[str, list[Usage]]  # per class, in the order of `labels`
    tokens: list[tuple[Tensor, ...]]  # per class: of each scale (N, n²), int32
    scales: Scales
    num_codes: int

    def mean(self, place: str) -> tuple[float, float]:
        """Entropy in nats and coverage, averaged over classes."""
        usages = self.places[place]
        count = len(usages)
        return sum(u.entropy for u in usages) / count, sum(u.coverage for u in usages) / count

    def means(self) -> dict[str, MeanUsage]:
        """The same with intervals over classes, by what plots call the places: "8×8", "fine"."""
        return {place_name(place, self.scales): mean_usage(usages) for place, usages in self.places.items()}


def place_name(place: str, scales: Scales) -> str:
    """What a plot calls a place: "8×8" for "scale 5"; a stage by its name."""
    sides = {f"scale {i}": f"{side}×{side}" for i, side in enumerate(scales.sides)}
    return sides.get(place, place)


@torch.no_grad()
def token_usage(vqvae: VQVAE, images_NCHW: Tensor, labels_N: Tensor, per_class: int | None = None) -> SetUsage:
    """Encode uint8 images of the VQ-VAE's size; `per_class` takes the first so many of each class.

    Entropy grows with the number of tokens that were counted: sets that are compared need as many images of a class.

    Raises:
        UserError: a class has fewer images.
    """
    labels = tuple(labels_N.unique().tolist())
    device = next(vqvae.parameters()).device
    per_label: list[CodeCounts] = []
    tokens: list[tuple[Tensor, ...]] = []
    for label in labels:
        images = images_NCHW[labels_N == label][:per_class]
        if per_class and len(images) < per_class:
            raise UserError(f"class {label} has {len(images)} images, not {per_class}: compare sets of one size")
        counts = CodeCounts(vqvae.config.scales, vqvae.config.num_codes)
        batches: list[list[Tensor]] = []
        for batch in in_batches(images, 100):
            batches.append([tokens_BL.cpu() for tokens_BL in vqvae.encode(batch.to(device) * 2 - 1)])
            for scale, tokens_BL in enumerate(batches[-1]):
                counts.add(scale, tokens_BL)
        per_label.append(counts)
        tokens.append(tuple(torch.cat(parts).int() for parts in zip(*batches, strict=True)))
    places: dict[str, list[Usage]] = {stage: [] for stage in per_label[0].per_stage()}
    places |= {f"scale {scale}": [] for scale in range(len(vqvae.config.scales))}
    for counts in per_label:
        for stage, usage in counts.per_stage().items():
            places[stage].append(usage)
        for scale, usage in enumerate(counts.per_scale()):
            places[f"scale {scale}"].append(usage)
    return SetUsage(labels, places, tokens, vqvae.config.scales, vqvae.config.num_codes)


def changed(baseline: SetUsage, ours: SetUsage) -> list[list[list[float]]]:
    """Of pairs of one seed: for each scale (n, n) the share of pairs whose tokens differ.

    Raises:
        UserError: the two sets have other classes.
    """
    _check_classes(baseline, ours)
    found = []
    for scale, side in enumerate(ours.scales.sides):
        before, after = (torch.cat([of_class[scale] for of_class in one.tokens]) for one in (baseline, ours))
        found.append(changed_tokens(before, after).float().mean(0).view(side, side).tolist())
    return found


def risen(baseline: SetUsage, ours: SetUsage) -> dict[str, Risen]:
    """Per place, the share of classes whose entropy or coverage rose over the baseline.

    Raises:
        UserError: the two sets have other classes.
    """
    _check_classes(baseline, ours)
    return {place: share_that_rose(usages, ours.places[place]) for place, usages in baseline.places.items()}


def differences(baseline: SetUsage, ours: SetUsage, is_paired: bool) -> dict[str, list[UsageDifference]]:
    """Per stage, what each class's entropy and coverage differ by, with intervals; ours minus the baseline.

    Raises:
        UserError: the two sets have other classes.
    """
    _check_classes(baseline, ours)
    found: dict[str, list[UsageDifference]] = {}
    for stage, scales in ours.scales.stages.items():
        if not scales:
            continue
        both = ([_counts(side, i, scales) for i in range(len(side.labels))] for side in (baseline, ours))
        found[stage] = [usage_difference(before, after, is_paired) for before, after in zip(*both, strict=True)]
    return found


def _counts(side: SetUsage, i: int, scales: Sequence[int]) -> Tensor:
    tokens_NL = torch.cat([side.tokens[i][scale].flatten(1) for scale in scales], dim=1)
    return code_counts(tokens_NL.long(), side.num_codes)


def _check_classes(baseline: SetUsage, ours: SetUsage) -> None:
    if baseline.labels != ours.labels:
        raise UserError("the two sets have images of different classes: compare sets of the same classes")
