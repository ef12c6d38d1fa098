"""A whole data set out of a model."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch

from hieramp.amplification.settings import SCHEDULES, Amplification
from hieramp.checkpoints import fingerprint, read_config
from hieramp.classifier import Classifier, in_order, load_classifier
from hieramp.distillation.engine import Progress, produce
from hieramp.distillation.maker import Drawer, Task
from hieramp.distillation.plan import Item, Plan, sequence_of_labels
from hieramp.generation.model import Model
from hieramp.generation.sampling import PLAIN, Sampling, by_stage
from hieramp.imageset.layout import Format

Engine = Literal["local", "ray"]
BATCH_SIZE = {"cpu": 32, "cuda": 64}
DRAWN, SOFT = "hieramp", "soft_labels"


def distill(
    model: Model,
    ipc: int,
    out: str | Path,
    *,
    amplification: Amplification | None = SCHEDULES["all"],
    classes: Sequence[str | int] | None = None,
    size: int | None = None,
    seed: int = 0,
    guidance: float = 4.0,
    top_k: int = 900,
    top_p: float = 0.95,
    soft_labels: bool = False,
    classifier: str | Path | None = None,
    candidates: int = 1,
    temperature: float | Sequence[float] = PLAIN,
    guidance_power: float = 1.0,
    format: Format = "zip",
    batch_size: int | None = None,
    engine: Engine = "local",
    workers: int | None = None,
) -> Iterator[Progress]:
    """Draw `ipc` images of each class into a set at `out`, yielding the progress after every batch.

    `classes` are names, numbers or ImageNet ids; None is all of them. Guidance and its power, top-k, top-p and
    temperature are those of `Model.steps`.

    A run that was stopped, closed or killed goes on where it was when called again with the same settings, and
    the set is the same, byte for byte, at any batch size and number of workers. In half precision that takes
    batches of one size, which is then one of the settings. Image k of a class has the seed
    seed · 1,000,000 + k; `size` resizes with Lanczos. Soft labels are the logits of the classifier in the
    folder `classifier`, the model's own where it has one. With `candidates` N, N images are drawn for each one of
    the set and the classifier keeps the one it is surest of (the realism score of RDED, arXiv 2312.03526, on drawn
    images): those of image k have the seeds seed · 1,000,000 + k · N and following.

    Raises:
        ValueError: a setting is out of range, a class is unknown, or `out` holds something else. Before anything is
            drawn.
        OSError: while going on: the disk is full or not writable. What is finished is kept.
    """
    amp = amplification or Amplification()
    sampling = Sampling(guidance, top_k, top_p, by_stage(temperature), guidance_power)
    amp.check(model.var.scales, model.var.config.depth)
    labels = None if classes is None else [model.label_of(name) for name in classes]
    judge = _judge(model, classifier) if soft_labels or candidates > 1 else None
    batch_size = BATCH_SIZE.get(model.device.type, 32) if batch_size is None else batch_size
    plan = Plan(
        out=Path(out),
        method=DRAWN,
        class_names=model.class_names,
        wnids=model.wnids,
        classes=sequence_of_labels(labels, len(model.class_names)),
        ipc=ipc,
        image_size=model.image_size if size is None else size,
        seed=seed,
        settings=_settings(model, amp, sampling, judge, soft_labels, candidates, batch_size),
        model={"name": model.name, "sha256": fingerprint(model.vqvae.state_dict(), model.var.state_dict())},
        format=format,
        candidates=candidates,
    )
    drawer = Drawer(model, amp, sampling, plan.image_size, judge, candidates, soft_labels)
    batch_size = -(-batch_size // candidates)  # items, from images drawn at once
    if engine == "local":
        return produce(plan, drawer, batch_size)
    if engine == "ray":
        from hieramp.distillation.ray_engine import produce_on_ray

        return produce_on_ray(plan, drawer, batch_size, workers)
    raise ValueError(f"engine is {engine!r}; it must be 'local' or 'ray'")


def _settings(
    model: Model,
    amp: Amplification,
    sampling: Sampling,
    judge: Classifier | None,
    soft_labels: bool,
    candidates: int,
    batch_size: int,
) -> dict[str, Any]:
    """What decides about the images. Settings that came later are named only where they are used."""
    judged_by = judge and fingerprint(judge.state_dict())
    dtype = str(model.var.pos_start.dtype).removeprefix("torch.")
    stages = {"coarse": amp.coarse, "mid": amp.mid, "fine": amp.fine}
    return {
        "stages": {name: None if stage is None else list(stage) for name, stage in stages.items()},
        "mode": amp.mode,
        **({} if amp.where == "salient" else {"where": amp.where}),
        "blocks": list(amp.resolved_blocks(model.var.config.depth)),
        "scales": None if amp.scales is None else list(amp.scales),
        "positions": {str(scale): list(named) for scale, named in amp.named_positions.items()} or None,
        **sampling.options(),
        "dtype": dtype,
        "device": model.device.type,
        "batch_size": None if dtype == "float32" else batch_size,
        SOFT: judged_by if soft_labels else None,
        **({"candidates": candidates, "chosen_by": judged_by} if candidates > 1 else {}),
    }


def _judge(model: Model, folder: str | Path | None) -> Classifier:
    """The classifier of soft labels and candidates, its classes being the model's, put into the model's order.

    Raises:
        ValueError: there is none, or its classes are others.
    """
    folder = Path(folder) if folder else model.folder
    if folder is None:
        raise ValueError(
            f"soft labels and candidates need a classifier, and {model.name} has none: name the folder of one"
        )
    judge = load_classifier(folder)
    return in_order(judge, read_config(folder)["class_names"], model.class_names, str(folder)).to(model.device)


@dataclass(frozen=True)
class Estimate:
    """What a set will take."""

    seconds: float
    bytes: int


_PILOTS: "WeakKeyDictionary[Model, dict[bool, tuple[float, float]]]" = WeakKeyDictionary()
PILOT_IMAGES = 8


def estimate(model: Model, num_images: int, soft_labels: bool = False) -> Estimate:
    """Time and size of a set, from one small batch timed once per model."""
    known = _PILOTS.setdefault(model, {})
    if soft_labels not in known:
        known[soft_labels] = _pilot(model, soft_labels)
    seconds, size = known[soft_labels]
    return Estimate(seconds * num_images, round(size * num_images))


def _pilot(model: Model, soft_labels: bool) -> tuple[float, float]:
    """Seconds and bytes an image."""
    num_classes = len(model.class_names)
    items = tuple(Item(i, i % num_classes, i, "") for i in range(PILOT_IMAGES))
    judge = _judge(model, None) if soft_labels else None
    drawer = Drawer(model, SCHEDULES["all"], Sampling(), model.image_size, judge)
    drawer.make(Task(items[:1]))  # the first pass also allocates
    started = time.perf_counter()
    made = drawer.make(Task(items))().made
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - started
    overhead = 400  # of names, manifest and metadata an image
    size = sum(len(image.png) + len(image.logits or b"") for image in made) / max(len(made), 1)
    return elapsed / PILOT_IMAGES, size + overhead
