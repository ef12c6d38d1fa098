"""python -m hieramp analyse: what is in a set: tokens, FID, nearest real images, the classifier's confidence."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hieramp.analysis.inception import inception_fid
from hieramp.analysis.judged import Judged, closeness, fid, judge
from hieramp.analysis.settokens import SetUsage, token_usage
from hieramp.checkpoints import model_folder, read_config
from hieramp.classifier import Classifier, load_classifier
from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.commands.analysis_files import Real, Subject, pair, report, summary, write_files
from hieramp.commands.data_arguments import place
from hieramp.data import has_test_split
from hieramp.devices import resolve_device
from hieramp.errors import UserError
from hieramp.evaluation.images import LabeledImages, align_to_model, load_set, load_test
from hieramp.files import write_text
from hieramp.imageset.reader import open_set
from hieramp.training.runs import load_vqvae
from hieramp.vqvae.model import VQVAE

OUT = Path("runs/analyse")
HELD_OUT = 2000  # real test images, to know how near such images are to the training images anyway


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("analyse", help=COMMANDS["analyse"])
    parser.add_argument("set", type=place, help="distilled set (zip or folder), or a folder of class folders")
    parser.add_argument("--against", type=place, metavar="SET", help="a baseline, such as a set that is not amplified")
    parser.add_argument(
        "--data", type=place, metavar="FOLDER", help="real images (train/, test/) for FID and neighbours"
    )
    parser.add_argument("--model", default="cifar10", help="whose VQ-VAE encodes the images (default: cifar10)")
    parser.add_argument("--classifier", type=model_folder, help="model of the classifier (default: the model's own)")
    parser.add_argument("--real-images", type=shared.positive, help="compare with so many real images (default: all)")
    parser.add_argument("--inception", action="store_true", help="FID in Inception's features as well")
    parser.add_argument("--out", type=Path, help=f"folder for figures and CSV (default: {OUT}/SET)")
    parser.add_argument("--device", help="cpu, cuda … (default: a GPU where there is one)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    folder = model_folder(args.model)
    device = resolve_device(args.device)
    classifier = load_classifier(args.classifier or folder).to(device)
    vqvae = load_vqvae(folder).to(device)
    about = read_config(args.classifier or folder)
    if args.inception and not args.data:
        raise UserError("--inception compares with real images: give --data")
    real = _real(args, classifier, about) if args.data else None
    usages = _usages(_paths(args), vqvae)
    subjects = [
        _subject(args, name, path, usages[name], classifier, about, real) for name, path in _paths(args).items()
    ]
    out = args.out or OUT / Path(args.set).stem
    against = pair(subjects[0], subjects[1], _are_pairs(args, subjects)) if args.against else None
    write_files(out, subjects, real, against)
    found = summary(subjects, against)
    write_text(out / "analysis.json", json.dumps(found, indent=1) + "\n")
    if real is None:
        shared.say("FID and nearest real images are left out: they need --data")
    print(report(found))
    print(f"files: {out}/analysis.json, tokens.csv, images.csv and figures")


def _paths(args: argparse.Namespace) -> dict[str, str]:
    """The set and its baseline under names that differ."""
    paths = {Path(args.set).stem: args.set}
    if args.against:
        if Path(args.against).stem in paths:
            raise UserError(f"{args.set} and {args.against} have the same name: rename one to tell them in the figures")
        paths[Path(args.against).stem] = args.against
    return paths


def _are_pairs(args: argparse.Namespace, subjects: list[Subject]) -> bool:
    """Whether the images counted were drawn from the same seeds, class by class."""
    seeds = []
    for path, subject in zip((args.set, args.against), subjects, strict=True):
        try:
            with open_set(path) as held:
                labelled = list(zip(held.labels, held.seeds, strict=True))
        except (UserError, OSError):  # a plain folder
            return False
        count = len(subject.usage.tokens[0][0])
        seeds.append([[s for label, s in labelled if label == wanted][:count] for wanted in subject.held.present])
    return seeds[0] == seeds[1]


def _usages(paths: dict[str, str], vqvae: VQVAE) -> dict[str, SetUsage]:
    """Code usage of each set, over as many images of a class in all of them."""
    sets = {name: load_set(path, vqvae.config.image_size) for name, path in paths.items()}
    fewest = min(int(held.labels.bincount()[list(held.present)].min()) for held in sets.values())
    return {name: token_usage(vqvae, held.images, held.labels, fewest) for name, held in sets.items()}


def _real(args: argparse.Namespace, classifier: Classifier, about: dict[str, Any]) -> Real:
    size = classifier.config.image_size
    held = align_to_model(load_set(args.data, size, args.real_images), about)
    held_out = None
    if has_test_split(args.data):
        test = align_to_model(load_test(args.data, size, HELD_OUT), about)
        held_out = judge(classifier, test.images, test.labels)
    return Real(held, judge(classifier, held.images, held.labels), held_out)


def _subject(
    args: argparse.Namespace,
    name: str,
    path: str,
    usage: SetUsage,
    classifier: Classifier,
    about: dict[str, Any],
    real: Real | None,
) -> Subject:
    held: LabeledImages = align_to_model(load_set(path, classifier.config.image_size), about)
    judged = judge(classifier, held.images, held.labels)
    subject = Subject(name, held, usage, judged)
    if real is None:
        return subject
    distances = {"fid": fid(judged, real.judged), "fid_of_test_images": _floor(judged, real)}
    if args.inception:
        distances["fid_inception"] = _inception(judged, real, classifier.mean.device)
    return replace(subject, near=closeness(judged, real.judged, real.held_out), distances=distances)


def _floor(judged: Judged, real: Real) -> float | None:
    """FID of as many held-out real images: what a set of this size could reach at best."""
    count = len(judged.labels_N)
    if real.held_out is None or len(real.held_out.labels_N) < count:
        return None
    return fid(real.held_out.first(count), real.judged)


def _inception(judged: Judged, real: Real, device: torch.device) -> float | None:
    try:
        return inception_fid(judged.images_NCHW, real.judged.images_NCHW, device)
    except ValueError as error:
        shared.say(str(error))
        return None
