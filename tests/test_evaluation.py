"""The judge, judged: losses and schedules against hand computation, sets whose answer is known beforehand."""

import hashlib
import json
import math
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp import devices, state_file
from hieramp.checkpoints import ASSETS, save_part, write_config
from hieramp.classifier import Classifier
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, to_json
from hieramp.evaluation import results
from hieramp.evaluation.augment import augmented, mixer
from hieramp.evaluation.epoch_labels import EpochLabels
from hieramp.evaluation.images import LabeledImages, align_classes, load_set, load_test
from hieramp.evaluation.keeper import EpochRow, Keeper
from hieramp.evaluation.protocols import PROTOCOLS, SMALL_SIDE, Training, training_of
from hieramp.evaluation.runner import Evaluation, EvaluationConfig
from hieramp.evaluation.students import (
    ConvNet,
    Normalized,
    build_student,
    how_trained,
    load_network,
    save_network,
)
from hieramp.evaluation.teachers import load_teacher
from hieramp.evaluation.trainer import (
    Trainer,
    accuracy_of,
    build_optimizer,
    confusion,
    seeded,
    soft_loss,
    train_student,
)

NAMES = ("blue", "red", "green", "grey")
SIDE = 8


def patterns(per_class: int, seed: int) -> LabeledImages:
    """Noise with one colour raised for each of four classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(4).repeat_interleave(per_class)
    images = torch.randint(0, 120, (len(labels), 3, SIDE, SIDE), generator=generator)
    tints = torch.tensor([[0, 0, 80], [80, 0, 0], [0, 80, 0], [0, 0, 0]])
    images = (images + tints[labels][:, :, None, None]).byte()
    return LabeledImages(images, labels, NAMES, "patterns", {}, "")


def short(protocol: str = "hard", epochs: int = 12, held: LabeledImages | None = None) -> Training:
    count = 32 if held is None else len(held.images)
    return training_of(PROTOCOLS[protocol], "small", count, 4, SIDE, epochs=epochs, batch_size=8)


def build() -> nn.Module:
    return Normalized(ConvNet(4, SIDE, width=24))


# numbers of the protocols


def test_the_soft_loss_by_hand() -> None:
    """Σ p log(p / q) at T = 20, over two images, divided by two; no T²."""
    student = torch.tensor([[2.0, 0.0, -1.0], [0.0, 5.0, 1.0]])
    teacher = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 10.0]])
    expected = 0.0
    for q_row, p_row in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = ([math.exp(x / 20) for x in row] for row in (q_row, p_row))
        expected += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    assert soft_loss(student, teacher, 20.0).item() == pytest.approx(expected / 2, rel=1e-4)
    assert soft_loss(teacher, teacher, 20.0).item() == pytest.approx(0, abs=1e-7)


def test_the_learning_rate_by_hand() -> None:
    training = training_of(PROTOCOLS["rded"], "resnet18", 100, 10, 32)
    assert training.rate(0) == 1e-3
    assert training.rate(150) == pytest.approx(1e-3 * (1 + math.sqrt(0.5)) / 2)
    assert training.rate(200) == pytest.approx(1e-3 * 0.75)  # cos 60° is a half
    assert 0.5e-3 < training.rate(299) < 0.503e-3
    assert [e for e in range(300) if training.is_tested(e)] == [249, 259, 269, 279, 289, 299]


@pytest.mark.parametrize(
    ("protocol", "student", "images", "classes", "size", "epochs", "batch", "rate", "crop"),
    [
        ("rded", "resnet18", 10, 10, 32, 300, 10, 1e-3, 1.0),
        ("rded", "convnet", 100, 10, 32, 300, 50, 1e-3, 1.0),
        ("rded", "mobilenetv2_100", 500, 10, 32, 300, 100, 2.5e-3, 1.0),
        ("rded", "efficientnet_b0", 1000, 100, 32, 300, 100, 2e-3, 1.0),
        ("rded", "vit_tiny_patch16_224", 50000, 1000, 224, 300, 200, 1e-4, 0.5),
        ("d3hr", "resnet18", 100, 10, 32, 400, 50, 1e-3, 0.08),
        ("d3hr", "resnet18", 100, 10, 224, 2000, 50, 1e-3, 0.08),
        ("d3hr", "resnet18", 500, 10, 224, 1500, 100, 1e-3, 0.08),
        ("d3hr", "resnet18", 10, 10, 224, 1000, 10, 1e-3, 0.08),
        ("d3hr", "resnet18", 10000, 1000, 224, 300, 100, 1e-3, 0.08),
        ("hard", "resnet18", 4, 4, 32, 300, 4, 1e-3, 1.0),  # no batch is larger than its set
    ],
)
def test_the_numbers_of_the_protocols(
    protocol: str, student: str, images: int, classes: int, size: int, epochs: int, batch: int, rate: float, crop: float
) -> None:
    training = training_of(PROTOCOLS[protocol], student, images, classes, size)
    assert (training.epochs, training.batch_size, training.learning_rate) == (epochs, batch, rate)
    assert training.min_crop == crop and training.soft == (protocol != "hard")
    assert training.shuffle_patches == (2 if protocol == "rded" and size > SMALL_SIDE else 1)
    assert (training.temperature, training.weight_decay, training.betas) == (20.0, 0.01, (0.9, 0.999))


def test_only_matrices_decay() -> None:
    decayed, others = build_optimizer(build(), short()).param_groups
    assert decayed["weight_decay"] == 0.01 and all(p.ndim > 1 for p in decayed["params"])
    assert others["weight_decay"] == 0 and all(p.ndim == 1 for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(build().parameters()))


# augmentation


def test_cutmix_mixes_what_it_says() -> None:
    """Images of one grey each: what is not an image's own is its neighbour's, by the share that the target says."""
    torch.manual_seed(0)
    images = torch.arange(6.0)[:, None, None, None].expand(6, 3, 64, 64)
    shares = []
    for _ in range(300):
        mixed, target = mixer(short(), 6)(images, torch.arange(6))
        for i in range(6):
            own, other = (mixed[i] == i).float().mean(), (mixed[i] == (i - 1) % 6).float().mean()
            assert own + other == pytest.approx(1)
            assert target[i, i].item() == pytest.approx(own.item(), abs=1e-6)
            assert target[i, i - 1].item() == pytest.approx(other.item(), abs=1e-6)
        shares.append(other.item())
    # of a box of share u, uniform by Beta(1, 1), the border leaves (√u - u/4)²: 1/2 - 1/5 + 1/48 on average
    assert sum(shares) / len(shares) == pytest.approx(0.321, abs=0.03)


def test_small_images_are_only_flipped() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (400, 3, SIDE, SIDE)).byte()
    out = augmented(images, training_of(PROTOCOLS["rded"], "small", 400, 4, SIDE))
    kept = [torch.equal(out[i], images[i] / 255) for i in range(400)]
    flipped = [torch.equal(out[i], images[i].flip(-1) / 255) for i in range(400)]
    assert all(k or f for k, f in zip(kept, flipped, strict=True)) and 160 < sum(kept) < 240


def test_larger_images_are_cropped_by_the_protocols_share() -> None:
    """A ramp's range tells how much of it was kept."""
    torch.manual_seed(0)
    ramp = torch.linspace(0, 255, 96).round().byte().expand(64, 3, 96, 96)
    for least in (0.5, 0.08):
        out = augmented(ramp, replace(short(), min_crop=least))
        widths = (out.amax((1, 2, 3)) - out.amin((1, 2, 3))).sort().values
        assert out.shape == ramp.shape and widths[0] > 0.8 * math.sqrt(least * 3 / 4) and widths[0] < 0.85


def test_quarters_change_places_and_nothing_is_lost() -> None:
    torch.manual_seed(0)
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    images = (quarters * 50).byte().expand(32, 3, SIDE, SIDE)
    out = (augmented(images, replace(short(), shuffle_patches=2)) * 255 / 50).round().long()
    assert all(sorted(image[0, ::4, ::4].flatten().tolist()) == [0, 1, 2, 3] for image in out)
    assert torch.equal(out, out[..., ::4, ::4].repeat_interleave(4, -2).repeat_interleave(4, -1))  # none was cut
    assert len({tuple(image[0, ::4, ::4].flatten().tolist()) for image in out}) == 4


# the trainer


class Spy(nn.Module):
    """A teacher that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        self.modes.append(self.training)
        return torch.stack([x[:, k % 3].mean((1, 2)) * (k + 1) for k in range(4)], 1)


def test_the_teacher_labels_just_what_the_student_sees() -> None:
    held, spy = patterns(4, 0), Spy().train()
    trainer = Trainer(build(), spy, held, short("rded"))
    with seeded(3):
        images, target = trainer.batch(torch.arange(8))
    assert torch.equal(spy.seen[0], images) and spy.modes == [False]
    assert torch.equal(target, Spy()(images)) and not torch.equal(images, held.images[:8] / 255)


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU without bfloat16 of its own, whatever this one has."""
    monkeypatch.setattr(devices, "supports_fast_bf16", lambda device: False)


@pytest.mark.usefixtures("full_precision")
def test_one_step_is_adamw_on_the_soft_loss() -> None:
    """The trainer's step against the same step written out."""
    held, training = patterns(2, 0), short("rded")
    torch.manual_seed(0)
    student = build().train()
    trainer = Trainer(build_like(student), Spy(), held, training)
    torch.manual_seed(7)
    images, target = trainer.batch(torch.arange(8))
    torch.manual_seed(7)
    trainer.step(*trainer.batch(torch.arange(8)))
    matrices, vectors = ([p for p in student.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=training.rate(0), betas=(0.9, 0.999))
    p = F.softmax(target / 20, 1)
    loss = (p * (p.log() - F.log_softmax(student(images) / 20, 1))).sum() / 8
    loss.backward()
    optimizer.step()
    ours, theirs = (torch.cat([p.flatten() for p in x.parameters()]) for x in (student, trainer.student))
    moved = torch.cat([p.grad.flatten() for p in student.parameters()]).abs() > 1e-7
    # where there is no gradient to speak of (a bias before batch norm), Adam's first step is a coin's toss
    assert torch.allclose(ours[moved], theirs[moved], atol=2e-5) and moved.float().mean() > 0.9


def build_like(student: nn.Module) -> nn.Module:
    copy = build()
    copy.load_state_dict(student.state_dict())
    return copy


@pytest.mark.parametrize("training", [True, False])
def test_confusion_is_by_true_class_and_leaves_the_network_as_it_came(training: bool) -> None:
    class NamesRed(nn.Module):
        def forward(self, images_BCHW: Tensor) -> Tensor:
            assert not self.training
            return F.one_hot(torch.ones(len(images_BCHW), dtype=torch.long), 4).float()

    network = NamesRed().train(training)
    counts_KK = confusion(network, patterns(3, 0))
    assert counts_KK.tolist() == [[0, 3, 0, 0]] * 4 and accuracy_of(counts_KK) == 0.25
    assert network.training == training


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a last batch of 4 among 8 every image counts as much as those before."""
    held = patterns(3, 0)
    trainer = Trainer(build(), None, held, short(held=held))
    monkeypatch.setattr(trainer, "step", lambda images, _: torch.tensor([len(images), 1 / len(images)]))
    loss, agreement = trainer.epoch(0)
    assert loss == pytest.approx((8 * 8 + 4 * 4) / 12) and agreement == pytest.approx(2 / 12)


def test_real_labels_teach_and_shuffled_ones_do_not() -> None:
    held, test = patterns(8, 0), patterns(25, 1)
    shuffled = replace(held, labels=torch.arange(4).repeat(8))  # every class has every label twice
    learned = [train_student(build, None, held, test, short(epochs=30), seed)[0].last for seed in range(2)]
    missed = [train_student(build, None, shuffled, test, short(epochs=30), seed)[0].last for seed in range(4)]
    assert min(learned) > 0.9
    assert 0.05 < sum(missed) / len(missed) < 0.45  # chance is 0.25


def test_a_student_follows_its_teacher_not_the_labels() -> None:
    """Soft labels of a good teacher repair shuffled labels."""
    held, test = patterns(8, 0), patterns(25, 1)
    _, teacher = train_student(build, None, held, test, short(epochs=30), 0)
    shuffled = replace(held, labels=torch.arange(4).repeat(8))
    taught, _ = train_student(build, teacher.eval(), shuffled, test, short("rded", epochs=40), 1)
    assert taught.best > 0.75


def test_a_seed_is_a_result() -> None:
    held, test = patterns(4, 0), patterns(5, 1)
    state = torch.random.get_rng_state()
    first, second, other = (train_student(build, Spy(), held, test, short("rded", 3), seed)[0] for seed in (0, 0, 1))
    assert first.curve == second.curve and torch.equal(first.confusion, second.confusion)
    assert first.curve != other.curve
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_run_that_was_cut_off_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "SAVING_SHARE", 1e9)  # after every epoch, whatever it costs
    held, test, training = patterns(4, 0), patterns(5, 1), short("rded", 5)
    whole, _ = train_student(build, Spy(), held, test, training, 0)
    keeper = Keeper(tmp_path / "run-0.safetensors", every=0.0)

    def cut(row: EpochRow) -> None:
        if row.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(build, Spy(), held, test, training, 0, cut, keeper=keeper)
    rest: list[int] = []
    again, _ = train_student(
        build, Spy(), held, test, training, 0, lambda row: rest.append(row.epoch), keeper=Keeper(keeper.path)
    )
    assert rest == [3, 4]  # the epoch in hand is lost
    assert again.curve == whole.curve and torch.equal(again.confusion, whole.confusion)


def test_best_is_the_highest_of_the_tested_epochs() -> None:
    run, _ = train_student(build, None, patterns(4, 0), patterns(5, 1), short(epochs=25), 0)
    tested = {row.epoch: row.test_accuracy for row in run.curve if row.test_accuracy is not None}
    assert list(tested) == [24] and run.best == run.last == tested[24] == accuracy_of(run.confusion)
    assert run.confusion.sum() == 20
    rded, alone = (training_of(PROTOCOLS["rded"], "small", 100, 10, SIDE, last_alone=alone) for alone in (False, True))
    assert [e for e in range(300) if rded.is_tested(e)] == [249, 259, 269, 279, 289, 299]
    assert [e for e in range(300) if alone.is_tested(e)] == [299]


# students and teachers


@pytest.mark.parametrize(
    "name", ["resnet18", "small", "convnet", "mobilenetv2_100", "efficientnet_b0", "vit_tiny_patch16_224", "resnet10t"]
)
def test_students_for_32_pixels(name: str) -> None:
    student = build_student(name, 7, 32)
    logits = student(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 7) and torch.isfinite(logits).all()


def test_small_stems_keep_detail() -> None:
    """32 px leave 4×4 features for the last layer, not 1×1."""
    for name in ("mobilenetv2_100", "efficientnet_b0", "resnet50"):
        network = build_student(name, 10, 32).network
        assert network.forward_features(torch.rand(1, 3, 32, 32)).shape[-1] == 4
    assert build_student("mobilenetv2_100", 10, 224).network.conv_stem.stride == (2, 2)


def test_an_unknown_student_is_named_with_its_nearest() -> None:
    with pytest.raises(ValueError, match="no network 'mobilnet'; the nearest are: .*mobilenet"):
        build_student("mobilnet", 10, 32)


def test_a_saved_network_sees_images_at_the_size_it_was_trained_at(tmp_path: Path) -> None:
    """A ConvNet of 16 pixels as a teacher, or a judge, of larger ones."""
    torch.manual_seed(0)
    student = build_student("convnet", len(NAMES), 16).eval()
    save_network(tmp_path / "small.safetensors", student, "convnet", NAMES, 16)
    network = load_teacher(str(tmp_path / "small.safetensors")).network
    images = torch.rand(3, 3, 32, 32)
    small = torch.nn.functional.interpolate(images, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.allclose(network(images), student(small), atol=1e-6)


def test_a_student_becomes_a_teacher(tmp_path: Path) -> None:
    student = build_student("convnet", 4, SIDE).eval()
    save_network(tmp_path / "t.safetensors", student, "convnet", NAMES, SIDE)
    teacher = load_teacher(str(tmp_path / "t.safetensors"))
    x = torch.rand(2, 3, SIDE, SIDE)
    assert torch.equal(teacher.network(x), student(x))
    assert teacher.class_names == NAMES and not teacher.network.training
    assert teacher.sha256 == load_teacher(str(tmp_path / "t.safetensors")).sha256


def test_the_classifier_of_a_model_that_ships_is_a_teacher_by_name() -> None:
    named, folder = load_teacher("cifar10"), load_teacher(str(ASSETS / "cifar10"))
    assert (named.name, named.class_names, named.sha256) == (folder.name, folder.class_names, folder.sha256)
    with pytest.raises(ValueError, match="cifar11 is not a model folder.*models that ship: cifar10"):
        load_teacher("cifar11")


def test_foreign_weights_must_say_which_class_is_which(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=4)
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    with pytest.raises(ValueError, match=r"does not name its network: give it as NAME="):
        load_network(path)
    with pytest.raises(ValueError, match=r"which class is which: .*w\.json"):
        load_teacher(f"resnet10t={path}")
    path.with_suffix(".json").write_text(json.dumps(NAMES))
    assert load_teacher(f"resnet10t={path}").class_names == NAMES
    with pytest.raises(ValueError, match="does not fit this model"):
        load_teacher(f"resnet18={path}")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated or not a safetensors"):
        load_teacher(f"resnet10t={path}")


# sets on disk


def write_set(folder: Path, held: LabeledImages, names: list[str]) -> None:
    """A set as `distill` lays it out."""
    rows, labels = [], held.labels.tolist()
    for i, (image, label) in enumerate(zip(held.images, labels, strict=True)):
        name = f"train/{label:05d}/{labels[:i].count(label):05d}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append({"file": name, "label": label, "seed": i, "bytes": path.stat().st_size, "sha256": sha256})
    manifest = {
        "format": 1,
        "settings": {"stages": "all"},
        "class_names": names,
        "class_folders": [f"{label:05d}" for label in range(len(names))],
        "image_size": held.image_size,
        "images": rows,
        "files": {},
    }
    (folder / "dataset.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """set/ as `distill` writes it, test/, and two teachers' folders: one has its classes in another order."""
    root = tmp_path_factory.mktemp("evaluation")
    test = patterns(5, 1)
    names = [f"{label}-{name}" for label, name in enumerate(NAMES)]  # folders sort by name; labels must not change
    write_set(root / "set", patterns(3, 0), names)
    for i, (image, label) in enumerate(zip(test.images, test.labels.tolist(), strict=True)):
        path = root / "test" / names[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    for name, given in {"teacher": names, "other": [names[1], names[0], *names[2:]]}.items():
        config = ClassifierConfig(SIDE, 4, (1, 1, 1, 1), (8, 8, 8, 8))
        torch.manual_seed(0)
        save_part(root / name, "classifier", Classifier(config).state_dict())
        write_config(root / name, classifier=to_json(config), class_names=given)
    return root


def test_a_zip_is_its_folder(home: Path, tmp_path: Path) -> None:
    folder = load_set(str(home / "set"))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in sorted((home / "set").rglob("*")):
            archive.write(path, path.relative_to(home / "set"))
    packed = load_set(str(tmp_path / "s.zip"))
    assert (
        torch.equal(folder.images, patterns(3, 0).images)
        and folder.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    )
    assert packed.sha256 == folder.sha256 and torch.equal(packed.images, folder.images)
    assert folder.settings == {"stages": "all"} and folder.ipc == 3
    other = replace(folder, labels=folder.labels.flip(0))
    assert load_set(str(home / "set"), 4).sha256 != folder.sha256 and other.labels[0] == 3


def test_a_plain_folder_is_a_set(home: Path) -> None:
    held = load_set(str(home / "test"))
    assert held.image_size == SIDE and held.ipc == 5 and held.class_names[0] == "0-blue" and held.settings == {}


def test_test_images_are_resized_then_cropped(tmp_path: Path) -> None:
    """56 px: resized to 64, the centre of 56 taken."""
    (tmp_path / "a").mkdir()
    ramp = torch.arange(128).mul(2).byte().expand(3, 128, 128)
    Image.fromarray(ramp.permute(1, 2, 0).numpy()).save(tmp_path / "a" / "0.png")
    image = load_test(str(tmp_path), 56).images[0, 0, 0].float()
    assert image[0].item() == pytest.approx(2 * (4 * 2 + 0.5), abs=2) and image.shape == (56,)


def test_class_order_is_checked_by_name() -> None:
    held = patterns(2, 0)
    assert align_classes(held, ("Blue", "red", "GREEN", "grey"), "t") is held
    assert align_classes(held, ("blue", "green", "red", "grey"), "t").labels.tolist() == [0, 0, 2, 2, 1, 1, 3, 3]
    assert torch.equal(align_classes(held, (*NAMES, "pink"), "t").labels, held.labels)
    with pytest.raises(ValueError, match=r"differ: the teacher does not know 'grey' \(1 of 4\)"):
        align_classes(held, ("blue", "green", "red", "pink"), "the teacher")
    few = replace(held, images=held.images[2:6], labels=held.labels[2:6])  # red and green alone
    assert align_classes(few, ("red", "green"), "t").labels.tolist() == [0, 0, 1, 1]
    assert align_classes(few, NAMES, "t").labels.tolist() == [1, 1, 2, 2]
    assert align_classes(few, ("green", "red"), "t").labels.tolist() == [1, 1, 0, 0]


def test_a_teacher_of_another_order_is_matched_by_name(home: Path) -> None:
    config = EvaluationConfig(str(home / "set"), str(home / "test"), str(home / "other"), "small")
    evaluation = Evaluation(config)
    assert evaluation.held.class_names == evaluation.test.class_names == evaluation.teacher.class_names
    assert evaluation.held.labels.bincount().tolist() == [3] * 4 and evaluation.held.labels[0] == 1
    with pytest.raises(ValueError, match="protocol rded needs --teacher"):
        Evaluation(replace(config, teacher=None))


def test_a_set_of_some_classes_is_tested_on_them(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "test" / "1-red", tmp_path / "s" / "1-red")
    shutil.copytree(home / "test" / "3-grey", tmp_path / "s" / "3-grey")
    config = EvaluationConfig(str(home / "set"), str(tmp_path / "s"), str(home / "teacher"), "small", epochs=1)
    with pytest.raises(ValueError, match="classes of s and .* differ: there are no test images of '0-blue'"):
        Evaluation(config)  # a test folder must have all of the set's classes
    held = load_set(str(home / "set"))
    assert Evaluation(replace(config, test=str(home / "test"))).test.labels.bincount().tolist() == [5] * 4
    assert held.present == (0, 1, 2, 3)


# the command


def arguments(home: Path, out: Path, *more: str) -> list[str]:
    base = ["evaluate", str(home / "set"), "--test", str(home / "test"), "--teacher", str(home / "teacher")]
    return [*base, "--student", "small", "--epochs", "3", "--device", "cpu", "--out", str(out), *more]


def test_evaluate_tells_and_keeps_everything(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "r"
    main(arguments(home, out, "--runs", "2", "--save", str(tmp_path / "s.safetensors")))
    said = capsys.readouterr()
    assert "warning: the teacher names 25.0% of the test images right" in said.err  # its weights are random
    assert not list(out.glob("*.safetensors*"))
    assert "a preview, not a row of the protocol: 3 of 300 epochs, student small" in said.err
    assert "2 × small on 12 images, 3 epochs, batch 10: about" in said.err
    assert "small on set, rded: best" in said.out and "2 runs, teacher teacher" in said.out
    result = json.loads((out / "result.json").read_text())
    assert [run["seed"] for run in result["runs"]] == [0, 1] and result["chance"] == 0.25
    assert result["best"]["mean"] == pytest.approx(sum(run["best"] for run in result["runs"]) / 2)
    assert result["set"]["settings"] == {"stages": "all"} and result["key"]["training"]["temperature"] == 20
    assert result["versions"]["torch"] == torch.__version__ and result["protocol"]["name"] == "rded"
    assert results.read_confusion(out / "confusion-0.csv").sum() == 20
    assert len(results.read_curve(out / "curve-1.csv")) == 3
    for name in ("curve.png", "confusion.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 400
    assert load_teacher(str(tmp_path / "s.safetensors")).name == "small"


def test_evaluate_goes_on_where_it_stopped(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main(arguments(home, whole, "--runs", "2"))
    main(arguments(home, parts, "--runs", "1"))
    main(arguments(home, parts, "--runs", "2"))
    a, b = (json.loads((folder / "result.json").read_text())["runs"] for folder in (whole, parts))
    assert [(r["seed"], r["best"], r["last"]) for r in a] == [(r["seed"], r["best"], r["last"]) for r in b]
    assert (whole / "curve-1.csv").read_text() == (parts / "curve-1.csv").read_text()
    capsys.readouterr()
    main(arguments(home, parts, "--runs", "2", "--json"))
    said = capsys.readouterr()
    assert "has all 2 runs already" in said.err and json.loads(said.out)["runs"] == b
    with pytest.raises(SystemExit) as stopped:
        main(arguments(home, parts, "--batch-size", "4"))
    assert stopped.value.code == 2 and "a result with batch_size 10, not 4" in capsys.readouterr().err


def test_students_side_by_side_are_the_same_students(home: Path, tmp_path: Path) -> None:
    main(arguments(home, tmp_path / "one", "--runs", "2"))
    main(arguments(home, tmp_path / "two", "--runs", "2", "--jobs", "2"))
    for name in ("curve-0.csv", "curve-1.csv", "confusion-1.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_a_student_of_tiny_images_learns_from_numbers() -> None:
    """Strides over a single pixel had gradients of memory that nobody wrote, in bfloat16."""
    torch.manual_seed(0)
    student, images = build_student("small", 4, SIDE).train(), torch.rand(10, 3, SIDE, SIDE)
    weight = student.get_submodule("network.layer4.0.conv1").weight
    for _ in range(10):
        unwritten = [torch.full_like(weight, math.nan) for _ in range(8)]
        del unwritten  # the next tensors lie where these lay
        with torch.autocast("cpu", torch.bfloat16):
            loss = student(images).float().logsumexp(1).mean()
        gradient = torch.autograd.grad(loss, weight)[0]
        sums = gradient.abs().sum(dim=(0, 1))  # only the middle of a 3×3 kernel meets a map of one pixel
        assert 0 < sums[1, 1] < 1000 and sums.sum() == sums[1, 1]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_first_student_is_kept_whoever_trains_it(jobs: str, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.safetensors"
    main(arguments(home, tmp_path / "r", "--runs", "2", "--jobs", jobs, "--save", str(file)))
    about = how_trained(file)
    assert about is not None and about["seed"] == 0
    accuracy = accuracy_of(confusion(load_network(file)[0].eval(), load_test(str(home / "test"), SIDE)))
    assert accuracy == json.loads((tmp_path / "r" / "result.json").read_text())["runs"][0]["last"]


def test_a_student_measured_before_is_kept_too(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "s.safetensors"
    main(arguments(home, tmp_path / "r", "--runs", "1"))
    before = json.loads((tmp_path / "r" / "result.json").read_text())
    main(arguments(home, tmp_path / "r", "--runs", "2", "--save", str(file)))
    assert "the student of seed 0 is trained once more" in capsys.readouterr().err
    about, runs = how_trained(file), json.loads((tmp_path / "r" / "result.json").read_text())["runs"]
    assert about is not None and about["seed"] == 0 and [run["seed"] for run in runs] == [0, 1]
    assert runs[0] == before["runs"][0]  # the result is not touched
    accuracy = accuracy_of(confusion(load_network(file)[0].eval(), load_test(str(home / "test"), SIDE)))
    assert accuracy == runs[0]["last"]
    stamp = file.stat().st_mtime_ns
    main(arguments(home, tmp_path / "r", "--runs", "2", "--save", str(file)))
    assert file.stat().st_mtime_ns == stamp and "once more" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--save", "nowhere/s.safetensors"], "the folder nowhere does not exist"),
        (["--student", "resnet19x"], "there is no network 'resnet19x'"),
        (["--teacher", "nowhere"], "nowhere is not a model folder"),
        (["--teacher", "none.safetensors"], "none.safetensors does not exist"),
        (["--test", "nowhere/at/all"], "nowhere/at/all does not exist"),
        (["--protocol", "sgd"], "invalid choice: 'sgd'"),
        (["--learning-rate", "-1"], "'-1' is not a number over 0"),
        (["--save", "x.pth"], "it must end in .safetensors"),
        (["--runs", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_evaluate_misuse(
    home: Path, tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments(home, tmp_path / "r", *more))
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and said in err and "Traceback" not in err and not list(tmp_path.iterdir())


# labels stored epoch by epoch


@pytest.mark.usefixtures("full_precision")
def test_stored_labels_teach_like_the_teacher(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A student on stored labels sees the images they were made for, epoch by epoch, and stopping loses no epoch."""
    labels, teacher = tmp_path / "labels", load_teacher(str(home / "teacher"))
    held = align_classes(load_set(str(home / "set")), teacher.class_names, "")
    command = f"relabel {home / 'set'} --teacher {home / 'teacher'} --out {labels} --epochs 3 --batch-size 4"
    main([*command.split(), "--device", "cpu"])
    files = sorted(labels.glob("epoch-*.safetensors"))
    before = [file.read_bytes() for file in files]
    files[1].unlink()
    main([*command.split(), "--device", "cpu"])
    assert len(files) == 3 and [file.read_bytes() for file in files] == before
    training = training_of(PROTOCOLS["rded"], "small", len(held.images), 4, SIDE, epochs=3, batch_size=4)
    stored = EpochLabels(labels, held, training)
    seen = [list(stored.batches(epoch)) for epoch in range(3)]
    for images, logits in (batch for epoch in seen for batch in epoch):
        assert torch.allclose(teacher.network(images), logits, atol=0.01)
    assert [sum(len(images) for images, _ in epoch) for epoch in seen] == [len(held.images)] * 3
    assert not torch.equal(seen[0][0][0], seen[1][0][0])
    capsys.readouterr()
    test = f"--test {home / 'test'} --student small --epochs 3 --batch-size 4 --runs 1 --device cpu"
    main(f"evaluate {home / 'set'} --teacher {labels} {test} --out {tmp_path / 'out'}".split())
    assert "last epoch" in capsys.readouterr().out
    with pytest.raises(ValueError, match="labels of 3 epochs, 4 are needed"):
        EpochLabels(labels, held, replace(training, epochs=4))
    with pytest.raises(ValueError, match="batch_size 4, not 3"):
        EpochLabels(labels, held, replace(training, batch_size=3))
    with pytest.raises(SystemExit):
        main([*command.split(), "--seed", "1"])
    assert "labels with seed 0, not 1" in capsys.readouterr().err


@pytest.mark.usefixtures("full_precision")
def test_labels_of_an_older_version_are_read_and_gone_on_with(home: Path, tmp_path: Path) -> None:
    """Their batches were seeded by Python's hash of a tuple."""
    labels, teacher = tmp_path / "labels", load_teacher(str(home / "teacher"))
    held = align_classes(load_set(str(home / "set")), teacher.class_names, "")
    command = f"relabel {home / 'set'} --teacher {home / 'teacher'} --out {labels} --epochs 2 --batch-size 4"
    main([*command.split(), "--device", "cpu"])
    about = json.loads((labels / "labels.json").read_text())
    assert about.pop("seeds") == 2
    (labels / "labels.json").write_text(json.dumps(about))
    new = [load_file(file)["order"] for file in sorted(labels.glob("*.safetensors"))]
    for file in labels.glob("*.safetensors"):
        file.unlink()
    main([*command.split(), "--device", "cpu"])
    for epoch, file in enumerate(sorted(labels.glob("*.safetensors"))):
        generator = torch.Generator().manual_seed(hash((0, epoch, -1)) % 2**63)
        order = torch.randperm(len(held.images), generator=generator)
        assert torch.equal(load_file(file)["order"], order.int()) and not torch.equal(new[epoch], order.int())
    training = training_of(PROTOCOLS["rded"], "small", len(held.images), 4, SIDE, epochs=2, batch_size=4)
    for images, logits in EpochLabels(labels, held, training).batches(1):
        assert torch.allclose(teacher.network(images), logits, atol=0.01)
