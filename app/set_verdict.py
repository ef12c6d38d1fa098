"""A first verdict on a finished set: what a classifier, its tokens, its nearest real images and a quick student say.

The student is a hint: one run, a part of the protocol's epochs, some of the test images. `python -m hieramp evaluate`
measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch

from hieramp.analysis.judged import Closeness, judge
from hieramp.analysis.neighbours import nearest
from hieramp.analysis.settokens import token_usage
from hieramp.classifier import Classifier
from hieramp.data import has_test_split
from hieramp.errors import UserError
from hieramp.evaluation.images import (
    LabeledImages,
    align_classes,
    align_test,
    load_set,
    load_test,
    select_classes,
)
from hieramp.evaluation.protocols import PROTOCOLS, training_of
from hieramp.evaluation.students import build_student
from hieramp.evaluation.trainer import Trainer, accuracy_of, expected_seconds, seeded
from hieramp.vqvae.model import VQVAE

REAL_IMAGES, TEST_IMAGES = 5000, 1000  # held in memory at most, spread evenly over the classes
STUDENT = "convnet"
STUDENT_SECONDS = 60.0  # for both students together
FEWEST_EPOCHS = 5


@dataclass(frozen=True)
class Students:
    """Two students of one kind, seed and number of epochs: one saw the set, one as many random real images."""

    name: str
    epochs: int
    of_epochs: int  # that the protocol has
    protocol: str
    test_images: int
    accuracy: float | None = None
    accuracy_of_real: float | None = None


@dataclass(frozen=True)
class SetVerdict:
    """What is known of a set so far; None where it is not known, or cannot be."""

    images: int
    classes: int
    agreement: float | None = None  # share of the images that the classifier gives the class asked for
    confidence: float | None = None  # its mean probability of that class
    tokens: dict[str, tuple[float, float]] = field(default_factory=dict)  # stage → entropy in nats, coverage
    tokens_of_real: dict[str, tuple[float, float]] = field(default_factory=dict)  # of as many random real images
    real_images: int = 0  # looked through for the nearest
    nearest: float | None = None  # median distance to the nearest real image, root mean square of pixels in [0, 1]
    nearest_of_test: float | None = None  # the same of real test images
    share_close: float | None = None  # nearer to a real image than all but 1 % of the test images
    students: Students | None = None
    done: int = 0  # steps of the verdict
    of: int = 1

    @property
    def is_finished(self) -> bool:
        return self.done >= self.of


def judge_set(path: Path, classifier: Classifier | None, vqvae: VQVAE | None, data: str | None) -> Iterator[SetVerdict]:
    """The verdict after every part of it, on the classifier's device.

    `data` names real images (train/ and test/), without which there are neither neighbours nor students; the students
    also need the classifier, as their teacher.

    Raises:
        UserError: the set or the data cannot be read, or have other classes.
    """
    held = load_set(str(path))
    per_class = int(held.labels.bincount()[list(held.present)].min())
    found = SetVerdict(len(held.images), len(held.present), of=4)
    if classifier is not None:
        judged = judge(classifier, held.images, held.labels)
        found = replace(found, agreement=judged.accuracy, confidence=judged.confidence_N.mean().item())
    yield (found := replace(found, done=1))
    if vqvae is not None:
        found = replace(found, tokens=_tokens(vqvae, held, per_class))
    if data is None:
        yield replace(found, done=found.of)
        return
    yield (found := replace(found, done=2))
    real, test = _real(data, held)
    near = Closeness(nearest(held.images, real.images), nearest(test.images, real.images).distance)
    found = replace(found, real_images=len(real.images), nearest=near.median)
    found = replace(found, nearest_of_test=near.held_out_median, share_close=near.share_close)
    yield (found := replace(found, done=3))
    random_real = random_images(real, per_class)
    if vqvae is not None:
        found = replace(found, tokens_of_real=_tokens(vqvae, random_real, per_class))
    if classifier is None:
        yield replace(found, done=found.of)
        return
    yield from _students(found, classifier, held, random_real, test)


def _tokens(vqvae: VQVAE, held: LabeledImages, per_class: int) -> dict[str, tuple[float, float]]:
    usage = token_usage(vqvae, held.images, held.labels, per_class)
    return {place: usage.mean(place) for place in usage.places if not place.startswith("scale")}


@lru_cache(maxsize=2)
def _read(data: str, size: int) -> tuple[LabeledImages, LabeledImages]:
    if not has_test_split(data):
        raise UserError(f"{data} has no test images: give a folder with train/ and test/")
    return load_set(data, size, REAL_IMAGES), load_test(data, size, TEST_IMAGES)


def _real(data: str, held: LabeledImages) -> tuple[LabeledImages, LabeledImages]:
    """Training and test images of the classes of a set, by its labels."""
    real, test = _read(data, held.image_size)
    real = align_classes(real, held.class_names, held.name, held.wnids)
    return select_classes(real, held.present), align_test(test, held)


def random_images(real: LabeledImages, per_class: int, seed: int = 0) -> LabeledImages:
    """So many images of each class, drawn without replacement; all of a class that has fewer."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in real.present:
        index_N = (real.labels == label).nonzero()[:, 0]
        chosen.append(index_N[torch.randperm(len(index_N), generator=generator)[:per_class]])
    index_N = torch.cat(chosen)
    return replace(real, images=real.images[index_N], labels=real.labels[index_N], files=())


def _students(
    found: SetVerdict,
    classifier: Classifier,
    held: LabeledImages,
    random_real: LabeledImages,
    test: LabeledImages,
) -> Iterator[SetVerdict]:
    """Both students by RDED's protocol, so many of its epochs as fit the time."""
    device, size, num_classes = classifier.mean.device, held.image_size, len(held.class_names)
    held, random_real, test = held.to(device), random_real.to(device), test.to(device)
    protocol = PROTOCOLS["rded"]

    def build() -> torch.nn.Module:
        return build_student(STUDENT, num_classes, size)

    whole = training_of(protocol, STUDENT, len(held.images), num_classes, size, last_alone=True)
    expected = 2 * expected_seconds(build, classifier, held, test, whole)
    epochs = max(FEWEST_EPOCHS, min(whole.epochs, int(whole.epochs * STUDENT_SECONDS / expected)))
    training = replace(whole, epochs=epochs)
    students = Students("ConvNet", epochs, whole.epochs, protocol.name, len(test.images))
    found = replace(found, students=students, of=3 + 2 * epochs)
    yield found
    for is_real, images in ((False, held), (True, random_real)):
        with seeded(0):
            trainer = Trainer(build(), classifier, images, training)
        for epoch in range(epochs):
            with seeded(1 + epoch):  # for each epoch by itself: others draw random numbers in between
                trainer.epoch(epoch)
            found = replace(found, done=found.done + 1)
            if epoch == epochs - 1:
                accuracy = accuracy_of(trainer.test(test))
                students = (
                    replace(students, accuracy_of_real=accuracy) if is_real else replace(students, accuracy=accuracy)
                )
                found = replace(found, students=students)
            yield found
