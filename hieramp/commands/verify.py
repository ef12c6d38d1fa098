"""python -m hieramp verify: whether a set is what its manifest says."""

import argparse
import sys
from pathlib import Path

from hieramp.commands import COMMANDS
from hieramp.errors import printable
from hieramp.imageset.reader import open_set
from hieramp.imageset.verify import problems

SHOWN = 20


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("verify", help=COMMANDS["verify"])
    parser.add_argument("set", type=Path, help="zip, folder, folder of shards or RDED layout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    with open_set(args.set) as image_set:
        found = list(problems(image_set))
        count, classes = len(image_set), len(set(image_set.labels))
    for problem in found[:SHOWN]:
        print(f"wrong: {printable(problem)}")
    if len(found) > SHOWN:
        print(f"… and {len(found) - SHOWN} more")
    if found:
        sys.exit(1)
    print(f"{args.set}: {count} images of {classes} classes, as dataset.json says")
