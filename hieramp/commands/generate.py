"""python -m hieramp generate: baseline above amplified, from the same seeds."""

import argparse
import json
import time
from pathlib import Path

from PIL import Image

from hieramp import figures
from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.errors import UserError

MAX_COUNT = 64
STRIP = 12  # pictures of a strip: all scales of a VAR, and as many steps of a diffusion transformer


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("generate", help=COMMANDS["generate"])
    shared.add_class(parser)
    shared.add_drawing(parser)
    parser.add_argument("--count", type=shared.positive, default=8, help=f"images per row, at most {MAX_COUNT}")
    parser.add_argument("--out", type=Path, default=Path("generated.png"), help="where to write the sheet (.png)")
    parser.add_argument("--strip", action="store_true", help="also write the coarse-to-fine strip, NAME-steps.png")
    parser.add_argument("--json", action="store_true", help="print settings and timings")
    shared.add_model(parser)
    shared.add_kind(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.count > MAX_COUNT:
        raise UserError(f"--count is {args.count}; one sheet holds at most {MAX_COUNT}")
    check_out(args.out)
    started = time.perf_counter()
    model = shared.load_any(args)
    settings = shared.settings(args, model.kind, model.defaults)
    loaded = time.perf_counter()
    label = model.label_of(args.class_name)
    seeds = list(range(args.seed, args.seed + args.count))
    both = [settings.plain] * args.count + [settings] * args.count
    grown: list[list[Image.Image]] = [[], []]  # of the first image of either row, after every scale
    for step in model.steps([label] * len(both), seeds * 2, both):  # a step holds its logits: let each go
        if args.strip:
            for strip, i in zip(grown, (0, args.count), strict=True):
                strip.append(figures.enlarged(figures.to_picture(step.image[i])))
    images = step.image
    drawn = time.perf_counter()
    described = model.describe(label, seeds, settings)
    where = {"salient": "", "least": ", least salient", "random": ", random positions"}[settings.where]
    rows = {"baseline": range(args.count), f"amplified{where}": range(args.count, 2 * args.count)}
    tiles = [figures.enlarged(figures.to_picture(image)) for image in images]
    figures.save_png(
        figures.sheet([(name, [tiles[i] for i in row]) for name, row in rows.items()]), args.out, described
    )
    written = [str(args.out)]
    if args.strip:
        path = args.out.with_name(f"{args.out.stem}-steps.png")
        captions = shared.captions(model, settings)
        shown = shared.some_of(len(captions), STRIP)
        strips = [(row, [tiles[i] for i in shown]) for row, tiles in zip(rows, grown, strict=True)]
        figures.save_png(figures.sheet(strips, [captions[i] for i in shown]), path, described)
        written.append(str(path))
    seconds = drawn - loaded
    if args.json:
        timings = {"load": loaded - started, "draw": seconds, "per_image": seconds / len(both)}
        print(json.dumps({"settings": described, "seconds": timings, "files": written}, indent=1))
    else:
        per_image = f"{seconds / len(both):.2f} s an image"
        print(f"{' and '.join(written)}: {args.count} × {model.class_names[label]}, plain and amplified, {per_image}")


def check_out(path: Path) -> None:
    """Say early what would fail late.

    Raises:
        UserError: not a .png, or in a folder that does not exist.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--out is {path}; it must end in .png, since the settings are stored inside the PNG")
    if not path.parent.is_dir():
        raise UserError(f"--out is {path}, but the folder {path.parent} does not exist")
