"""python -m hieramp saliency: an image, and where its class tokens look at every scale."""

import argparse
from pathlib import Path

from hieramp import figures
from hieramp.class_names import short_name
from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.commands.generate import check_out
from hieramp.diffusion.model import DiffusionDrawing, DiffusionModel
from hieramp.generation.model import Drawing

MAPS = 12  # all scales of a VAR, and as many steps of a diffusion transformer


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("saliency", help=COMMANDS["saliency"])
    shared.add_class(parser)
    shared.add_drawing(parser, stages="off")
    parser.add_argument("--out", type=Path, default=Path("saliency.png"), help="where to write the sheet (.png)")
    shared.add_model(parser)
    shared.add_kind(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_out(args.out)
    model = shared.load_any(args)
    settings = shared.settings(args, model.kind, model.defaults)
    label = model.label_of(args.class_name)
    drawing: Drawing | DiffusionDrawing
    if isinstance(model, DiffusionModel):
        drawing = model.generate([label], [args.seed], settings, maps=True)
    else:
        drawing = model.generate([label], [args.seed], settings)
    picture = figures.enlarged(figures.to_picture(drawing.images[0]))
    names = shared.captions(model, settings)
    shown = shared.some_of(len(names), MAPS)
    maps = [figures.overlay(picture, drawing.saliency[i][0]) for i in shown]
    captions = [short_name(model.class_names[label]), *(names[i] for i in shown)]
    sheet = figures.sheet([("saliency", [picture, *maps])], captions)
    figures.save_png(sheet, args.out, model.describe(label, [args.seed], settings))
    what = "steps" if model.kind == "dit" else "scales"
    print(f"{args.out}: {model.class_names[label]}, seed {args.seed}, and its saliency at {len(maps)} {what}")
