"""python -m hieramp recover: a distilled set drawn anew by a diffusion transformer (DIVER)."""

import argparse
from pathlib import Path

from hieramp.checkpoints import model_folder
from hieramp.class_names import split_names
from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.commands.data_arguments import add_data_arguments, refuse_missing
from hieramp.commands.distill import make
from hieramp.data import DataSpec
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.diver import Diver
from hieramp.distillation.given import PIXELS, TENSOR_FILES
from hieramp.distillation.recovery import recover
from hieramp.errors import UserError
from hieramp.fields import table
from hieramp.imageset.layout import FORMATS

MODEL = "cifar10-dit"  # the diffusion transformer that ships


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("recover", help=COMMANDS["recover"])
    parser.add_argument("set", help="a set of ours, an image folder, or a .pt file of DC, DM or MTT")
    parser.add_argument("--out", type=Path, help="needed: set.zip, or a folder with another --format")
    parser.add_argument("--seed", type=shared.whole_number, default=0, help="of the whole set")
    parser.add_argument("--size", type=shared.positive, help="side of the saved images (default: the model's)")
    parser.add_argument("--format", choices=FORMATS, default="zip")
    parser.add_argument("--soft-labels", action="store_true", help="add the classifier's logits")
    parser.add_argument("--classifier", type=model_folder, help="model of the classifier (default: the model's own)")
    parser.add_argument("--batch-size", type=shared.positive, help="images drawn at once (default: 32, 64 on a GPU)")
    given = parser.add_argument_group("of a .pt file")
    given.add_argument("--classes", help="the class of label 0, 1, …, separated by semicolons or commas")
    given.add_argument(
        "--pixels", choices=PIXELS, help="what its values were normalised with (default: by their range)"
    )
    given.add_argument("--experiment", type=shared.whole_number, default=0, help="which of its sets (default: 0)")
    add_data_arguments(parser)
    shared.add_settings(parser.add_argument_group("DIVER (steps are counted as the paper's 50)"), table(Diver))
    shared.add_model(parser, MODEL)
    parser.set_defaults(run=run, kind="dit")


def run(args: argparse.Namespace) -> None:
    refuse_missing(args.set)
    if args.out is None:
        raise UserError("--out is missing: where should the recovered set go, such as recovered.zip?")
    model = shared.load_any(args)
    if not isinstance(model, DiffusionModel):
        raise UserError(f"--model {model.name} is a VAR; recover takes a diffusion transformer, such as {MODEL}")
    is_file = Path(args.set).suffix.lower() in TENSOR_FILES
    making = recover(
        args.set if is_file else DataSpec(args.set, args.split, args.image_column, args.label_column),
        model,
        args.out,
        Diver(**{name: value for name, value in vars(args).items() if name in table(Diver)}),
        seed=args.seed,
        size=args.size,
        classes=split_names(args.classes, model.class_names) if args.classes else None,
        pixels=args.pixels,
        experiment=args.experiment,
        soft_labels=args.soft_labels,
        classifier=args.classifier,
        format=args.format,
        batch_size=args.batch_size,
    )
    make(args.out, making)
