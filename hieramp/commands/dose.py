"""python -m hieramp dose: what a picture does as one stage's strength or ρ grows; the page's Dose and response."""

import argparse
import json
from pathlib import Path

from hieramp.analysis import dose
from hieramp.analysis.doseplot import dose_figure, dose_title
from hieramp.captions import caption
from hieramp.checkpoints import model_folder
from hieramp.class_names import short_name
from hieramp.classifier import Classifier, load_classifier_for
from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.figures import save_figure
from hieramp.files import csv_text, with_settings, write_text
from hieramp.generation.model import Model
from hieramp.scales import STAGES

OUT = Path("runs/dose")
MAX_COUNT = 64  # seeds, which are drawn together


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("dose", help=COMMANDS["dose"])
    shared.add_class(parser)
    parser.add_argument("--stage", choices=STAGES, default="fine", help="which one is swept (default: fine)")
    parser.add_argument("--knob", choices=("strength", "rho"), default="strength", help="of it (default: strength)")
    parser.add_argument(
        "--doses", type=float, nargs="+", metavar="DOSE", help=f"(default: {dose.DOSES}, strength 0 to 8, rho to 1)"
    )
    shared.add_drawing(parser)
    parser.add_argument(
        "--count", type=shared.positive, default=dose.SEEDS, help=f"seeds, at most {MAX_COUNT} (default: {dose.SEEDS})"
    )
    parser.add_argument("--classifier", type=model_folder, help="model of the classifier (default: the model's own)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for figure, CSV and JSON (default: {OUT})")
    shared.add_model(parser)
    shared.add_kind(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.count > MAX_COUNT:
        raise UserError(f"--count is {args.count}; at most {MAX_COUNT} seeds are drawn together")
    if args.count < 2:
        raise UserError("--count is 1, which has no interval: take at least 2 seeds")
    model = shared.load_any(args)
    settings = shared.settings(args, model.kind, model.defaults)
    label, seeds = model.label_of(args.class_name), range(args.seed, args.seed + args.count)
    doses = sorted(set(args.doses)) if args.doses else None
    judge = _classifier(model, args.classifier)
    for found in dose.sweep(model, judge, label, args.stage, args.knob, settings, seeds, doses):
        shared.say(f"{len(found.responses)} of {len(found.doses)} doses")
    name = short_name(model.class_names[label])
    about = model.describe(label, list(seeds), settings) | dose.swept(found)
    title = dose_title(found, name, model.name, caption(settings, seeds, model.kind, swept=args.stage))
    args.out.mkdir(parents=True, exist_ok=True)
    start = dose.file_start(found, name)
    figure = dose_figure(found, title)
    for ending in ("png", "svg"):
        save_figure(figure, args.out / f"{start}.{ending}", about)
    write_text(args.out / f"{start}.csv", with_settings(csv_text(dose.rows_of(found)), about))
    write_text(args.out / f"{start}.json", json.dumps(about | dose.summary(found), ensure_ascii=False, indent=1) + "\n")
    print(f"{name}: {dose.in_words(found)}")
    print(f"files: {args.out / start}.png, .svg, .csv and .json")


def _classifier(model: Model | DiffusionModel, other: Path | None) -> Classifier:
    """The model's own, or that of another folder with its logits in the order of the model's classes.

    Raises:
        UserError: there is none, or it knows other classes.
    """
    folder = other or model.folder
    if folder is None:
        raise UserError(f"{model.name} has no classifier of its own: name a model that has one, --classifier MODEL")
    return load_classifier_for(folder, model.class_ids, model.device)
