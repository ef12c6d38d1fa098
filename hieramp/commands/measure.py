"""python -m hieramp measure: the figures of a model card, on test images, written as measured.json and README.md."""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import hieramp
from hieramp import figures
from hieramp.analysis import average_map, faithfulness, measure
from hieramp.analysis.limits import halves, measure_limits
from hieramp.analysis.measure import most_accurate, setting_name
from hieramp.checkpoints import model_folder
from hieramp.class_names import short_name
from hieramp.classifier import Classifier, load_classifier
from hieramp.commands import COMMANDS, measure_dit
from hieramp.commands import arguments as shared
from hieramp.commands.card import write_card
from hieramp.commands.data_arguments import add_data_arguments, data_spec, place
from hieramp.commands.measure_dit import SALIENCY_RHO, saliency_of
from hieramp.data import DecodedImages, decode, open_source
from hieramp.devices import autocast_bf16_if_fast
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.evaluation.teachers import load_teacher
from hieramp.files import write_text
from hieramp.generation.sampling import Sampling

SHEET_PER_CLASS = 10
FIGURES = ("autoencoder", "transformer", "saliency", "drawings", "limits")
JUDGE2 = "judge2.safetensors"  # in the model folder: the second judge where none is named
SWEEP = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # FID tends to be best low, named right high; six sets are cheap


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("measure", help=COMMANDS["measure"])
    parser.add_argument("--model", required=True, help="a model that ships, or a folder, with all four parts")
    parser.add_argument("--data", type=place, required=True, help="train/ and test/ of the images it was trained on")
    add_data_arguments(parser, split=False)
    parser.add_argument("--per-class", type=shared.positive, default=100, help="drawn images per class")
    shared.add_sweep(parser.add_argument_group("drawing"), guidance=SWEEP)
    parser.add_argument(
        "--steps", type=shared.positive, nargs="+", default=(25,), help="of a diffusion transformer (default: 25)"
    )
    shared.add_kind(parser)
    parser.add_argument(
        "--judge2",
        metavar="FILE",
        help="a second judge of saliency, of another architecture: what evaluate --student convnet --save wrote, "
        f"or NAME=FILE for timm's NAME (default: {JUDGE2} in the model folder, where there is one)",
    )
    parser.add_argument("--test-images", type=shared.positive, default=2000)
    parser.add_argument("--device", help="cpu, cuda … (default: a GPU where there is one)")
    parser.add_argument("--only", choices=FIGURES, nargs="+", default=FIGURES, help="measure just these")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    folder = model_folder(args.model)
    model = hieramp.load(folder, args.device, kind=args.kind)
    if isinstance(model, DiffusionModel):
        networks = {}
        if "saliency" in args.only:
            networks = _networks(model, load_classifier(folder).to(model.device), args.judge2)
        judges = _judges(networks, model.device)
        measure_dit.run(args, model, args.guidance is SWEEP, data_spec(args), judges, networks)
        return
    default = model.defaults.sampling
    samplings = shared.sweep(args, default)
    if args.guidance is SWEEP and default not in samplings:
        samplings.insert(0, default)
    shown = default if default in samplings else samplings[0]
    classifier = load_classifier(folder).to(model.device)
    source = open_source(data_spec(args), "test").reordered(model.class_ids)
    test = decode(source, model.image_size, limit=args.test_images)
    if "limits" in args.only:
        halves(test, args.per_class)  # too few test images are told before hours of measuring
    path = folder / "measured.json"
    measured: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    measured.pop("deletion", None)  # of an older version
    measured["machine"] = f"{os.cpu_count()} CPU cores" if model.device.type == "cpu" else str(model.device)

    def keep(name: str, figures: Any) -> None:
        measured[name] = figures
        write_text(path, json.dumps(measured, indent=1) + "\n")

    if "saliency" in args.only:
        _saliency(model, classifier, test, args, partial(keep, "saliency"))
    if "autoencoder" in args.only:
        keep("autoencoder", measure.measure_autoencoder(model, classifier, test))
        shared.say(f"reconstruction {measured['autoencoder']['psnr_db']:.2f} dB")
    if "transformer" in args.only:
        keep("transformer", measure.measure_transformer(model, test))
        shared.say("transformer: " + ", ".join(f"{row['loss']:.2f}" for row in measured["transformer"]) + " nats")
    if "drawings" in args.only:
        keep("drawings", _drawings(model, classifier, test, args, samplings, shown))
        _write_sheets(model, folder, samplings, measured["drawings"])
    if "limits" in args.only:
        keep("limits", _limits(model, classifier, test, args.per_class, shown))
    write_card(folder, measured)
    print(f"{path} and {folder / 'README.md'} written")


def _drawings(
    model: hieramp.Model,
    classifier: Classifier,
    test: DecodedImages,
    args: argparse.Namespace,
    samplings: list[Sampling],
    amplified_at: Sampling,
) -> dict[str, Any]:
    source = open_source(data_spec(args), "train").reordered(model.class_ids)
    real = decode(source, model.image_size, limit=args.per_class * len(model.class_names))
    rows: dict[str, Any] = {}
    plans = measure.measure_drawings(model, classifier, test, real, args.per_class, samplings, amplified_at)
    for name, row in plans:
        rows[name] = row
        shared.say(f"{name}: {row}")
    return rows


def _saliency(
    model: hieramp.Model,
    classifier: Classifier,
    test: DecodedImages,
    args: argparse.Namespace,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """The test of hieramp.analysis.faithfulness on test images and on as many drawings, by one or two judges."""
    networks = _networks(model, classifier, args.judge2)
    judges = _judges(networks, model.device)
    per_class = -(-len(test.labels) // len(model.class_names))
    on = {
        "test images": partial(faithfulness.with_tokens, model, test.images, test.labels),
        "drawings": partial(faithfulness.drawn_pictures, model, per_class),
    }

    def figures_of(what: str, pictures: faithfulness.Pictures) -> Iterator[dict[str, Any]]:
        maps = faithfulness.maps_of(model, pictures)
        if what == "drawings":  # for the page, which shows maps of drawings
            average_map.save(model, maps)
        return faithfulness.saliency_figures(model, judges, pictures, SALIENCY_RHO, maps, networks)

    saliency_of(judges, on, figures_of, keep)


def _networks(
    model: hieramp.Model | DiffusionModel, classifier: Classifier, wanted: str | None
) -> dict[str, torch.nn.Module]:
    """The networks that judge, by name."""
    return {"classifier": classifier.eval()} | _second_judge(model, wanted)


def _judges(networks: Mapping[str, torch.nn.Module], device: torch.device) -> dict[str, faithfulness.Judge]:
    return {name: partial(_on, network, device) for name, network in networks.items()}


def _second_judge(model: hieramp.Model | DiffusionModel, wanted: str | None) -> dict[str, torch.nn.Module]:
    assert model.folder is not None
    beside = model.folder / JUDGE2
    if wanted is None and not beside.is_file():
        shared.say(f"one judge alone: give a second one, of another architecture, with --judge2 or as {beside}")
        return {}
    judge = load_teacher(wanted or str(beside))
    if judge.class_names != model.class_names:
        raise UserError(f"--judge2 {judge.name} was trained on other classes than {model.name}: give one of its own")
    return {judge.name: judge.network.to(model.device)}


def _on(network: torch.nn.Module, device: torch.device, images_NCHW: torch.Tensor) -> torch.Tensor:
    with autocast_bf16_if_fast(device):
        return network(images_NCHW.to(device))


def _limits(
    model: hieramp.Model, classifier: Classifier, test: DecodedImages, per_class: int, sampling: Sampling
) -> dict[str, Any]:
    real, others = halves(test, per_class)
    rows = []
    for row in measure_limits(model, classifier, real, others, sampling):
        rows.append(row)
        what = "test images" if row["given"] is None else f"{row['given']} scales given"
        shared.say(f"{what}: {row['accuracy']:.1%} accuracy, FID {row['fid']:.2f}")
    return sampling.options() | {"images": len(real), "others": len(others), "rows": rows}


def _write_sheets(
    model: hieramp.Model, folder: Path, samplings: list[Sampling], drawings: dict[str, dict[str, Any]]
) -> None:
    """A sheet at the default settings, and one at those that most images are named right at, if they are others."""
    best = next(sampling for sampling in samplings if setting_name(sampling) == most_accurate(drawings))
    _write_sheet(model, folder / "samples.png", model.defaults.sampling)
    clearest = folder / "samples-clearest.png"
    if best == model.defaults.sampling:
        clearest.unlink(missing_ok=True)
    else:
        _write_sheet(model, clearest, best)


def _write_sheet(model: hieramp.Model, path: Path, sampling: Sampling) -> None:
    """Ten uncurated samples of each of the first ten classes: seeds 0 to 9."""
    names = model.class_names[:10]
    rows = []
    for label, name in enumerate(names):
        drawing = model.generate([label] * SHEET_PER_CLASS, range(SHEET_PER_CLASS), **sampling.options())
        tiles = [figures.enlarged(figures.to_picture(image), 96) for image in drawing.images]
        rows.append((short_name(name), tiles))
    figures.save_png(
        figures.sheet(rows), path, {"model": model.name, "seeds": list(range(SHEET_PER_CLASS))} | sampling.options()
    )
