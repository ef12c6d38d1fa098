"""python -m hieramp measure on a diffusion transformer: its rows in measured.json, its sheets, its part of the card."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from hieramp import figures
from hieramp.amplification.settings import OUTPUT_SCHEDULES
from hieramp.analysis.diffusion import measure_diffusion, setting_name
from hieramp.checkpoints import model_folder
from hieramp.class_names import short_name
from hieramp.classifier import load_classifier
from hieramp.commands import arguments as shared
from hieramp.commands.card import write_card
from hieramp.data import decode, open_source
from hieramp.diffusion.model import DiffusionModel
from hieramp.files import write_text
from hieramp.settings import Settings

GUIDANCE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # where none is named
SHEET_PER_CLASS = 10


def run(args: argparse.Namespace, model: DiffusionModel, every_guidance: bool, data: Any) -> None:
    """Measure over guidance and steps, and amplified at the setting at which most are named right."""
    settings = _sweep(args, model, every_guidance)
    for one in settings:
        model.check(one)
    folder = model_folder(args.model)
    classifier = load_classifier(folder).to(model.device)
    test = decode(open_source(data, "test").reordered(model.class_names), model.image_size, limit=args.test_images)
    source = open_source(data, "train").reordered(model.class_names)
    real = decode(source, model.image_size, limit=args.per_class * len(model.class_names))
    path = folder / "measured.json"
    measured: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    measured["machine"] = f"{os.cpu_count()} CPU cores" if model.device.type == "cpu" else str(model.device)
    rows: list[dict[str, Any]] = []
    measured["dit"] = {"rows": rows, "test_images": len(test.images)}

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        shared.say(f"{row['setting']}: {row['accuracy']:.1%} accuracy, FID {row['fid']:.2f}")
        write_text(path, json.dumps(measured, indent=1) + "\n")

    how = model, classifier, test, real, args.per_class
    for row in measure_diffusion(*how, settings):
        keep(row)
    best = max(zip(settings, rows[1:], strict=True), key=lambda pair: pair[1]["accuracy"])[0]
    _, amplified = measure_diffusion(*how, [Settings.of(best, OUTPUT_SCHEDULES["all"])])
    keep(amplified)
    _write_sheet(model, folder / "samples-dit.png", model.defaults)
    _write_sheet(model, folder / "samples-dit-clearest.png", best)
    write_card(folder, measured)
    print(f"{path} and {folder / 'README.md'} written")


def _sweep(args: argparse.Namespace, model: DiffusionModel, every_guidance: bool) -> list[Settings]:
    """All combinations of guidance and steps."""
    if every_guidance:
        args.guidance = GUIDANCE
    samplings = shared.sweep(args, model.defaults.sampling)
    return [Settings.of(model.defaults, sampling, steps=steps) for steps in args.steps for sampling in samplings]


def _write_sheet(model: DiffusionModel, path: Path, settings: Settings) -> None:
    """Ten uncurated samples of each of the first ten classes: seeds 0 to 9."""
    rows = []
    for label, name in enumerate(model.class_names[:10]):
        drawing = model.generate([label] * SHEET_PER_CLASS, range(SHEET_PER_CLASS), settings)
        tiles = [figures.enlarged(figures.to_picture(image), 96) for image in drawing.images]
        rows.append((short_name(name), tiles))
    told = {"model": model.name, "seeds": list(range(SHEET_PER_CLASS))} | settings.to_json(model.kind)
    figures.save_png(figures.sheet(rows), path, told | {"setting": setting_name(settings)})
