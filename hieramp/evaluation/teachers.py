"""The teacher: whoever gives the soft labels, with the names of the classes it knows."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.checkpoints import fingerprint, load_strictly, model_folder, read_config
from hieramp.class_names import keys_of
from hieramp.classifier import load_classifier
from hieramp.errors import UserError
from hieramp.evaluation.students import Normalized, load_network
from hieramp.pickles import read_checkpoint, unwrapped

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Teacher:
    network: nn.Module  # images in [0, 1] to logits (B, K), in evaluation mode
    name: str
    class_names: tuple[str, ...]
    sha256: str

    def for_classes(self, class_names: Sequence[str], whose: str) -> "Teacher":
        """The same teacher with the logits of some of its classes alone, found by name or ImageNet id, in their order.

        It stays as it is where it knows none but these, or not all of them: `align_classes` tells what differs then.
        """
        ours, wanted = keys_of(self.class_names), keys_of(class_names)
        if len(wanted) >= len(ours) or not set(wanted) <= set(ours):
            return self
        columns = [ours.index(key) for key in wanted]
        print(
            f"the teacher {self.name} knows {len(ours)} classes; the {len(wanted)} of {whose} are taken by name "
            f"({class_names[0]} is its class {columns[0]})",
            file=sys.stderr,
        )
        return replace(self, network=Columns(self.network, columns).eval(), class_names=tuple(class_names))


class Columns(nn.Module):
    """Some of a network's logits."""

    columns: Tensor

    def __init__(self, network: nn.Module, columns: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.network(images_BCHW)[:, self.columns]


class Published(nn.Module):
    """A network of timm's with its own mean, deviation and input size."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        config = getattr(network, "pretrained_cfg", {})
        self.size = config.get("input_size", (3, 0, 0))[-1] if config.get("fixed_input_size") else 0
        for name, default in {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}.items():
            self.register_buffer(name, torch.tensor(config.get(name, default)).view(3, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        size = self.size
        if size and images_BCHW.shape[-1] != size:
            images_BCHW = F.interpolate(images_BCHW, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return self.network((images_BCHW - self.mean) / self.std)


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
    name, found, file = spec.partition("=")
    if spec.startswith("timm/"):
        network, name, class_names = _published(spec.removeprefix("timm/"))
    elif found and (not file.endswith(".safetensors") or _is_imagenets(Path(file))):
        network, name, class_names = _foreign(name, Path(file))
    elif found:
        network, name, class_names = load_network(Path(file), name)
    elif spec.endswith(".safetensors"):
        network, name, class_names = load_network(Path(spec))
    elif spec.endswith((".pth", ".pt", ".bin", ".tar")):
        raise UserError(f"{spec} does not name its network: give it as NAME={spec}, such as resnet18={spec}")
    else:
        folder = model_folder(spec)
        network = load_classifier(folder)
        name, class_names = folder.resolve().name, tuple(read_config(folder)["class_names"])
    network = network.eval().requires_grad_(False)
    return Teacher(network, name, class_names, fingerprint(network.state_dict()))


def _published(name: str) -> tuple[nn.Module, str, tuple[str, ...]]:
    if not timm.is_model(name):
        raise UserError(f"there is no network {name!r} in timm: see timm.list_models()")
    try:
        network = timm.create_model(name, pretrained=True)
    # whatever stands between here and the weights: no network, no such weights, a full disk
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"the weights of timm/{name} cannot be fetched ({reason}): give {name}=FILE instead") from error
    if network.num_classes != IMAGENET_CLASSES:
        raise UserError(
            f"timm/{name} knows {network.num_classes} classes whose names are not known here: give {name}=FILE, and "
            "the names as a list in FILE.json beside it"
        )
    return Published(network), name, _imagenet_names()


def _foreign(name: str, path: Path) -> tuple[nn.Module, str, tuple[str, ...]]:
    """Weights that other people's scripts saved: of timm's network, or of torchvision's, whose names are the same."""
    if not timm.is_model(name):
        raise UserError(f"there is no network {name!r} in timm: see timm.list_models()")
    state = unwrapped(read_checkpoint(path))
    names = _names_of(path, state)
    plain = timm.create_model(name, pretrained=False, num_classes=len(names))
    first = getattr(plain, "conv1", None)
    if isinstance(first, nn.Conv2d) and _has_small_stem(state):
        plain.conv1 = nn.Conv2d(3, first.out_channels, 3, 1, padding=1, bias=False)
        plain.maxpool = nn.Identity()
    load_strictly(plain, _with_counters(state, plain), f"{path} as {name}")
    return Normalized(plain), name, names


def _is_imagenets(path: Path) -> bool:
    """Whether weights have 1,000 classes, and nothing beside them says which."""
    if not path.is_file() or path.with_suffix(".json").is_file():
        return False
    return _width(unwrapped(read_checkpoint(path))) == IMAGENET_CLASSES


def _width(state: dict[str, Tensor]) -> int:
    """Number of classes: rows of the last weight matrix."""
    matrices = [value for key, value in state.items() if value.ndim in (2, 4) and key.endswith("weight")]
    return len(matrices[-1]) if matrices else 0


def _names_of(path: Path, state: dict[str, Tensor]) -> tuple[str, ...]:
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            names = json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{beside} is damaged: {error}") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{beside} must hold a list of class names in label order")
        return tuple(names)
    if _width(state) == IMAGENET_CLASSES:
        return _imagenet_names()
    raise UserError(
        f"{path} does not say which class is which: put the class names, in label order, as a list into {beside}"
    )


def _imagenet_names() -> tuple[str, ...]:
    info = ImageNetInfo()
    return tuple(info.label_name_to_description(wnid) for wnid in info.label_names())


def _has_small_stem(state: dict[str, Tensor]) -> bool:
    """Whether the weights are of a ResNet for 32 px, with a 3×3 first convolution: RDED's teachers are."""
    stem = state.get("conv1.weight")
    return stem is not None and stem.shape[-1] == 3


def _with_counters(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The weights with the counters of batch normalisation, which older files lack and nothing here reads."""
    own = network.state_dict()
    counters = {key: own[key] for key in own if key.endswith("num_batches_tracked") and key not in state}
    return {**state, **counters}
