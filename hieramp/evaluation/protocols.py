"""How students are trained, in numbers (docs/protocols.md): RDED's protocol, D3HR's, and plain hard labels.

Sources: RDED (arXiv 2312.03526), D3HR (arXiv 2505.18358). A `Protocol` holds the rules, a `Training` what they come to
for one set, student and size.
"""

import math
from dataclasses import dataclass

SMALL_SIDE = 64  # images up to this side get the treatment of CIFAR
LEARNING_RATES = (  # by the student's name; the first that it begins with counts
    ("efficientnet", 2e-3),
    ("mobilenet", 2.5e-3),
    ("vit", 1e-4),
    ("deit", 1e-4),
    ("swin", 1e-4),
    ("", 1e-3),
)
BATCHES = ((1, 10), (10, 50), (50, 100))  # images per class → batch size, at the largest IPC not above the set's
MANY_CLASSES = 100  # from here on batches are doubled
TINY_IMAGENET = (200, 100)  # its number of classes, and its batch size whatever the IPC


@dataclass(frozen=True)
class Protocol:
    """The rules. Whatever has no remark is alike in all three."""

    name: str
    about: str
    soft: bool = True  # KL divergence to the teacher; else cross-entropy with the labels
    temperature: float = 20.0  # with CutMix (4 with mixup); no T² factor, no hard-label term
    cutmix: float = 1.0  # Beta(α, α), on every batch
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01  # on tensors of more than one dimension
    epochs: int = 300
    epochs_small: int = 300  # images of up to 64 px
    epochs_few_classes: tuple[tuple[int, int], ...] = ()  # larger images of 10 classes: IPC → epochs
    epochs_few_classes_else: int = 300
    min_crop_small: float = 1.0  # RandomResizedCrop(scale = min … 1); at 1 … 1 it leaves a square image alone
    min_crop: float = 0.5
    shuffle_patches: int = 1  # n × n patches of larger images are shuffled first; 1 is off
    test_after: float = 0.8  # of the epochs; then every 10th, and the last
    test_every: int = 10


PROTOCOLS = {
    "rded": Protocol("rded", "RDED: soft labels, 300 epochs", shuffle_patches=2),
    "d3hr": Protocol(
        "d3hr",
        "D3HR: soft labels, 400 epochs on CIFAR",
        epochs_small=400,
        epochs_few_classes=((10, 2000), (50, 1500)),
        epochs_few_classes_else=1000,
        min_crop_small=0.08,
        min_crop=0.08,
    ),
    "hard": Protocol("hard", "hard labels, all else as in RDED", soft=False),
}


@dataclass(frozen=True)
class Training:
    """What a protocol comes to for one set and student."""

    epochs: int
    batch_size: int
    learning_rate: float
    soft: bool
    temperature: float
    cutmix: float
    betas: tuple[float, float]
    weight_decay: float
    min_crop: float
    shuffle_patches: int
    test_after: float
    test_every: int

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch: lr · ½(1 + cos(π·e / 2E)); it ends at about half, not at zero."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / (2 * self.epochs)))

    def is_tested(self, epoch: int) -> bool:
        """The epochs among which the best is chosen: every 10th after 80 %, and the last."""
        last = epoch == self.epochs - 1
        return last or (epoch % self.test_every == self.test_every - 1 and epoch > self.test_after * self.epochs)

    @property
    def num_tests(self) -> int:
        return sum(map(self.is_tested, range(self.epochs)))


def training_of(
    protocol: Protocol,
    student: str,
    num_images: int,
    num_classes: int,
    image_size: int,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    last_alone: bool = False,
) -> Training:
    """The numbers for a set of `num_images` of `num_classes`; `epochs` and the like override them."""
    ipc = max(1, round(num_images / num_classes))
    small = image_size <= SMALL_SIDE
    return Training(
        epochs=epochs or _epochs(protocol, ipc, num_classes, small),
        batch_size=min(batch_size or _batch_size(ipc, num_classes, small), num_images),
        learning_rate=learning_rate or next(lr for name, lr in LEARNING_RATES if student.startswith(name)),
        soft=protocol.soft,
        temperature=protocol.temperature,
        cutmix=protocol.cutmix,
        betas=protocol.betas,
        weight_decay=protocol.weight_decay,
        min_crop=protocol.min_crop_small if small else protocol.min_crop,
        shuffle_patches=1 if small else protocol.shuffle_patches,
        test_after=1.0 if last_alone else protocol.test_after,
        test_every=protocol.test_every,
    )


def _epochs(protocol: Protocol, ipc: int, num_classes: int, small: bool) -> int:
    if small:
        return protocol.epochs_small
    if num_classes <= 10 and protocol.epochs_few_classes:
        return dict(protocol.epochs_few_classes).get(ipc, protocol.epochs_few_classes_else)
    return protocol.epochs


def _batch_size(ipc: int, num_classes: int, small: bool) -> int:
    if small and num_classes == TINY_IMAGENET[0]:
        return TINY_IMAGENET[1]
    size = [batch for least, batch in BATCHES if ipc >= least][-1]
    return size * 2 if num_classes >= MANY_CLASSES else size
