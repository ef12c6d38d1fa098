"""python -m hieramp measure: the figures of a model card, on test images, written as measured.json and README.md."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import hieramp
from hieramp import figures
from hieramp.analysis import measure
from hieramp.checkpoints import write_text
from hieramp.classifier import load_classifier
from hieramp.commands import arguments as shared
from hieramp.commands.card import write_card
from hieramp.data import decode, open_source

SHEET_PER_CLASS = 10


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("measure", help="measure a model folder and write its card")
    parser.add_argument("--model", type=Path, required=True, help="model folder with all four parts")
    parser.add_argument("--data", required=True, help="folder with train/ and test/ of the images it was trained on")
    parser.add_argument("--per-class", type=shared.positive, default=100, help="drawn images per class")
    parser.add_argument("--guidance", type=float, nargs="+", default=[4.0], help="the first one is amplified too")
    parser.add_argument("--test-images", type=shared.positive, default=2000)
    parser.add_argument("--device", help="cpu, cuda … (default: a GPU where there is one)")
    parser.add_argument(
        "--only", choices=("autoencoder", "transformer", "deletion", "drawings"), nargs="+", help="measure just these"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    model = hieramp.load(args.model, args.device)
    classifier = load_classifier(args.model).to(model.device)
    test = decode(open_source(args.data, "test"), model.image_size, limit=args.test_images)
    real = decode(open_source(args.data, "train"), model.image_size, limit=args.per_class * len(model.class_names))
    path = args.model / "measured.json"
    measured: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    wanted = args.only or ("autoencoder", "transformer", "deletion", "drawings")
    if "autoencoder" in wanted:
        measured["autoencoder"] = measure.measure_autoencoder(model, test)
        shared.say(f"reconstruction {measured['autoencoder']['psnr_db']:.2f} dB")
    if "transformer" in wanted:
        measured["transformer"] = measure.measure_transformer(model, test)
        shared.say("transformer: " + ", ".join(f"{row['loss']:.2f}" for row in measured["transformer"]) + " nats")
    if "deletion" in wanted and model.has_class_tokens:
        measured["deletion"] = measure.measure_deletion(model, classifier, test)
        for stage, row in measured["deletion"]["stages"].items():
            shared.say(f"deletion, {stage}: salient {row['salient']:.3f}, random {row['random']:.3f}")
    if "drawings" in wanted:
        measured["drawings"] = {}
        for name, row in measure.measure_drawings(model, classifier, test, real, args.per_class, args.guidance):
            measured["drawings"][name] = row
            shared.say(f"{name}: {row}")
        _write_sheet(model, args.model / "samples.png")
    measured["machine"] = f"{os.cpu_count()} CPU cores" if model.device.type == "cpu" else str(model.device)
    write_text(path, json.dumps(measured, indent=1) + "\n")
    write_card(args.model, measured)
    print(f"{path} and {args.model / 'README.md'} written")


def _write_sheet(model: hieramp.Model, path: Path) -> None:
    """Ten uncurated samples of each of the first ten classes: seeds 0 to 9."""
    names = model.class_names[:10]
    rows = []
    for label, name in enumerate(names):
        drawing = model.generate([label] * SHEET_PER_CLASS, range(SHEET_PER_CLASS))
        tiles = [figures.enlarged(figures.to_picture(image), 64) for image in drawing.images]
        rows.append((name.split(",")[0], tiles))
    figures.save_png(figures.sheet(rows), path, {"model": model.name, "seeds": list(range(SHEET_PER_CLASS))})
