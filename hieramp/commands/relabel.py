"""python -m hieramp relabel: a teacher's labels for every epoch, stored once (FKD)."""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.commands.data_arguments import place
from hieramp.devices import resolve_device
from hieramp.evaluation.epoch_labels import relabel
from hieramp.evaluation.images import load_set, of_its_classes
from hieramp.evaluation.protocols import PROTOCOLS, training_of
from hieramp.evaluation.teachers import is_blind, load_teacher, taught
from hieramp.evaluation.trainer import accuracy_of, confusion


def add_parser(commands: argparse._SubParsersAction) -> None:
    soft = [name for name, protocol in PROTOCOLS.items() if protocol.soft]
    parser = commands.add_parser("relabel", help=COMMANDS["relabel"])
    parser.add_argument("set", type=place, help="distilled set, or a folder of class folders")
    parser.add_argument("--teacher", required=True, help="a model with a classifier, or as for evaluate")
    parser.add_argument("--out", type=Path, required=True, help="folder for the labels; evaluate --teacher takes it")
    parser.add_argument("--protocol", choices=soft, default=soft[0])
    parser.add_argument("--epochs", type=shared.positive, help="(default: the protocol's)")
    parser.add_argument("--batch-size", type=shared.positive, help="of the student (default: the protocol's)")
    parser.add_argument("--size", type=shared.positive, help="pixels the student sees (default: the set's)")
    parser.add_argument("--seed", type=shared.whole_number, default=0)
    parser.add_argument("--device", help="cpu, cuda … (default: a GPU where there is one)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    held, teacher = taught(of_its_classes(load_set(args.set, args.size)), load_teacher(args.teacher))
    count = (len(held.images), len(held.present), held.image_size)
    # the learning rate, which depends on the student, plays no part here
    training = training_of(PROTOCOLS[args.protocol], "", *count, epochs=args.epochs, batch_size=args.batch_size)
    about = {"teacher": teacher.name, "teacher_sha256": teacher.sha256}
    device = resolve_device(args.device)
    on_device = held.to(device)
    agreed = accuracy_of(confusion(teacher.network.to(device), on_device))
    shared.say(f"the teacher {teacher.name} names {agreed:.1%} of the images of {held.name} as the set does")
    if is_blind(agreed, len(held.present)):
        shared.say("warning: that is little more than chance: is it trained, and on these classes?")
    with tqdm(total=training.epochs, desc="labels", unit="epoch", disable=None) as bar, torch.no_grad():
        for done in relabel(on_device, teacher.network, training, args.out, about, args.seed):
            bar.update(done - bar.n)
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{args.out}: {training.epochs} epochs of {len(held.images)} images, {size / 1e6:.1f} MB")
