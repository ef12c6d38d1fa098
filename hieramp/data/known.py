"""The data sets of the papers by name: `--data imagewoof` finds a folder of that name, or the set on the Hub.

Where each comes from, how it is judged and what it costs to use: docs/datasets.md.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hieramp.class_names import keys_of
from hieramp.data.class_lists import CIFAR10, CIFAR100, IMAGENET100, IMAGENETTE, IMAGEWOOF, TINY_IMAGENET
from hieramp.errors import UserError
from hieramp.imagenet import WORDS

FOLDERS = "HIERAMP_DATA"  # environment variable: where folders of data sets lie; else ./data and here


@dataclass(frozen=True)
class KnownSet:
    """A data set that papers on distillation use."""

    title: str
    hub: str | None  # id on the Hugging Face Hub; None: not there in a form that is read here
    classes: tuple[str, ...]  # names or ImageNet ids, in the papers' order; labels follow the sorted folders
    image_size: int  # that the papers work at, pixels
    preset: str  # for `train`
    teacher: str  # the papers', which gives the soft labels
    teacher_accuracy: float | None  # % on its test images, as the RDED authors tell it
    folders: tuple[str, ...] = ()  # other names that its folder has


KNOWN = {
    "cifar10": KnownSet(
        "CIFAR-10", "uoft-cs/cifar10", tuple(CIFAR10.split()), 32, "cifar10", "resnet18", 93.86, ("CIFAR-10", "CIFAR10")
    ),
    "cifar100": KnownSet(
        "CIFAR-100",
        "uoft-cs/cifar100",
        tuple(CIFAR100.split()),
        32,
        "cifar10",
        "resnet18",
        72.27,
        ("CIFAR-100", "CIFAR100"),
    ),
    "tiny-imagenet": KnownSet(
        "Tiny-ImageNet",
        "zh-plus/tiny-imagenet",
        tuple(TINY_IMAGENET.split()),
        64,
        "photos64",
        "resnet18",
        61.98,
        ("tiny-imagenet-200", "tiny_imagenet", "tinyimagenet"),
    ),
    "imagenette": KnownSet(
        "Imagenette",
        "frgfm/imagenette",
        tuple(IMAGENETTE.split()),
        224,
        "photos64-small",
        "resnet18",
        90.0,
        ("imagenette2", "imagenette2-320", "imagenette2-160"),
    ),
    "imagewoof": KnownSet(
        "ImageWoof",
        "frgfm/imagewoof",
        tuple(IMAGEWOOF.split()),
        224,
        "photos64-small",
        "resnet18",
        75.0,
        ("imagewoof2", "imagewoof2-320", "imagewoof2-160"),
    ),
    "imagenet100": KnownSet(
        "ImageNet-100",
        None,
        tuple(IMAGENET100.split()),
        224,
        "imagenet256",
        "resnet18",
        83.4,
        ("imagenet-100", "ImageNet-100"),
    ),
    "imagenet": KnownSet(
        "ImageNet-1K",
        "ILSVRC/imagenet-1k",
        tuple(WORDS),
        224,
        "imagenet256",
        "timm/resnet18.tv_in1k",
        None,
        ("imagenet-1k", "imagenet1k", "ILSVRC2012"),
    ),
}


def located(name: str) -> str:
    """The folder of a known data set, else its id on the Hub; any other name as it is.

    A folder is looked for in $HIERAMP_DATA, in ./data and here. What was found is printed once.

    Raises:
        UserError: there is no such folder, and the set is not on the Hub.
    """
    known = KNOWN.get(name.lower())
    if known is None or Path(name).exists():
        return name
    roots = [Path(root) for root in (os.environ.get(FOLDERS), "data", ".") if root]
    for root in roots:
        for folder in (name.lower(), *known.folders):
            if (root / folder).is_dir():
                print(f"{known.title}: the folder {root / folder}", file=sys.stderr)
                return str(root / folder)
    missing = f"{known.title}: no folder {name.lower()} in {', '.join(map(str, roots))}"
    hint = f"set {FOLDERS} to the place of your data sets"
    if known.hub is None:
        raise UserError(
            f"{missing}, and it is not on the Hub; {hint}, with a folder for each of its {len(known.classes)} classes"
        )
    print(f"{missing}; {known.hub} of the Hub is taken ({hint})", file=sys.stderr)
    return f"hfds/{known.hub}"


def difference(name: str, class_names: Sequence[str]) -> str:
    """In what the classes of a folder or table differ from those of the data set that was asked for; "" where not."""
    known = KNOWN.get(name.lower())
    if known is None:
        return ""
    wanted, found = {key for key, _ in keys_of(known.classes)}, {key for key, _ in keys_of(class_names)}
    if wanted == found:
        return ""
    strange = next((each for each in class_names if keys_of([each])[0][0] not in wanted), None)
    count = f"{known.title} has {len(known.classes)} classes, of which {len(wanted & found)} are here"
    return count if strange is None else f"{count}; {strange!r} is none of them"
