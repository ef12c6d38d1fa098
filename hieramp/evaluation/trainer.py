"""One student, trained on one set: the loop of the protocol."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.devices import autocast_bf16_if_fast
from hieramp.errors import UserError
from hieramp.evaluation.augment import augmented, mixer
from hieramp.evaluation.epoch_labels import EpochLabels
from hieramp.evaluation.images import LabeledImages
from hieramp.evaluation.keeper import EpochRow, Keeper
from hieramp.evaluation.protocols import Training

TEST_BATCH = 500
TIMED_STEPS = 3


@dataclass(frozen=True)
class StudentResult:
    """How one student ended."""

    seed: int
    best: float  # the highest test accuracy among the tested epochs
    best_epoch: int
    last: float
    seconds: float
    curve: tuple[EpochRow, ...]
    confusion: Tensor  # int64 (K, K): true class, named class; of the last epoch


def soft_loss(logits_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) at a temperature, summed over classes, averaged over the batch; no T² factor."""
    student = F.log_softmax(logits_BK.float() / temperature, dim=1)
    return F.kl_div(student, F.softmax(teacher_BK.float() / temperature, dim=1), reduction="batchmean")


def build_optimizer(student: nn.Module, training: Training) -> torch.optim.AdamW:
    """AdamW with weight decay on tensors of more than one dimension only."""
    parameters = list(student.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas)


class Trainer:
    """A student with its optimiser, its teacher and its set, on one device."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        held: LabeledImages,
        training: Training,
        stored: EpochLabels | None = None,
    ) -> None:
        if training.soft and teacher is None and stored is None:
            raise UserError("soft labels need a teacher: give --teacher, or --protocol hard")
        self.stored = stored if training.soft else None
        device = held.images.device
        self.held, self.training, self.device = held, training, device
        self.student = student.to(device).to(memory_format=torch.channels_last).train()
        self.teacher = teacher.to(device).to(memory_format=torch.channels_last).eval() if teacher else None
        self.optimizer = build_optimizer(self.student, training)
        self.cutmix = mixer(training, len(held.class_names))

    def epoch(self, epoch: int) -> tuple[float, float]:
        """Every image once, in a new order; mean loss and agreement."""
        rate = self.training.rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(2, device=self.device)
        for images_BCHW, target_BK in self.batches(epoch):
            sums += self.step(images_BCHW, target_BK) * len(images_BCHW)
        loss, agreement = (sums / len(self.held.images)).tolist()
        if not loss < float("inf"):
            raise UserError(f"the loss is no longer a number in epoch {epoch}: lower the learning rate")
        return loss, agreement

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once: as stored for this epoch, or in an order and with targets of the moment."""
        if self.stored is not None:
            for images_BCHW, target_BK in self.stored.batches(epoch):
                yield images_BCHW.contiguous(memory_format=torch.channels_last), target_BK
            return
        order = torch.randperm(len(self.held.images)).to(self.device)
        for index_B in order.split(self.training.batch_size):
            yield self.batch(index_B)

    def step(self, images_BCHW: Tensor, target_BK: Tensor) -> Tensor:
        """One optimiser's step; (loss, agreement)."""
        with autocast_bf16_if_fast(self.device):
            logits_BK = self.student(images_BCHW)
        if self.training.soft:
            loss = soft_loss(logits_BK, target_BK, self.training.temperature)
        else:
            loss = F.cross_entropy(logits_BK.float(), target_BK)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        agreement = (logits_BK.argmax(1) == target_BK.argmax(1)).float().mean()
        return torch.stack([loss.detach(), agreement])

    @torch.no_grad()
    def batch(self, index_B: Tensor) -> tuple[Tensor, Tensor]:
        """Augmented, mixed images, and their targets (B, K): the teacher's logits for just these, or mixed labels."""
        images_BCHW = augmented(self.held.images[index_B], self.training)
        images_BCHW, mixed_BK = self.cutmix(images_BCHW, self.held.labels[index_B])
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        if self.teacher is None or not self.training.soft:
            return images_BCHW, mixed_BK
        with autocast_bf16_if_fast(self.device):
            return images_BCHW, self.teacher(images_BCHW)

    def test(self, test: LabeledImages) -> Tensor:
        """The confusion matrix on test images, int64 (K, K)."""
        return confusion(self.student, test)


@torch.no_grad()
def confusion(network: nn.Module, test: LabeledImages) -> Tensor:
    """How often each class is named as which, int64 (K, K); the network is left in the mode it came in."""
    training = network.training
    network.eval()
    num_classes, device = len(test.class_names), test.images.device
    counts = torch.zeros(num_classes * num_classes, dtype=torch.long)
    for images, labels in zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True):
        x = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        with autocast_bf16_if_fast(device):
            named_B = network(x).argmax(1)
        counts += torch.bincount((labels * num_classes + named_B).cpu(), minlength=len(counts))
    network.train(training)
    return counts.view(num_classes, num_classes)


def accuracy_of(confusion_KK: Tensor) -> float:
    return (confusion_KK.diag().sum() / confusion_KK.sum().clamp_min(1)).item()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers and kernels that a seed determines; the state before is put back."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def train_student(
    build: Callable[[], nn.Module],
    teacher: nn.Module | None,
    held: LabeledImages,
    test: LabeledImages,
    training: Training,
    seed: int,
    report: Callable[[EpochRow], None] | None = None,
    stored: EpochLabels | None = None,
    keeper: Keeper | None = None,
) -> tuple[StudentResult, nn.Module]:
    """Train a fresh student with `seed`: its weights, the order, the crops and the mixing all follow from it.

    A `keeper` goes on with the run that it holds, to the same end.
    """
    started = time.perf_counter()
    with seeded(seed):
        trainer = Trainer(build(), teacher, held, training, stored)
        curve, before = keeper.load(trainer.student, trainer.optimizer) if keeper else ([], 0.0)
        for epoch in range(len(curve), training.epochs):
            loss, agreement = trainer.epoch(epoch)
            accuracy = None
            if training.is_tested(epoch):
                counts_KK = trainer.test(test)
                accuracy = accuracy_of(counts_KK)
            curve.append(EpochRow(epoch, training.rate(epoch), loss, agreement, accuracy))
            if report:
                report(curve[-1])
            if keeper and epoch < training.epochs - 1:
                keeper.save_if_due(trainer.student, trainer.optimizer, curve, before + time.perf_counter() - started)
    best = max((row for row in curve if row.test_accuracy is not None), key=lambda row: row.test_accuracy or 0)
    assert best.test_accuracy is not None and accuracy is not None
    seconds = before + time.perf_counter() - started
    result = StudentResult(seed, best.test_accuracy, best.epoch, accuracy, seconds, tuple(curve), counts_KK)
    return result, trainer.student


def expected_seconds(
    build: Callable[[], nn.Module],
    teacher: nn.Module | None,
    held: LabeledImages,
    test: LabeledImages,
    training: Training,
) -> float:
    """Time of one student, from a few timed steps and one timed test batch on a student of its own."""
    if teacher is None:  # stored labels cost no forward pass either
        training = replace(training, soft=False)
    with seeded(0):
        trainer = Trainer(build(), teacher, held, training)
        index_B = torch.arange(min(training.batch_size, len(held.images)), device=trainer.device)
        step = _timed(lambda: trainer.step(*trainer.batch(index_B)), trainer.device)
        some = min(TEST_BATCH, len(test.images))
        few = LabeledImages(test.images[:some], test.labels[:some], test.class_names, "", {}, "")
        tested = _timed(lambda: trainer.test(few), trainer.device, count=1) * len(test.images) / some
    steps = training.epochs * -(-len(held.images) // training.batch_size)
    return steps * step + training.num_tests * tested


def _timed(act: Callable[[], object], device: torch.device, count: int = TIMED_STEPS) -> float:
    act()  # the first one is slower
    started = time.perf_counter()
    for _ in range(count):
        act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / count
