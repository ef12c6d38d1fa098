"""Arguments that several commands share."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch

import hieramp
from hieramp import Model, Settings
from hieramp.amplification.settings import OUTPUT_SCHEDULES, SCHEDULES
from hieramp.checkpoints import DEFAULT_MODEL, shipped
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.fields import Choice, Field, table
from hieramp.generation.sampling import Sampling
from hieramp.settings import DEFAULTS, MODEL_KINDS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OF_A_MODEL = ("sampling", "solving")  # groups of settings for which a model may have defaults of its own
UNITS = {"s": 1, "m": 60, "h": 3600}


def add_model(parser: argparse.ArgumentParser, default: str = DEFAULT_MODEL) -> None:
    group = parser.add_argument_group("model")
    models = f"{', '.join(shipped())}, a model folder, var-d16 … var-d36, or dit-xl-2-256"
    group.add_argument("--model", default=default, help=f"{models} (default: {default})")
    group.add_argument("--var-checkpoint", metavar="FILE", help="transformer weights, such as an HierAmp fine-tune")
    group.add_argument(
        "--class-tokens", metavar="WHICH", help="dropped, kept (how they were trained), or a file of others"
    )
    group.add_argument(
        "--classes-from", metavar="PLACE", help="names of a VAR's own classes: its image folder, or a list in a file"
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU where there is one)")
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="of the transformer (default: float32)")


def add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind", choices=MODEL_KINDS, help="of generator, where a model folder has both (default: var, if it has one)"
    )


def add_class(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--class", dest="class_name", required=True, metavar="NAME", help="class name, number or wnid")


def add_drawing(
    parser: argparse.ArgumentParser, seed_help: str = "of the first image; the next have seed+1, …", stages: str = "all"
) -> None:
    """The seed, and all settings; `stages` is the schedule where none is named."""
    group = parser.add_argument_group("drawing")
    group.add_argument("--seed", type=whole_number, default=0, help=seed_help)
    group.add_argument(
        "--stages",
        type=_stages,
        default=stages,
        help=f"coarse=50%%:5,mid=off,fine=30%%:2 (share:strength), or a schedule's name (default: {stages})",
    )
    of_var = Settings.table("var")
    add_settings(group, of_var)
    others = {name: row for name, row in Settings.table().items() if name not in of_var}
    add_settings(parser.add_argument_group("drawing with a diffusion transformer"), others)


def _stages(text: str) -> str:
    """Stages of any kind of model, as they were written: what a schedule's name means depends on the kind."""
    _read(hieramp.parse_stages, text)
    return text


def add_settings(group: argparse._ActionsContainer, rows: Mapping[str, Field]) -> None:
    """A flag for each of these settings; one that is not given leaves no trace in the arguments."""
    for row in rows.values():
        how: dict[str, Any] = {"type": flag_type(row), "metavar": row.kind.metavar}
        if isinstance(row.kind, Choice):
            how = {"choices": row.kind.words}
        default = row.kind.text(row.default)
        said = f"the model's own, or {default}" if row.group in OF_A_MODEL else default
        shown = f"{row.help} (default: {said})" if default not in ("", "off") else row.help
        group.add_argument(f"--{row.name.replace('_', '-')}", default=argparse.SUPPRESS, help=escaped(shown), **how)


def add_sweep(group: argparse._ActionsContainer, **defaults: Sequence[Any]) -> None:
    """A flag for each setting of the sampling that takes several values; `sweep` combines them."""
    for row in table(Sampling).values():
        values = defaults.get(row.name)
        said = f"the model's own, or {row.kind.text(row.default)}" if values is None else shown_values(row, values)
        shown = f"{row.help} Each is combined with each (default: {said})"
        how: dict[str, Any] = {"type": flag_type(row), "metavar": row.kind.metavar, "default": values}
        group.add_argument(f"--{row.name.replace('_', '-')}", nargs="+", help=escaped(shown), **how)


def shown_values(row: Field, values: Sequence[Any]) -> str:
    return " ".join(map(row.kind.text, values))


def sweep(args: argparse.Namespace, default: Sampling) -> list[Sampling]:
    """All combinations of the values that `add_sweep` took, or of `default`; guidance changes fastest."""
    names = tuple(table(Sampling))[::-1]
    given = {name: getattr(args, name) for name in names}
    tried = [(getattr(default, name),) if values is None else values for name, values in given.items()]
    return [Sampling(**dict(zip(names, values, strict=True))) for values in product(*tried)]


def flag_type(row: Field) -> Callable[[str], Any]:
    """What reads the text of a flag."""
    return partial(_read, partial(row.kind.parse, row.spoken))


def _read(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def escaped(text: str) -> str:
    """For argparse, to which % begins a name."""
    return text.replace("%", "%%")


def settings(args: argparse.Namespace, model_kind: str = "var", default: Settings | None = None) -> Settings:
    """The settings of the flags: a stage, mode or block that is named holds whatever the schedule says.

    What no flag names is as in `default`, the model's own; None is that of its kind.
    """
    schedules = OUTPUT_SCHEDULES if model_kind == "dit" else SCHEDULES
    schedule = hieramp.parse_stages(args.stages, schedules=schedules) if "stages" in args else None
    given = {name: value for name, value in vars(args).items() if name in Settings.table()}
    return replace(Settings.of(default or DEFAULTS[model_kind], schedule), **given)


def load_model(args: argparse.Namespace) -> Model:
    """The VAR of the flags; a command that takes other kinds of model as well loads it with `load_any`.

    Raises:
        UserError: it is none.
    """
    model = load_any(args)
    if not isinstance(model, Model):
        raise UserError(f"{model.name} is {MODEL_KINDS[model.kind]}: this command takes {MODEL_KINDS['var']}")
    return model


def load_any(args: argparse.Namespace) -> Model | DiffusionModel:
    more = (args.var_checkpoint, args.class_tokens, args.classes_from)
    return hieramp.load(args.model, args.device, DTYPES[args.dtype], *more, kind=getattr(args, "kind", None))


def captions(model: Model | DiffusionModel, settings: Settings) -> list[str]:
    """What the scales or steps of a drawing are called."""
    if isinstance(model, DiffusionModel):
        return [f"t {level.t:.2f}" for level in model.denoiser.levels(settings.steps)[1:]]
    return [f"{side}×{side}" for side in model.var.scales.sides]


def some_of(count: int, at_most: int = 8) -> list[int]:
    """So many of `count` steps, evenly spread, the last one among them."""
    return sorted({count - 1 - i * count // at_most for i in range(at_most) if i * count // at_most < count})


def whole_number(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0")
    return number


def share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def duration(text: str) -> float:
    """Seconds of "90s", "20m", "1h30m"."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time over 0 like 90s, 20m or 1h30m")
    return seconds


def say(text: str) -> None:
    """A line for the person; standard output is for results."""
    print(text, file=sys.stderr)
