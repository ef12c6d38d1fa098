"""distill --method dm: the arguments of distribution matching, and the run they mean."""

import argparse
from collections.abc import Iterator
from dataclasses import replace

from hieramp.checkpoints import model_folder, read_config
from hieramp.class_names import described_classes, ids_of, split_names
from hieramp.classifier import load_classifier
from hieramp.commands import arguments as shared
from hieramp.commands.data_arguments import data_spec
from hieramp.data import open_source
from hieramp.devices import resolve_device
from hieramp.distillation.dm import PRESETS, match
from hieramp.distillation.production import Progress
from hieramp.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("distribution matching, --method dm (with --data)")
    said = "; ".join(f"{name}: {p.iterations:,} iterations, {p.real_images} real images" for name, p in PRESETS.items())
    group.add_argument("--preset", choices=PRESETS, help=f"{said} (default: full, the paper's; hours without a GPU)")
    group.add_argument("--iterations", type=shared.positive, metavar="N", help="(default: the preset's)")
    group.add_argument("--real-images", type=shared.positive, metavar="N", help="of a class in each iteration")
    group.add_argument("--learning-rate", type=shared.positive_number, metavar="RATE", help="(default: 1; IPC 100: 10)")


def is_asked(args: argparse.Namespace) -> bool:
    """Whether one of the arguments above is given."""
    return any(value is not None for value in (args.preset, args.iterations, args.real_images, args.learning_rate))


def progress(args: argparse.Namespace) -> Iterator[Progress]:
    if not args.data:
        raise UserError("--method dm takes real images: name their folder with --data")
    if args.engine != "local" or args.candidates > 1 or args.factor:
        raise UserError("--method dm takes neither --engine ray nor --candidates nor --factor")
    given = {"iterations": args.iterations, "real_images": args.real_images, "learning_rate": args.learning_rate}
    matching = replace(
        PRESETS[args.preset or "full"], **{name: value for name, value in given.items() if value is not None}
    )
    folder = args.classifier or model_folder(args.model)
    source = open_source(data_spec(args, folder))
    names = described_classes(source.class_names)["class_names"]
    return match(
        source,
        args.ipc,
        args.out,
        matching,
        classes=split_names(args.classes, names) if args.classes else None,
        size=args.size,
        seed=args.seed,
        soft_labels=args.soft_labels,
        classifier=load_classifier(folder) if args.soft_labels else None,
        classifier_classes=ids_of(read_config(folder)) if (folder / "config.json").is_file() else None,
        format=args.format,
        batch_size=args.batch_size,
        device=resolve_device(args.device),
    )
