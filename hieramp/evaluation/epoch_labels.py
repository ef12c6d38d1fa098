"""Soft labels of every epoch, made once and stored: for teachers too expensive to run beside every student.

As in FKD (Shen & Xing, arXiv 2112.01528) the teacher's logits are stored for the very crops, flips and mixtures that
the student will see. These are not stored but drawn again: each batch has a seed of its own. One safetensors file an
epoch holds `logits` (N, K) float16 and `order` (N,), the images in the order in which they come.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hieramp.checkpoints import read_safetensors, save_safetensors
from hieramp.devices import autocast_bf16_if_fast
from hieramp.errors import UserError
from hieramp.evaluation.augment import augmented, mixer
from hieramp.evaluation.images import LabeledImages
from hieramp.evaluation.protocols import Training
from hieramp.files import write_text
from hieramp.seeds import seed_of

ABOUT = "labels.json"
OLD_SEEDS, NEW_SEEDS = 1, 2  # how batches get their seeds: by Python's hash (labels of before), by numpy's SeedSequence


class EpochLabels:
    """A folder of stored labels, and the batches that they belong to.

    Raises:
        UserError: the folder is none, or was made for another set or training.
    """

    def __init__(self, folder: Path, held: LabeledImages, training: Training) -> None:
        self.folder, self.held, self.training = folder, held, training
        self.about = read_about(folder)
        ours, theirs = describe(held, training, {}, 0), self.about
        for name in ("set_sha256", "batch_size", "augmentation", "torch"):
            if ours[name] != theirs[name]:
                raise UserError(f"{folder} holds labels for {name} {theirs[name]}, not {ours[name]}: make them again")
        if theirs["epochs"] < training.epochs:
            raise UserError(f"{folder} holds the labels of {theirs['epochs']} epochs, {training.epochs} are needed")

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in [0, 1] as the student sees them, and the teacher's logits for them."""
        stored = read_safetensors(epoch_file(self.folder, epoch))
        device = self.held.images.device
        logits = stored["logits"].float().split(self.training.batch_size)
        for number, index_B in enumerate(stored["order"].split(self.training.batch_size)):
            seed = _seed(self.about, epoch, number)
            images = mixed(self.held, self.training, seed, index_B.to(device))
            yield images, logits[number].to(device)


def relabel(
    held: LabeledImages, teacher: nn.Module, training: Training, folder: Path, about: dict[str, Any], seed: int = 0
) -> Iterator[int]:
    """Write the labels of every epoch that `folder` lacks, yielding how many are there.

    `about` names the teacher. Stopped or killed, the same call goes on.

    Raises:
        UserError: the folder holds the labels of another set, teacher or training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = describe(held, training, about, seed)
    if (folder / ABOUT).is_file():
        theirs = read_about(folder)
        ours["seeds"] = theirs.get("seeds", OLD_SEEDS)  # an older version began: it goes on as it was
        differing = [name for name in ours if ours[name] != theirs.get(name, OLD_SEEDS if name == "seeds" else None)]
        if differing:
            name = differing[0]
            raise UserError(
                f"{folder} holds labels with {name} {theirs.get(name)}, not {ours[name]}: give another --out"
            )
    write_text(folder / ABOUT, json.dumps(ours, indent=1) + "\n")
    teacher = teacher.to(held.images.device).eval()
    for epoch in range(training.epochs):
        if not epoch_file(folder, epoch).is_file():
            save_safetensors(epoch_file(folder, epoch), _epoch(held, teacher, training, ours, epoch))
        yield epoch + 1


@torch.no_grad()
def _epoch(
    held: LabeledImages, teacher: nn.Module, training: Training, about: dict[str, Any], epoch: int
) -> dict[str, Tensor]:
    order = torch.randperm(len(held.images), generator=torch.Generator().manual_seed(_seed(about, epoch, -1)))
    logits = []
    for number, index_B in enumerate(order.split(training.batch_size)):
        images = mixed(held, training, _seed(about, epoch, number), index_B.to(held.images.device))
        with autocast_bf16_if_fast(images.device):
            logits.append(teacher(images.contiguous(memory_format=torch.channels_last)).half().cpu())
    return {"logits": torch.cat(logits), "order": order.int()}


def mixed(held: LabeledImages, training: Training, seed: int, index_B: Tensor) -> Tensor:
    """The images of one batch, cropped, flipped and mixed by the batch's own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images = augmented(held.images[index_B.long()], training)
        images, _ = mixer(training, len(held.class_names))(images, held.labels[index_B.long()])
    return images


def _seed(about: dict[str, Any], epoch: int, number: int) -> int:
    """The seed of a batch, or with number -1 of the order of an epoch, for labels that `about` describes."""
    if about.get("seeds", OLD_SEEDS) == OLD_SEEDS:
        return hash((about["seed"], epoch, number)) % 2**63
    return seed_of(about["seed"], epoch, number + 1)


def epoch_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}.safetensors"


def describe(held: LabeledImages, training: Training, about: dict[str, Any], seed: int) -> dict[str, Any]:
    """What labels belong to; torch's version, since it draws the crops."""
    names = ("min_crop", "shuffle_patches", "cutmix")
    return {
        "set_sha256": held.sha256,
        "class_names": list(held.class_names),
        "batch_size": training.batch_size,
        "epochs": training.epochs,
        "augmentation": {name: asdict(training)[name] for name in names},
        "seed": seed,
        "seeds": NEW_SEEDS,
        "torch": torch.__version__,
        **about,
    }


def read_about(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no labels of python -m hieramp relabel ({error})") from error
