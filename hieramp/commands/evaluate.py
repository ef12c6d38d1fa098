"""python -m hieramp evaluate: what a distilled set is worth to students that are trained on it."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.commands.data_arguments import add_data_arguments, place, refuse_missing
from hieramp.errors import UserError
from hieramp.evaluation import results
from hieramp.evaluation.keeper import EpochRow
from hieramp.evaluation.protocols import PROTOCOLS
from hieramp.evaluation.runner import Evaluation, EvaluationConfig, begin, is_to_save, missing_seeds, run_missing
from hieramp.evaluation.teachers import is_blind

RESULTS = Path("runs/evaluate")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("evaluate", help=COMMANDS["evaluate"])
    parser.add_argument("set", help="distilled set (zip or folder), or a folder of class folders")
    parser.add_argument("--student", default="resnet18", help="resnet18, convnet, small (a preview) or timm's name")
    parser.add_argument("--size", type=shared.positive, help="train at this many pixels (default: the set's)")
    parser.add_argument("--out", type=Path, help=f"folder for the results (default: {RESULTS}/SET-STUDENT-PROTOCOL)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the first student as a teacher (.safetensors)")
    parser.add_argument("--json", action="store_true", help="print all of result.json")
    add_training(parser)
    parser.set_defaults(run=run)


def add_training(parser: argparse.ArgumentParser) -> None:
    """The arguments that `evaluate` and `compare` share."""
    parser.add_argument(
        "--test", type=place, metavar="FOLDER", help="test images: class folders, or a folder with test/"
    )
    parser.add_argument("--teacher", help="a model with a classifier, FILE.safetensors, or NAME=FILE.safetensors")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="rded")
    parser.add_argument("--runs", type=shared.positive, default=3, help="students, with seeds 0, 1, … (default: 3)")
    parser.add_argument("--seed", type=shared.whole_number, default=0, help="of the first student")
    parser.add_argument("--epochs", type=shared.positive, help="fewer than the protocol's make a preview")
    parser.add_argument("--batch-size", type=shared.positive)
    parser.add_argument("--learning-rate", type=shared.positive_number)
    parser.add_argument("--test-images", type=shared.positive, help="test on so many alone: a preview")
    parser.add_argument("--last-alone", action="store_true", help="test the last epoch alone: a third less work")
    parser.add_argument("--jobs", type=shared.positive, help="students at a time (default: 1; on a GPU, all of a row)")
    parser.add_argument("--device", help="cpu, cuda … (default: a GPU where there is one)")
    add_data_arguments(parser, option="--test, columns also of the set")


def run(args: argparse.Namespace) -> None:
    refuse_missing(args.set)
    if args.test is None:
        raise UserError("--test is missing: give a folder of test images, one sub-folder per class")
    if args.save and args.save.suffix != ".safetensors":
        raise UserError(f"--save is {args.save}; it must end in .safetensors")
    if args.save and not args.save.absolute().parent.is_dir():
        raise UserError(f"--save is {args.save}, but the folder {args.save.parent} does not exist: make it first")
    config = config_of(args, args.set, args.teacher, args.student, size=args.size)
    folder = args.out or RESULTS / f"{Path(args.set).stem}-{args.student}-{args.protocol}"
    result = evaluate(config, folder, args.jobs, args.save)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(summary(result))
        print(f"files: {folder}/{results.RESULT}, curve.png, confusion.png")


def config_of(args: argparse.Namespace, path: str, teacher: str | None, student: str, **more: Any) -> EvaluationConfig:
    training = (
        "protocol",
        "runs",
        "seed",
        "epochs",
        "batch_size",
        "learning_rate",
        "test_images",
        "last_alone",
        "device",
    )
    names = (*training, "split", "image_column", "label_column")
    return EvaluationConfig(path, args.test, teacher, student, **{name: getattr(args, name) for name in names}, **more)


def evaluate(
    config: EvaluationConfig, folder: Path, jobs: int | None = None, save: Path | None = None
) -> dict[str, Any]:
    """Train what is missing, with the expected time told first and a progress bar; the whole result."""
    evaluation = Evaluation(config)
    result = begin(evaluation, folder)
    seeds = missing_seeds(config, result)
    jobs = jobs or (len(config.seeds) if evaluation.device.type == "cuda" else 1)
    if not seeds:
        shared.say(f"{folder} has all {config.runs} runs already")
    else:
        _announce(evaluation, seeds, result)
    again = config.seed not in seeds and is_to_save(evaluation, save)
    if again:
        shared.say(f"the student of seed {config.seed} is trained once more, to be kept in {save}")
    total = (len(seeds) + again) * evaluation.training.epochs
    with tqdm(total=total, desc=f"{config.student}", unit="epoch", disable=None if total else True) as bar:

        def report(seed: int, row: EpochRow) -> None:
            tested = {} if row.test_accuracy is None else {"test": f"{row.test_accuracy:.1%}"}
            bar.set_postfix(seed=seed, loss=f"{row.loss:.4f}", **tested, refresh=False)
            bar.update()

        return run_missing(evaluation, folder, result, jobs, report, save)


def _announce(evaluation: Evaluation, seeds: list[int], result: dict[str, Any]) -> None:
    held, training = evaluation.held, evaluation.training
    if evaluation.preview:
        shared.say(f"a preview, not a row of the protocol: {', '.join(evaluation.preview)}")
    absent = len(held.class_names) - len(held.present)
    if absent:
        shared.say(f"the set has no images of {absent} of {len(held.class_names)} classes: they are not tested")
    teacher = result["teacher"]
    if teacher:
        shared.say(
            f"the teacher {teacher['name']} names {teacher['test_accuracy']:.1%} of the test images right, and "
            f"{teacher['names_of_the_set_right']:.1%} of the set's as the set does"
        )
    if teacher and is_blind(teacher["test_accuracy"], len(held.present)):
        shared.say(
            f"warning: the teacher names {teacher['test_accuracy']:.1%} of the test images right, little more than "
            "chance: is it trained, on these classes and with this normalisation?"
        )
    what = f"{len(held.images)} images, {training.epochs} epochs, batch {training.batch_size}"
    seconds = evaluation.expected(len(seeds))
    shared.say(f"{len(seeds)} × {evaluation.config.student} on {what}: about {readable(seconds)} one after another")
    sys.stderr.flush()


def readable(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def summary(result: dict[str, Any]) -> str:
    """One sentence for the terminal."""
    best, last = results.scores(result)
    runs = len(result["runs"])
    teacher = result["teacher"]
    taught = f", teacher {teacher['name']} {teacher['test_accuracy']:.1%}" if teacher else ""
    preview = f" (preview: {', '.join(result['preview'])})" if result["preview"] else ""
    return (
        f"{result['student']['name']} on {Path(result['set']['path']).name}, {result['protocol']['name']}: "
        f"best {best} %, last epoch {last} %, {runs} run{'s' if runs > 1 else ''}{taught}{preview}"
    )
