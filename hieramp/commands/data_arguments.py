"""Arguments of every command that reads images of the user's: which split of --data, and which columns of a table."""

import argparse
from pathlib import Path

from hieramp.data import DataSpec, what_is_missing
from hieramp.errors import UserError


def add_data_arguments(parser: argparse.ArgumentParser, split: bool = True, option: str = "--data") -> None:
    """Add --image-column, --label-column and, where one split is read, --split, to read `option` by."""
    group = parser.add_argument_group(f"of {option} (docs/data.md)")
    if split:
        group.add_argument("--split", metavar="NAME", help="the split to take (default: found by its name)")
    group.add_argument("--image-column", metavar="NAME", help="of a Hugging Face data set (default: the one of images)")
    group.add_argument("--label-column", metavar="NAME", help="of a Hugging Face data set (default: the class label)")


def place(text: str) -> str:
    """A place of images: one that is not there is told before anything else is asked for."""
    if said := what_is_missing(text):
        raise argparse.ArgumentTypeError(said)
    return text


def refuse_missing(path: str) -> None:
    """The same for a set, when the command runs: `compare` has its line parsed before the set is made.

    Raises:
        UserError: it is not there.
    """
    if said := what_is_missing(path):
        raise UserError(said)


def data_spec(args: argparse.Namespace, *models: Path | None) -> DataSpec:
    """--data with what was said about it; labels in the order of the first model folder that has these classes."""
    found = tuple(model for model in models if model is not None)
    return DataSpec(args.data, getattr(args, "split", None), args.image_column, args.label_column, found)
