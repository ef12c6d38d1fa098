"""The data sets of the papers by name: `--data imagewoof` finds a folder of that name, or the set on the Hub.

Where each comes from, and what it costs to use: docs/datasets.md.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDERS = "HIERAMP_DATA"  # environment variable: where folders of data sets lie; else ./data and here


@dataclass(frozen=True)
class KnownSet:
    """A data set that papers on distillation use."""

    title: str
    hub: str  # id on the Hugging Face Hub
    num_classes: int
    image_size: int  # that the papers work at, pixels
    preset: str  # for `train`
    folders: tuple[str, ...] = ()  # other names that its folder has
    wnids: tuple[str, ...] = ()  # its classes, where they are some of ImageNet's


KNOWN = {
    "cifar10": KnownSet("CIFAR-10", "uoft-cs/cifar10", 10, 32, "cifar10", ("CIFAR-10", "CIFAR10")),
    "cifar100": KnownSet("CIFAR-100", "uoft-cs/cifar100", 100, 32, "cifar10", ("CIFAR-100", "CIFAR100")),
    "tiny-imagenet": KnownSet(
        "Tiny-ImageNet",
        "zh-plus/tiny-imagenet",
        200,
        64,
        "photos64",
        ("tiny-imagenet-200", "tiny_imagenet", "tinyimagenet"),
    ),
    "imagenette": KnownSet(
        "Imagenette",
        "frgfm/imagenette",
        10,
        224,
        "photos64-small",
        ("imagenette2", "imagenette2-320", "imagenette2-160"),
        (
            *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
            *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
        ),
    ),
    "imagewoof": KnownSet(
        "ImageWoof",
        "frgfm/imagewoof",
        10,
        224,
        "photos64-small",
        ("imagewoof2", "imagewoof2-320", "imagewoof2-160"),
        (
            *("n02086240", "n02087394", "n02088364", "n02089973", "n02093754"),
            *("n02096294", "n02099601", "n02105641", "n02111889", "n02115641"),
        ),
    ),
    "imagenet": KnownSet(
        "ImageNet-1K", "ILSVRC/imagenet-1k", 1000, 224, "imagenet256", ("imagenet-1k", "imagenet1k", "ILSVRC2012")
    ),
}


def located(name: str) -> str:
    """The folder of a known data set, else its id on the Hub; any other name as it is.

    A folder is looked for in $HIERAMP_DATA, in ./data and here. What was found is printed once.
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
    print(
        f"{known.title}: no folder {name.lower()} in {', '.join(map(str, roots))}; {known.hub} of the Hub is taken "
        f"(set {FOLDERS} to the place of your data sets)",
        file=sys.stderr,
    )
    return f"hfds/{known.hub}"
