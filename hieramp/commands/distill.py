"""python -m hieramp distill: a whole set as a zip, a folder or shards."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from hieramp.checkpoints import model_folder, read_config
from hieramp.class_names import described_classes, ids_of, split_names
from hieramp.classifier import Classifier
from hieramp.commands import COMMANDS, matching
from hieramp.commands import arguments as shared
from hieramp.commands.data_arguments import add_data_arguments, data_spec, place
from hieramp.data import open_source
from hieramp.data.known import KNOWN
from hieramp.devices import resolve_device
from hieramp.distillation.distill import distill
from hieramp.distillation.methods.anchors import Anchored
from hieramp.distillation.methods.known import METHODS as DRAWN_BY
from hieramp.distillation.methods.method import Method, OfImages
from hieramp.distillation.production import Progress
from hieramp.distillation.real import FACTORS, METHODS, collect
from hieramp.errors import UserError
from hieramp.evaluation.teachers import load_teacher
from hieramp.imageset.layout import FORMATS


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("distill", help=COMMANDS["distill"])
    parser.add_argument("--ipc", type=shared.positive, required=True, help="images per class")
    parser.add_argument("--out", type=Path, required=True, help="set.zip, or a folder with another --format")
    parser.add_argument(
        "--classes",
        help="names, numbers or wnids, separated by semicolons or commas, or a data set of the papers by its name "
        "(docs/datasets.md; default: all)",
    )
    parser.add_argument(
        "--size", type=shared.positive, help="side of the saved images in pixels (default: the model's)"
    )
    parser.add_argument("--format", choices=FORMATS, default="zip")
    parser.add_argument("--soft-labels", action="store_true", help="add the classifier's logits")
    parser.add_argument(
        "--candidates", type=shared.positive, default=1, help="drawn for each image; the classifier keeps the surest"
    )
    parser.add_argument(
        "--classifier",
        help="model of the classifier (default: the model's own); for real images anything that --teacher takes",
    )
    parser.add_argument("--batch-size", type=shared.positive, help="images drawn at once (default: 32, 64 on a GPU)")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="ray: the GPUs of a Ray cluster")
    parser.add_argument("--workers", type=shared.positive, help="of the ray engine (default: one a GPU)")
    parser.add_argument(
        "--method",
        choices=("hieramp", *METHODS, "dm", *DRAWN_BY),
        default="hieramp",
        help="how the images come about (docs/diffusion.md; default: hieramp)",
    )
    real = parser.add_argument_group("real images, of random-real, rded and dm, and for mgd3, tgdd, d4m and d3hr")
    real.add_argument("--data", type=place, help="image folder, tar or Hub id")
    real.add_argument("--factor", type=int, choices=FACTORS, help="rded: crops per side (default: 1 to 64 px, else 2)")
    real.add_argument(
        "--prepared", type=Path, metavar="FOLDER", help="where a method keeps what it prepares (default: beside --out)"
    )
    shared.add_settings(real, OfImages.table())
    told = set(Anchored.own())
    for name, method in DRAWN_BY.items():
        options = {row: field for row, field in method.own().items() if row not in told}
        if options:  # of those that several methods have, the first one tells
            shared.add_settings(parser.add_argument_group(f"--method {name}: {method.title}"), options)
        told |= set(options)
    shared.add_settings(parser.add_argument_group("--method mgd3, tgdd and d4m"), Anchored.own())
    matching.add_arguments(parser)
    add_data_arguments(parser)
    shared.add_drawing(parser, seed_help="of the whole set")
    parser.set_defaults(stages=None)  # hieramp: all; the other methods draw unamplified where nothing is said
    shared.add_model(parser)
    shared.add_kind(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    make(args.out, _progress(args))


def make(out: Path, making: Iterable[Progress]) -> None:
    """Make a set under a progress bar, and say what came of it."""
    with tqdm(desc=out.name, unit="img", disable=None) as bar:
        try:
            for progress in making:
                show(bar, progress)
        except KeyboardInterrupt:
            bar.close()
            shared.say(f"stopped: what is finished is kept in {out}.part; the same line goes on from there")
            raise
    size = sum(file.stat().st_size for file in _files(out))
    print(f"{out}: {progress.total} images, {size / 1e6:.1f} MB, {progress.images_per_second:.1f} images/s")


def show(bar: tqdm, progress: Progress) -> None:
    """Set a bar; its rate and time left count this run alone."""
    if bar.total is None:
        bar.total, bar.initial, bar.n = progress.total, progress.done, progress.done
    bar.update(progress.done - bar.n)


def _files(out: Path) -> Iterator[Path]:
    return (file for file in out.rglob("*") if file.is_file()) if out.is_dir() else iter([out])


def _progress(args: argparse.Namespace) -> Iterable[Progress]:
    if args.method == "dm":
        return matching.progress(args)
    if matching.is_asked(args):
        raise UserError("--preset, --iterations, --real-images and --learning-rate belong to --method dm")
    return _real(args) if args.method in METHODS else _drawn(args)


def _names(args: argparse.Namespace, known: Sequence[str]) -> list[str] | None:
    if not args.classes:
        return None
    named = KNOWN.get(args.classes.strip().lower())
    return list(named.classes) if named else split_names(args.classes, known)


def _drawn(args: argparse.Namespace) -> Iterable[Progress]:
    if args.factor or (args.data and args.method == "hieramp"):
        raise UserError("--data and --factor belong to --method random-real and rded; a model draws without them")
    method = _method(args)
    model = shared.load_any(args)
    if method is not None:
        method.check_kind(model)
    if args.stages is None and method is None:
        args.stages = "all"
    elif args.stages is None:
        del args.stages
    return distill(
        model,
        args.ipc,
        args.out,
        shared.settings(args, model.kind, model.defaults),
        classes=_names(args, model.class_names),
        size=args.size,
        seed=args.seed,
        soft_labels=args.soft_labels,
        classifier=args.classifier and model_folder(args.classifier),
        candidates=args.candidates,
        format=args.format,
        batch_size=args.batch_size,
        engine=args.engine,
        workers=args.workers,
        method=method,
        data=open_source(data_spec(args, model.folder)) if args.data else None,
        prepared=args.prepared,
    )


def _method(args: argparse.Namespace) -> Method | None:
    """The method that draws, None for the model's own way.

    Raises:
        UserError: an option that is another method's, or out of range.
    """
    chosen = DRAWN_BY.get(args.method)
    for other in DRAWN_BY.values():
        for name in other.table():
            if name in args and (chosen is None or name not in chosen.table()):
                owners = ", ".join(owner.name for owner in DRAWN_BY.values() if name in owner.table())
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} is of --method {owners}: leave it out for {args.method}")
    return None if chosen is None else chosen(**{name: getattr(args, name) for name in chosen.table() if name in args})


def _real(args: argparse.Namespace) -> Iterator[Progress]:
    _method(args)  # options of other methods are refused
    if not args.data:
        raise UserError(f"--method {args.method} takes real images: name their folder with --data")
    if args.engine != "local" or args.candidates > 1 or (args.factor and args.method != "rded"):
        raise UserError(
            f"--method {args.method} takes neither --engine ray nor --candidates"
            + " nor --factor" * (args.method != "rded")
        )
    spec = args.classifier or args.model
    folder = model_folder(spec)
    source = open_source(data_spec(args, folder))
    described = described_classes(source.class_names)
    judge, known, papers = None, None, KNOWN.get(args.data.lower())
    if args.soft_labels or args.method == "rded":
        teacher = load_teacher(spec).for_classes(described["class_names"], source.name, described.get("wnids", ()))
        judge = teacher.network
        known = None if list(teacher.class_names) == described["class_names"] else teacher.class_ids
    elif (folder / "config.json").is_file():
        known = ids_of(read_config(folder))
    return collect(
        args.method,
        source,
        args.ipc,
        args.out,
        classes=_names(args, described["class_names"]),
        size=args.size or (papers.image_size if papers and not isinstance(judge, Classifier) else None),
        seed=args.seed,
        factor=args.factor,
        soft_labels=args.soft_labels,
        classifier=judge,
        classifier_classes=known,
        format=args.format,
        batch_size=args.batch_size,
        device=resolve_device(args.device),
    )
