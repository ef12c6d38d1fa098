"""What a schedule is worth, quickly: figures for a small drawn set that stand in for full student runs.

Higher is better in all of them. A proxy is a guess at what students will make of a set: check the winner with
`python -m hieramp evaluate`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hieramp.analysis.fidelity import frechet_distance
from hieramp.analysis.judged import Judged, judge
from hieramp.classifier import Classifier
from hieramp.errors import UserError
from hieramp.evaluation.images import LabeledImages
from hieramp.evaluation.protocols import PROTOCOLS, training_of
from hieramp.evaluation.students import build_student
from hieramp.evaluation.trainer import train_student


@dataclass(frozen=True)
class Worth:
    """The score, and what it is made of."""

    score: float
    parts: dict[str, float]


Proxy = Callable[[Tensor, Tensor], Worth]  # uint8 images, labels


def diversity(judged: Judged) -> float:
    """Mean distance between two images of a class in the classifier's features, averaged over classes.

    Raises:
        UserError: a class has a single image.
    """
    spreads = []
    for label in judged.labels_N.unique():
        features_NF = judged.features_NF[judged.labels_N == label]
        if len(features_NF) < 2:
            raise UserError("diversity needs at least two images of a class: take --ipc 2 or more, or another --proxy")
        spreads.append(torch.pdist(features_NF).mean())
    return torch.stack(spreads).mean().item()


@dataclass(frozen=True)
class JudgeProxy:
    """Fidelity × diversity in the classifier's eyes: the share named right times the spread of features in a class."""

    classifier: Classifier

    def __call__(self, images_NCHW: Tensor, labels_N: Tensor) -> Worth:
        judged = judge(self.classifier, images_NCHW, labels_N)
        spread = diversity(judged)
        return Worth(judged.accuracy * spread, {"named_right": judged.accuracy, "diversity": spread})


@dataclass(frozen=True)
class FidProxy:
    """Minus the Fréchet distance to real images, in the classifier's features: fidelity and diversity in one."""

    classifier: Classifier
    real_MF: Tensor  # features of real images

    def __call__(self, images_NCHW: Tensor, labels_N: Tensor) -> Worth:
        judged = judge(self.classifier, images_NCHW, labels_N)
        distance = frechet_distance(judged.features_NF, self.real_MF)
        return Worth(-distance, {"fid": distance, "named_right": judged.accuracy})


@dataclass(frozen=True)
class StudentProxy:
    """Accuracy of short student runs by RDED's protocol, on real images that are not the test images."""

    classifier: Classifier
    validation: LabeledImages
    student: str = "small"
    epochs: int = 30
    runs: int = 1

    def __call__(self, images_NCHW: Tensor, labels_N: Tensor) -> Worth:
        names, size = self.validation.class_names, images_NCHW.shape[-1]
        held = LabeledImages(images_NCHW, labels_N, names, "drawn", {}, "").to(self.validation.images.device)
        training = training_of(PROTOCOLS["rded"], self.student, len(images_NCHW), len(names), size, epochs=self.epochs)
        accuracies = [
            train_student(
                lambda: build_student(self.student, len(names), size),
                self.classifier,
                held,
                self.validation,
                training,
                seed,
            )[0].last
            for seed in range(self.runs)
        ]
        return Worth(sum(accuracies) / len(accuracies), {"accuracy": sum(accuracies) / len(accuracies)})
