"""python -m hieramp measure on a diffusion transformer: its rows in measured.json, its sheets, its part of the card."""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hieramp import figures
from hieramp.amplification.settings import OUTPUT_SCHEDULES
from hieramp.analysis.diffusion import measure_diffusion, setting_name
from hieramp.analysis.dit_faithfulness import dit_saliency_figures, drawn_plainly, plain_pictures
from hieramp.analysis.faithfulness import Judge, Pictures, accuracy_of
from hieramp.checkpoints import model_folder
from hieramp.class_names import short_name
from hieramp.classifier import load_classifier
from hieramp.commands import arguments as shared
from hieramp.commands.card import saliency_in_short, write_card
from hieramp.data import DecodedImages, decode, open_source
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.files import write_text
from hieramp.settings import Settings

GUIDANCE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # where none is named
SHEET_PER_CLASS = 10
FIGURES = ("drawings", "saliency")
SALIENCY_RHO = 0.5  # what amplification takes by default


def run(
    args: argparse.Namespace,
    model: DiffusionModel,
    every_guidance: bool,
    data: Any,
    judges: Mapping[str, Judge],
    networks: Mapping[str, nn.Module],
) -> None:
    """Judge its map M, measure over guidance and steps, and amplified at the setting at which most are named right."""
    asked = [figure for figure in FIGURES if figure in args.only]
    if not asked:
        raise UserError(
            f"--only {args.only[0]} is for a VAR; of a diffusion transformer measure {' or '.join(FIGURES)}"
        )
    settings = _sweep(args, model, every_guidance)
    for one in settings:
        model.check(one)
    folder = model_folder(args.model)
    test = decode(open_source(data, "test").reordered(model.class_ids), model.image_size, limit=args.test_images)
    path = folder / "measured.json"
    measured: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    measured["machine"] = f"{os.cpu_count()} CPU cores" if model.device.type == "cpu" else str(model.device)
    if "saliency" in asked:
        per_class = -(-len(test.labels) // len(model.class_names))
        on = {
            "test images": partial(plain_pictures, test.images, test.labels),
            "drawings": partial(drawn_plainly, model, per_class),
        }

        def keep(found: dict[str, Any]) -> None:
            measured["dit_saliency"] = found
            write_text(path, json.dumps(measured, indent=1) + "\n")

        def figures_of(_: str, pictures: Pictures) -> Iterable[dict[str, Any]]:
            return dit_saliency_figures(model, judges, pictures, SALIENCY_RHO, networks)

        saliency_of(judges, on, figures_of, keep)
    if "drawings" in asked:
        _drawings(args, model, data, test, settings, measured)
    write_card(folder, measured)
    print(f"{path} and {folder / 'README.md'} written")


def saliency_of(
    judges: Mapping[str, Judge],
    on: Mapping[str, Callable[[], Pictures]],
    figures_of: Callable[[str, Pictures], Iterable[dict[str, Any]]],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """The test of hieramp.analysis.faithfulness on test images and on as many drawings, by one or two judges.

    What is found is kept after either; how good the judges are is told on the first.
    """
    found: dict[str, Any] = {"rho": SALIENCY_RHO, "judges": {}, "on": {}}
    for what, pictures_of in on.items():
        pictures, rows = pictures_of(), []
        for name, judge in judges.items():
            found["judges"].setdefault(name, {"accuracy": accuracy_of(judge, pictures)})
        for row in figures_of(what, pictures):
            rows.append(row)
            at = row["stage"] if "stage" in row else f"scale {row['scale']}"
            shared.say(f"saliency on {what}, {at}: " + saliency_in_short(row))
        found["on"][what] = {"images": len(pictures.labels), "rows": rows}
        keep(found)


def _drawings(
    args: argparse.Namespace,
    model: DiffusionModel,
    data: Any,
    test: DecodedImages,
    settings: list[Settings],
    measured: dict[str, Any],
) -> None:
    folder = model_folder(args.model)
    classifier = load_classifier(folder).to(model.device)
    source = open_source(data, "train").reordered(model.class_ids)
    real = decode(source, model.image_size, limit=args.per_class * len(model.class_names))
    rows: list[dict[str, Any]] = []
    measured["dit"] = {"rows": rows, "test_images": len(test.images)}

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        shared.say(f"{row['setting']}: {row['accuracy']:.1%} accuracy, FID {row['fid']:.2f}")
        write_text(folder / "measured.json", json.dumps(measured, indent=1) + "\n")

    how = model, classifier, test, real, args.per_class
    for row in measure_diffusion(*how, settings):
        keep(row)
    best = max(zip(settings, rows[1:], strict=True), key=lambda pair: pair[1]["accuracy"])[0]
    _, amplified = measure_diffusion(*how, [Settings.of(best, OUTPUT_SCHEDULES["all"])])
    keep(amplified)
    _write_sheet(model, folder / "samples-dit.png", model.defaults)
    _write_sheet(model, folder / "samples-dit-clearest.png", best)


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
