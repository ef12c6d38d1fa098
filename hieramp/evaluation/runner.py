"""An evaluation from paths to result.json: everything is loaded and checked first, then students are trained."""

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hieramp.data import DataSpec
from hieramp.devices import resolve_device
from hieramp.errors import UserError
from hieramp.evaluation import results
from hieramp.evaluation.epoch_labels import ABOUT, EpochLabels, read_about
from hieramp.evaluation.images import align_classes, align_test, load_set, load_test, of_its_classes
from hieramp.evaluation.keeper import EpochRow, Keeper
from hieramp.evaluation.protocols import PROTOCOLS, training_of
from hieramp.evaluation.students import PREVIEW, build_student, how_trained, save_network
from hieramp.evaluation.teachers import load_teacher, taught
from hieramp.evaluation.trainer import (
    StudentResult,
    accuracy_of,
    confusion,
    expected_seconds,
    train_student,
)


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate, and how; None leaves a number to the protocol."""

    set: str
    test: str
    teacher: str | None
    student: str = "resnet18"
    protocol: str = "rded"
    runs: int = 3
    seed: int = 0  # of the first run; the next have seed + 1, …
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    size: int | None = None
    test_images: int | None = None
    last_alone: bool = False  # test the last epoch alone
    device: str | None = None
    split: str | None = None  # of the test images; None is test, or val where there is no test
    image_column: str | None = None  # of a table, of the test images or the set
    label_column: str | None = None

    def data(self, path: str, split: str | None = None) -> DataSpec:
        return DataSpec(path, split, self.image_column, self.label_column)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.runs))


class Evaluation:
    """A config with all that it names loaded, and its class order checked.

    Raises:
        UserError: something is not there, or class names differ between set, teacher and test images.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        self.config = config
        self.device = resolve_device(config.device)
        protocol = PROTOCOLS[config.protocol]
        if protocol.soft and not config.teacher:
            raise UserError(f"protocol {config.protocol} needs --teacher; --protocol hard goes without")
        soft = config.teacher if protocol.soft else None
        labels = Path(soft) if soft and (Path(soft) / ABOUT).is_file() else None  # stored, instead of a teacher
        whole = load_set(config.data(config.set), config.size)
        held = of_its_classes(whole)
        # a set of some of a model's classes; versions of before gave its students outputs for all of them
        self.is_of_some = len(held.class_names) < len(whole.class_names)
        self.teacher = load_teacher(soft) if soft and not labels else None
        if self.teacher:
            held, self.teacher = taught(held, self.teacher)
        elif labels:
            held = align_classes(held, tuple(read_about(labels)["class_names"]), str(labels))
        test = load_test(config.data(config.test, config.split), held.image_size, config.test_images)
        self.test = align_test(test, held).to(self.device)
        self.held = held.to(self.device)
        overrides = {name: getattr(config, name) for name in ("epochs", "batch_size", "learning_rate", "last_alone")}
        count = (config.student, len(held.images), len(held.present), held.image_size)
        self.training = training_of(protocol, *count, **overrides)
        self.full = training_of(protocol, *count)
        self.stored = EpochLabels(labels, self.held, self.training) if labels else None
        self.build()  # a student that cannot be built is told now

    def build(self) -> nn.Module:
        """A fresh student."""
        return build_student(self.config.student, len(self.held.class_names), self.held.image_size)

    @property
    def network(self) -> nn.Module | None:
        return self.teacher.network if self.teacher else None

    @property
    def preview(self) -> list[str]:
        """In what the config falls short of the protocol; nothing for a true row."""
        reasons = []
        if self.training.epochs < self.full.epochs:
            reasons.append(f"{self.training.epochs} of {self.full.epochs} epochs")
        if self.config.student in PREVIEW:
            reasons.append(f"student {self.config.student}")
        if self.config.test_images:
            reasons.append(f"{len(self.test.images)} test images")
        for name in ("batch_size", "learning_rate"):
            if getattr(self.training, name) != getattr(self.full, name):
                reasons.append(f"{name.replace('_', ' ')} {getattr(self.training, name):g}")
        return reasons

    def expected(self, seeds: int) -> float:
        """Seconds for so many students, from a few timed steps."""
        return seeds * expected_seconds(self.build, self.network, self.held, self.test, self.training)

    def key(self) -> dict[str, Any]:
        """All that a run's accuracy depends on, its seed aside."""
        return {
            "set_sha256": self.held.sha256,
            "test_sha256": self.test.sha256,
            "test_images": len(self.test.images),
            "teacher_sha256": self.teacher.sha256 if self.teacher else None,
            **({"labels": self.stored.about} if self.stored else {}),
            **({"classes": len(self.held.class_names)} if self.is_of_some and self.teacher else {}),
            "student": self.config.student,
            "training": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self.training).items()},
        }

    def describe(self) -> dict[str, Any]:
        """Everything that is used, by name and hash."""
        held, teacher = self.held, self.teacher
        missing = [held.class_names[k] for k in range(len(held.class_names)) if k not in held.present]
        return {
            "format": 1,
            "task": asdict(self.config),
            "key": self.key(),
            "preview": self.preview,
            "set": {
                "path": self.config.set,
                "sha256": held.sha256,
                "images": len(held.images),
                "ipc": held.ipc,
                "image_size": held.image_size,
                "class_names": list(held.class_names),
                "classes_without_images": missing,
                "settings": held.settings,
            },
            "teacher": None
            if teacher is None
            else {
                "path": self.config.teacher,
                "name": teacher.name,
                "sha256": teacher.sha256,
                "test_accuracy": accuracy_of(confusion(teacher.network.to(self.device), self.test)),
                "names_of_the_set_right": accuracy_of(confusion(teacher.network, self.held)),
            },
            "test": {"path": self.config.test, "sha256": self.test.sha256, "images": len(self.test.images)},
            "student": {"name": self.config.student, "parameters": sum(p.numel() for p in self.build().parameters())},
            "protocol": asdict(PROTOCOLS[self.config.protocol]),
            "chance": 1 / len(held.present),
            "machine": results.machine(self.device),
            "versions": results.versions(),
            "runs": [],
        }

    def train(
        self,
        seed: int,
        folder: Path | None = None,
        report: Callable[[EpochRow], None] | None = None,
        save: Path | None = None,
    ) -> StudentResult:
        """One student, taken up where `folder` has it half trained; `save` keeps it as a file that can be a teacher."""
        keeper = Keeper(folder / f"run-{seed}.safetensors") if folder else None
        run, student = train_student(
            self.build, self.network, self.held, self.test, self.training, seed, report, self.stored, keeper
        )
        if save:
            names, size = self.held.class_names, self.held.image_size
            save_network(save, student, self.config.student, names, size, self.how_trained(seed))
        return run

    def how_trained(self, seed: int) -> dict[str, Any]:
        """What a student's weights depend on, as it is stored beside them."""
        return json.loads(json.dumps({"seed": seed, "key": self.key()}))


def begin(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """The result so far: that of an earlier call with the same settings, or a new one without runs.

    Raises:
        UserError: the folder holds a result of other settings; names the difference.
    """
    found = results.read_result(folder)
    if found is None:
        return evaluation.describe()
    ours, theirs = _flat(evaluation.key()), _flat(found["key"])
    differing = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if differing:
        name = differing[0]
        raise UserError(
            f"{folder} holds a result with {name} {theirs.get(name)}, not {ours.get(name)}: give another --out"
        )
    return found


def _flat(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "training"} | key["training"]


def missing_seeds(config: EvaluationConfig, result: dict[str, Any]) -> list[int]:
    done = {run["seed"] for run in result["runs"]}
    return [seed for seed in config.seeds if seed not in done]


def is_to_save(evaluation: Evaluation, save: Path | None) -> bool:
    """Whether the first student is wanted in a file that does not hold it yet."""
    return save is not None and how_trained(save) != evaluation.how_trained(evaluation.config.seed)


def run_missing(
    evaluation: Evaluation,
    folder: Path,
    result: dict[str, Any],
    jobs: int = 1,
    report: Callable[[int, EpochRow], None] | None = None,
    save: Path | None = None,
) -> dict[str, Any]:
    """Train the students that `result` (of `begin`) lacks; each is kept in `folder` as soon as it is done.

    `jobs` students are trained at a time, each in a process of its own; `report` is then told of none of their epochs.
    `save` keeps the first student (of `config.seed`) as a file that can be a teacher. If an earlier call
    measured its accuracy, it is trained once more for that: the same seed gives the same student.
    """
    results.write_result(folder, result)
    seeds = missing_seeds(evaluation.config, result)
    finished = (
        _in_processes(evaluation.config, seeds, folder, jobs, save)
        if jobs > 1
        else _here(evaluation, seeds, folder, report, save)
    )
    for run in finished:
        results.write_run(folder, run, evaluation.held.class_names)
        result["runs"] = sorted([*result["runs"], results.run_entry(run)], key=lambda entry: entry["seed"])
        best, last = results.scores(result)
        result |= {"best": asdict(best), "last": asdict(last)}
        result["seconds"] = round(sum(entry["seconds"] for entry in result["runs"]), 1)
        results.write_result(folder, result)
        Keeper(folder / f"run-{run.seed}.safetensors").forget()
    if is_to_save(evaluation, save):
        for _ in _here(evaluation, [evaluation.config.seed], None, report, save):
            pass
    if result["runs"]:
        results.write_pictures(folder, result, evaluation.held.class_names)
    return result


def _here(
    evaluation: Evaluation,
    seeds: list[int],
    folder: Path | None,
    report: Callable[[int, EpochRow], None] | None,
    save: Path | None,
) -> Iterator[StudentResult]:
    for seed in seeds:
        each = (lambda row, seed=seed: report(seed, row)) if report else None
        yield evaluation.train(seed, folder, each, save if seed == evaluation.config.seed else None)


def _in_processes(
    config: EvaluationConfig, seeds: list[int], folder: Path, jobs: int, save: Path | None
) -> Iterator[StudentResult]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(1, len(seeds))), context) as pool:
        threads = torch.get_num_threads()
        waiting = [
            pool.submit(_train_alone, config, seed, folder, threads, save if seed == config.seed else None)
            for seed in seeds
        ]
        for future in as_completed(waiting):
            yield future.result()


def _train_alone(
    config: EvaluationConfig, seed: int, folder: Path, num_threads: int, save: Path | None
) -> StudentResult:
    torch.set_num_threads(num_threads)
    return Evaluation(config).train(seed, folder, save=save)
