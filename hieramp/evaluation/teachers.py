"""The teacher: whoever gives the soft labels, with the names of the classes it knows."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hieramp.checkpoints import fingerprint, load_strictly, model_folder, read_config
from hieramp.class_names import keys_of_both
from hieramp.classifier import load_classifier
from hieramp.errors import UserError
from hieramp.evaluation.images import LabeledImages, align_classes
from hieramp.evaluation.students import is_saved_network, load_network
from hieramp.imagenet import WORDS
from hieramp.pickles import read_checkpoint, unwrapped
from hieramp.published import (
    IMAGENET_CLASSES,
    Published,
    check_name,
    fetch_network,
    fitted,
    own_size,
    plain_network,
    width_of,
)


@dataclass(frozen=True)
class Teacher:
    network: nn.Module  # images in [0, 1] to logits (B, K), in evaluation mode
    name: str
    class_names: tuple[str, ...]
    sha256: str
    wnids: tuple[str, ...] = ()  # of its classes, where all have an ImageNet id

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The ImageNet ids of its classes, or their names where they have none."""
        if self.wnids or self.class_names != _imagenet_names():
            return self.wnids or self.class_names
        return tuple(WORDS)

    def for_classes(self, class_names: Sequence[str], whose: str, wnids: Sequence[str] = ()) -> "Teacher":
        """The same teacher with the logits of some of its classes alone, found by name or ImageNet id, in their order.

        `wnids` are the ImageNet ids of the set's classes, where it has some: they tell the two cranes and the two
        maillots apart, which have one name. The teacher stays as it is where it knows none but these, or not all of
        them: `align_classes` tells what differs then.
        """
        ours, wanted = keys_of_both(self.class_ids, wnids or class_names)
        if len(wanted) >= len(ours) or not set(wanted) <= set(ours):
            return self
        columns = [ours.index(key) for key in wanted]
        print(
            f"the teacher {self.name} knows {len(ours)} classes; the {len(wanted)} of {whose} are taken by name "
            f"({class_names[0]} is its class {columns[0]})",
            file=sys.stderr,
        )
        network = Columns(self.network, columns).eval()
        return replace(self, network=network, class_names=tuple(class_names), wnids=tuple(wnids))


def taught(held: LabeledImages, teacher: Teacher) -> tuple[LabeledImages, Teacher]:
    """A set and its teacher, with the same classes in the same order: those of the set, or those that both know.

    Raises:
        UserError: a class of the set is not among the teacher's.
    """
    teacher = teacher.for_classes(held.class_names, held.name, held.wnids)
    return align_classes(held, teacher.class_names, f"the teacher {teacher.name}", teacher.wnids), teacher


def is_blind(accuracy: float, num_classes: int) -> bool:
    """Whether a teacher does little better than chance: under twice that, or of few classes a ninth of what is left."""
    chance = 1 / num_classes
    return accuracy < min(2 * chance, chance + (1 - chance) / 9)


class Columns(nn.Module):
    """Some of a network's logits."""

    columns: Tensor

    def __init__(self, network: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.network(images_BCHW)[:, self.columns]


def load_teacher(spec: str) -> Teacher:
    """A classifier that gives soft labels, by one of

    - a model with a classifier: the name of one that ships, or a model folder;
    - FILE.safetensors that `evaluate --save` wrote;
    - NAME=FILE (.safetensors, .pth, .pt, .bin): foreign weights of the timm network NAME;
    - timm/NAME: a network of timm's with the weights that are published for it, fetched from the Hub.

    Foreign weights say which class is which in a list, FILE.json beside FILE; without one, 1,000 classes are
    ImageNet's.

    Raises:
        UserError: nothing of the kind is there, or its weights or class names do not fit.
    """
    if not spec.strip():
        raise UserError("the teacher is empty: give a model with a classifier, NAME=FILE or timm/NAME (docs/data.md)")
    name, found, file = spec.partition("=")
    wnids: tuple[str, ...] = ()
    if spec.startswith("timm/"):
        network, name, class_names = _published(spec.removeprefix("timm/"))
    elif found and not is_saved_network(Path(file)):
        network, name, class_names = _foreign(name, Path(file))
    elif found or spec.endswith(".safetensors"):
        network, name, class_names = load_network(Path(file or spec))
    elif spec.endswith((".pth", ".pt", ".bin", ".tar")):
        raise UserError(f"{spec} does not name its network: give it as NAME={spec}, such as resnet18={spec}")
    else:
        folder = model_folder(spec)
        network = load_classifier(folder)
        config = read_config(folder)
        name, class_names, wnids = folder.resolve().name, tuple(config["class_names"]), tuple(config.get("wnids", ()))
    network = network.eval().requires_grad_(False)
    return Teacher(network, name, class_names, fingerprint(network.state_dict()), wnids)


def _published(name: str) -> tuple[nn.Module, str, tuple[str, ...]]:
    network = fetch_network(name)
    if network.num_classes != IMAGENET_CLASSES:
        raise UserError(
            f"timm/{name} knows {network.num_classes} classes whose names are not known here: give {name}=FILE, and "
            "the names as a list in FILE.json beside it"
        )
    return Published(network, own_size(network)), name, _imagenet_names()


def _foreign(name: str, path: Path) -> tuple[nn.Module, str, tuple[str, ...]]:
    """Weights that other people's scripts saved: of timm's network, or of torchvision's, whose names are the same.

    Those of ImageNet's 1,000 classes see images at the size that the network was made for; others, whose training is
    not known here, at the size that the images have.
    """
    check_name(name)
    state = unwrapped(read_checkpoint(path))
    names = _names_of(path, state, name)
    plain = plain_network(name, len(names))
    first = getattr(plain, "conv1", None)
    small = isinstance(first, nn.Conv2d) and _has_small_stem(state)
    if isinstance(first, nn.Conv2d) and small:
        plain.conv1 = nn.Conv2d(3, first.out_channels, 3, 1, padding=1, bias=False)
        plain.maxpool = nn.Identity()
    load_strictly(plain, fitted(state, plain, path, name), f"{path} as {name}")
    size = own_size(plain, even_if_free=len(names) == IMAGENET_CLASSES and not small)
    return Published(plain, size), name, names


def _names_of(path: Path, state: dict[str, Tensor], network: str) -> tuple[str, ...]:
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            names = json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{beside} is damaged: {error}") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{beside} must hold a list of class names in label order")
        return tuple(names)
    if width_of(state, network) == IMAGENET_CLASSES:
        return _imagenet_names()
    raise UserError(
        f"{path} does not say which class is which: put the class names, in label order, as a list into {beside}"
    )


def _imagenet_names() -> tuple[str, ...]:
    return tuple(WORDS.values())


def _has_small_stem(state: dict[str, Tensor]) -> bool:
    """Whether the weights are of a ResNet for 32 px, with a 3×3 first convolution: RDED's teachers are."""
    stem = state.get("conv1.weight")
    return stem is not None and stem.shape[-1] == 3
