"""Sets of real images in the same format, to compare with: chosen at random, or by RDED (arXiv 2312.03526)."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import nn
from torch.nn import functional as F

from hieramp.checkpoints import fingerprint
from hieramp.classifier import Classifier
from hieramp.data import DataSource, read_image, to_square
from hieramp.data.pictures import pixels_of
from hieramp.distillation.distill import SOFT
from hieramp.distillation.images import Collector, Shuffled, plan_of_images
from hieramp.distillation.maker import parallel_map
from hieramp.distillation.plan import Item, Plan
from hieramp.distillation.production import Progress, produce
from hieramp.errors import UserError
from hieramp.imageset.layout import Format
from hieramp.seeds import seed_of

METHODS = ("random-real", "rded")
FACTORS = (1, 2, 3, 4)
SMALL_IMAGE = 64  # up to here RDED takes one crop an image, above it a mosaic of 2×2
POOL, CROPS = 300, 5  # RDED: images looked at per class, crops of each


def collect(
    method: str,
    source: DataSource,
    ipc: int,
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    seed: int = 0,
    factor: int | None = None,
    soft_labels: bool = False,
    classifier: nn.Module | None = None,
    classifier_classes: Sequence[str] | None = None,
    format: Format = "zip",
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Progress]:
    """Write a set of real images, yielding the progress.

    "random-real": `ipc` images of each class, chosen by `seed`, resized and centre-cropped. "rded": of 300
    images a class the crops (5 of each) that the classifier is surest of, factor² of them to an image.
    The classifier takes images in [0, 1] and has the buffer `mean` (3, 1, 1), itself or in a part: a `Classifier`, or
    the network of a `Teacher`. `classifier_classes` are its classes in its order, which is then that of the set.

    Raises:
        UserError: too few images, unknown classes, settings out of range.
        OSError: the disk is full or not writable. What is finished is kept.
    """
    if method not in METHODS:
        raise UserError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    if classifier is not None:
        source = source.reordered(classifier_classes or source.class_names)
    if (soft_labels or method == "rded") and classifier is None:
        raise UserError(f"{method}{' with soft labels' * soft_labels} needs a classifier")
    if classifier is not None:
        classifier = classifier.to(device)
    if size is None:
        ours = classifier if isinstance(classifier, Classifier) else None
        size = ours.config.image_size if ours else min(read_image(source, 0).size)
    factor = factor or (1 if size <= SMALL_IMAGE else 2)
    settings: dict[str, Any] = {}
    if method == "rded":
        # "crops": how they are seeded; sets of before were by Python's hash, and an unfinished one must not be mixed;
        # "mosaic": which crops share a picture; in sets of before those of neighbouring ranks did
        settings |= {"factor": factor, "crops": 2, **({"mosaic": 2} if factor > 1 else {})}
        settings |= {"classifier": fingerprint(classifier.state_dict())} if classifier else {}
    settings[SOFT] = fingerprint(classifier.state_dict()) if soft_labels and classifier else None
    plan = plan_of_images(
        method, source, Path(out), settings, classes=classes, ipc=ipc, size=size, seed=seed, format=format
    )
    chooser: Callable[[Item], Image.Image] = RandomReal(source, plan)
    if method == "rded" and classifier is not None:
        chooser = Rded(source, plan, classifier, factor)
    return produce(plan, Collector(chooser, classifier if soft_labels else None), batch_size or 64)


class RandomReal:
    """The k-th image of a class is the k-th of a shuffle."""

    def __init__(self, source: DataSource, plan: Plan) -> None:
        self.shuffled, self.plan = Shuffled(source, plan), plan
        self.shuffled.check(plan.ipc, "the set")
        self.order = lru_cache(2)(self.shuffled.order)

    def __call__(self, item: Item) -> Image.Image:
        k = item.index % self.plan.ipc
        return to_square(read_image(self.shuffled.source, int(self.order(item.label)[k])), self.plan.image_size)


class Rded:
    """Realistic, diverse: the surest crop of each image, the surest images of a class, factor × factor to a picture.

    Picture k of `ipc` has the crops of ranks k, k + ipc, k + 2·ipc, … as in the authors' code: all are equally sure.
    """

    def __init__(self, source: DataSource, plan: Plan, classifier: nn.Module, factor: int) -> None:
        from torchvision.transforms import v2  # takes seconds to load, and few need it

        self.mean = _mean_colour(classifier)
        self.shuffled, self.plan, self.classifier, self.factor = Shuffled(source, plan), plan, classifier, factor
        self.shuffled.check(plan.ipc * factor**2, "RDED")
        self.patch_size = plan.image_size // factor
        # ratio 1 and the usual scale (0.08, 1), as in the authors' MultiRandomCrop
        self.crop = v2.RandomResizedCrop(self.patch_size, ratio=(1, 1), antialias=True)
        self.best = lru_cache(2)(self._best)

    def __call__(self, item: Item) -> Image.Image:
        count, k = self.factor**2, item.index % self.plan.ipc
        patches = self.best(item.label)[k : self.plan.ipc * count : self.plan.ipc]
        mosaic = rearrange(patches, "(rows columns) c h w -> (rows h) (columns w) c", rows=self.factor)
        picture = Image.fromarray(mosaic.numpy())
        return picture if picture.width == self.plan.image_size else to_square(picture, self.plan.image_size)

    def _best(self, label: int) -> torch.Tensor:
        """The patches of a class, uint8 (N, 3, h, h), the surest first."""
        pool = self.shuffled.order(label)[: max(POOL, self.plan.ipc * self.factor**2)]
        crops = [self._crops(index, label) for index in pool.tolist()]
        losses = torch.stack(parallel_map([partial(self._loss, some, label) for some in crops]))
        surest = [some[i] for some, i in zip(crops, losses.argmin(1).tolist(), strict=True)]
        return torch.stack(surest)[losses.amin(1).argsort(stable=True)]

    def _crops(self, index: int, label: int) -> torch.Tensor:
        image = pixels_of(read_image(self.shuffled.source, index))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.plan.seed, label, index))
            return torch.stack([self.crop(image) for _ in range(CROPS)])

    @torch.no_grad()
    def _loss(self, crops: torch.Tensor, label: int) -> torch.Tensor:
        """Cross-entropy of each crop, (N,); what a mosaic leaves to the other crops is the mean colour."""
        device, mean = self.mean.device, self.mean
        left = self.plan.image_size - self.patch_size
        sides = (left // 2, left - left // 2) * 2
        logits = self.classifier(F.pad(crops.to(device).float() / 255 - mean, sides) + mean)
        return F.cross_entropy(logits, torch.full((len(crops),), label, device=device), reduction="none").cpu()


def _mean_colour(classifier: nn.Module) -> torch.Tensor:
    """What a classifier's images are centred at, (3, 1, 1).

    Raises:
        UserError: neither it nor a part of it says so.
    """
    for name, buffer in classifier.named_buffers():
        if name.rpartition(".")[2] == "mean" and buffer.shape == (3, 1, 1):
            return buffer
    raise UserError("rded needs a classifier that normalises its images itself: give a model folder, or timm/NAME")
