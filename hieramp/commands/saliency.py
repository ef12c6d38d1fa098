"""python -m hieramp saliency: an image, and where its class tokens look at every scale."""

import argparse
from pathlib import Path

from hieramp import figures
from hieramp.commands import arguments as shared
from hieramp.commands.generate import check_out


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("saliency", help="draw an image with its saliency map at every scale")
    shared.add_class(parser)
    shared.add_drawing(parser, stages="off")
    parser.add_argument("--out", type=Path, default=Path("saliency.png"), help="where to write the sheet (.png)")
    shared.add_model(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_out(args.out)
    settings = shared.settings(args)
    model = shared.load_model(args)
    label = model.label_of(args.class_name)
    drawing = model.generate([label], [args.seed], settings)
    picture = figures.enlarged(figures.to_picture(drawing.images[0]))
    maps = [figures.overlay(picture, m[0]) for m in drawing.saliency]
    captions = [model.class_names[label].split(",")[0], *(f"{side}×{side}" for side in model.var.scales.sides)]
    sheet = figures.sheet([("saliency", [picture, *maps])], captions)
    figures.save_png(sheet, args.out, model.describe(label, [args.seed], settings))
    print(f"{args.out}: {model.class_names[label]}, seed {args.seed}, and its saliency at {len(maps)} scales")
