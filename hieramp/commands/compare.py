"""python -m hieramp compare: a table of sets × students, or a whole study with its sets, one row at a time."""

import argparse
import contextlib
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from hieramp.commands import COMMANDS, distill, evaluate, recover
from hieramp.commands import arguments as shared
from hieramp.commands.compare_ray import cluster, spread
from hieramp.commands.data_arguments import place
from hieramp.errors import UserError
from hieramp.evaluation.results import read_result, write_result
from hieramp.evaluation.studies import Cell, Study, filled, read_study, slug, study_of_sets
from hieramp.evaluation.tables import check_place, summary, write_into, write_tables

OUT = Path("runs/compare")


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("compare", help=COMMANDS["compare"])
    parser.add_argument("sets", nargs="*", help="distilled sets; or give --study")
    parser.add_argument("--study", type=Path, metavar="FILE", help="such as studies/methods.json")
    parser.add_argument("--data", type=place, metavar="FOLDER", help="real training images for a study's sets of them")
    parser.add_argument("--model", default="cifar10", help="that draws a study's sets (default: cifar10)")
    parser.add_argument("--define", nargs="+", default=[], metavar="NAME=VALUE", help="other names a study asks for")
    parser.add_argument(
        "--only", metavar="TEXT", help="rows whose name begins with this, or else holds it, such as 'IPC 10'"
    )
    parser.add_argument("--student", nargs="+", help="resnet18, convnet, small (a preview) or timm's names")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for sets and results (default: {OUT})")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the study's markers there")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: rows side by side on a Ray cluster"
    )
    parser.add_argument(
        "--workers",
        type=shared.positive,
        help="of the ray engine (default: one a GPU, else one a machine)",
    )
    parser.add_argument("--table", action="store_true", help="only write the tables from what is there")
    evaluate.add_training(parser)
    parser.set_defaults(run=run, protocol=None, runs=None)


def run(args: argparse.Namespace) -> None:
    study = _study(args)
    if args.write:
        check_place(args.write, study.name)  # told before hours of measuring
    folder = args.out / study.name
    if not args.table:
        _measure(args, study, folder)
    print(_write(args, study, folder))
    print(f"files: {folder}/table.md, table.csv, table.png")


def _measure(args: argparse.Namespace, study: Study, folder: Path) -> None:
    """Make and evaluate what is missing, one row at a time; the table is written after each."""
    if args.test is None:
        raise UserError("--test is missing: give a folder of test images, one sub-folder per class")
    cells = _chosen(list(study.cells()), (args.only or "").lower())
    if not cells:
        raise UserError(f"--only is {args.only!r}; no row of {study.name} has that in its name")
    values = _values(args)
    plans = {cell: _steps(args, study, cell, values) for cell in cells}  # a name that is missing is told now
    for steps in plans.values():
        _parsed(steps)  # and so is what a command does not take
    if args.engine == "ray":
        _measure_on_ray(args, study, plans, folder)
        return
    for number, (cell, steps) in enumerate(plans.items(), 1):
        shared.say(f"[{number}/{len(plans)}] {cell.label}")
        _do(steps)
        _keep(args, study, cell, steps)
        _write(args, study, folder)


def _measure_on_ray(args: argparse.Namespace, study: Study, plans: dict[Cell, list[list[str]]], folder: Path) -> None:
    """The same, first the teachers that the study trains, then the sets, each with all students that learn from it."""
    teachers = {tuple(step): None for steps in plans.values() for step in steps if "--save" in step}
    of_set: dict[str, list[Cell]] = {}
    for cell in plans:
        of_set.setdefault(cell.given_slug, []).append(cell)
    sets = list(of_set.values())
    errors = []
    with cluster() as ray:
        how = _do, args.out, args.workers, args.device
        for done in spread(ray, [[list(step)] for step in teachers], *how):
            if done.error:
                raise UserError(done.error)
        for done in spread(ray, [[step for cell in cells for step in plans[cell]] for cells in sets], *how):
            cells = sets[done.number]
            labels = ", ".join(cell.label for cell in cells)
            shared.say(f"{labels}: {done.error or 'done'} ({done.worker})")
            if done.error:
                errors.append(f"{labels}: {done.error}")
                continue
            for cell in cells:
                _keep(args, study, cell, plans[cell])
            _write(args, study, folder)
    if errors:
        raise UserError(errors[0] + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""))


def _keep(args: argparse.Namespace, study: Study, cell: Cell, steps: list[list[str]]) -> None:
    """Put the commands of a cell beside its figures."""
    commands = ["python -m hieramp " + shlex.join(step) for step in steps]
    where = _results(args, study, cell)
    write_result(where, (read_result(where) or {}) | {"commands": commands})


def _chosen(cells: list[Cell], text: str) -> list[Cell]:
    """The cells whose name begins with `text`; where there are none, those that hold it."""
    named = {cell: f"{cell.label} ".lower() for cell in cells}
    begin = [cell for cell, name in named.items() if name.startswith(text)]
    return begin or [cell for cell, name in named.items() if text in name]


def _study(args: argparse.Namespace) -> Study:
    if bool(args.sets) == bool(args.study):
        raise UserError("give either sets to compare or --study FILE")
    if args.sets:
        students = tuple(args.student or ("resnet18",))
        return study_of_sets(args.sets, students, args.protocol or "rded", args.runs or 3)
    study = read_study(args.study)
    given = {"protocol": args.protocol, "runs": args.runs, "students": tuple(args.student) if args.student else None}
    return replace(study, **{name: value for name, value in given.items() if value is not None})


def _values(args: argparse.Namespace) -> dict[str, str | None]:
    values: dict[str, str | None] = {name: getattr(args, name) for name in ("data", "test", "teacher", "model")}
    for text in args.define:
        name, found, value = text.partition("=")
        if not found:
            raise UserError(f"--define {text} should read NAME=VALUE")
        values[name] = value
    return values | {"folder": str(args.out)}


def _steps(args: argparse.Namespace, study: Study, cell: Cell, values: dict[str, str | None]) -> list[list[str]]:
    """The commands that make and evaluate a cell."""
    steps: list[list[str]] = []
    path = cell.set
    device = ["--device", args.device] if args.device else []
    if path is None:
        given, path = (str(args.out / "sets" / f"{name}.zip") for name in (cell.given_slug, cell.set_slug))
        named = ["--model", args.model] if "--model" not in cell.distill else []
        steps.append(["distill", *filled(cell.distill, values), *named, *device, "--out", given])
        if cell.recover:
            steps.append(["recover", given, *filled(cell.recover, values), *device, "--out", path])
    teacher = args.teacher
    if cell.make_teacher:
        teacher = str(args.out / "teachers" / f"{slug(cell.teacher or '')}.safetensors")
        steps.append(["evaluate", *filled(cell.make_teacher, values), *device, "--save", teacher])
    return [*steps, _evaluation(args, study, cell, path, teacher)]


def _evaluation(args: argparse.Namespace, study: Study, cell: Cell, path: str, teacher: str | None) -> list[str]:
    given: dict[str, Any] = {
        "test": args.test,
        "teacher": teacher,
        "student": cell.student,
        "protocol": study.protocol,
        "runs": study.runs,
        "seed": args.seed or None,
        "epochs": args.epochs,
        "batch-size": args.batch_size,
        "learning-rate": args.learning_rate,
        "test-images": args.test_images,
        "jobs": args.jobs,
        "device": args.device,
        "split": args.split,
        "image-column": args.image_column,
        "label-column": args.label_column,
        "out": _results(args, study, cell),
    }
    options = [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]
    return ["evaluate", path, *options, *(["--last-alone"] if args.last_alone else [])]


def _results(args: argparse.Namespace, study: Study, cell: Cell) -> Path:
    return args.out / "results" / f"{cell.slug}-{study.protocol}"


def _do(steps: list[list[str]]) -> None:
    """Run steps here; a teacher that is there already is not trained again. Results go to files, not to stdout."""
    for step, args in zip(steps, _parsed(steps), strict=True):
        if step[0] in ("distill", "recover"):
            args.out.parent.mkdir(parents=True, exist_ok=True)
        elif args.save:
            if args.save.is_file():
                continue
            args.save.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):
            args.run(args)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parsed(steps: list[list[str]]) -> list[argparse.Namespace]:
    """The arguments of the commands.

    Raises:
        UserError: one that its command does not take; names the command.
    """
    parser = _Parser(prog="hieramp")
    commands = parser.add_subparsers()
    for module in (distill, recover, evaluate):
        module.add_parser(commands)
    found = []
    for step in steps:
        try:
            found.append(parser.parse_args(step))
        except UserError as error:
            raise UserError(f"the study asks for: python -m hieramp {shlex.join(step)}; {error}") from error
    return found


def _write(args: argparse.Namespace, study: Study, folder: Path) -> str:
    results = {cell: read_result(_results(args, study, cell)) for cell in study.cells()}
    if args.write:
        write_into(args.write, study.name, summary(study, results))
    return write_tables(study, results, folder)
