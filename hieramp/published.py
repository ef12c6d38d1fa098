"""Networks of timm's with their weights, from the Hub or from a file, and with the images that they expect."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.checkpoints import load_strictly
from hieramp.errors import UserError
from hieramp.imagenet import MEAN, STD
from hieramp.pickles import read_checkpoint, unwrapped

IMAGENET_CLASSES = 1000
COUNTER = "num_batches_tracked"  # of batch normalisation; nothing here reads it


class Published(nn.Module):
    """A network of timm's with its own mean and deviation; images in [0, 1], (B, 3, H, W).

    `size` is the side, in pixels, that images are resized to; 0 leaves them as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, size: int = 0) -> None:
        super().__init__()
        self.network, self.size = network, size
        config = getattr(network, "pretrained_cfg", {})
        for name, default in {"mean": MEAN, "std": STD}.items():
            self.register_buffer(name, torch.tensor(config.get(name, default)).view(3, 1, 1), persistent=False)

    def prepared(self, images_BCHW: Tensor) -> Tensor:
        """Resized and normalised."""
        size = self.size
        if size and images_BCHW.shape[-2:] != (size, size):
            images_BCHW = F.interpolate(images_BCHW, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return (images_BCHW - self.mean) / self.std

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.network(self.prepared(images_BCHW))


def own_size(network: nn.Module, even_if_free: bool = True) -> int:
    """The side that a timm network was made for; 0 where it is unknown, or free and `even_if_free` is not set."""
    config = getattr(network, "pretrained_cfg", {})
    if not even_if_free and not config.get("fixed_input_size"):
        return 0
    return int(config.get("input_size", (3, 0, 0))[-1])


def check_name(name: str) -> None:
    """Raise UserError where timm has no such network."""
    import timm  # takes seconds to load

    if not timm.is_model(name):
        raise UserError(f"there is no network {name!r} in timm: see timm.list_models()")


def plain_network(name: str, num_classes: int) -> nn.Module:
    """timm's network `name` as timm makes it, with fresh weights.

    Raises:
        UserError: there is no such network.
    """
    import timm

    check_name(name)
    return timm.create_model(name, pretrained=False, num_classes=num_classes)


def fetch_network(name: str) -> nn.Module:
    """timm's network `name` with the weights that are published for it.

    Raises:
        UserError: there is no such network, or its weights cannot be fetched.
    """
    import timm

    check_name(name)
    try:
        return timm.create_model(name, pretrained=True)
    # whatever stands between here and the weights: no network, no such weights, a full disk
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"the weights of timm/{name} cannot be fetched ({reason}): give {name}=FILE instead") from error


def read_network(name: str, path: Path) -> nn.Module:
    """timm's network `name` with the weights in a file, and as many outputs as they have.

    Raises:
        UserError: there is no such network, no such file, or it holds the weights of another network.
    """
    check_name(name)
    state = unwrapped(read_checkpoint(path))
    network = plain_network(name, width_of(state, name))
    load_strictly(network, fitted(state, network, path, name), f"{path} as {name}")
    return network


def width_of(state: dict[str, Tensor], name: str) -> int:
    """Number of classes: rows of the classifier of timm's network `name`, or of the last matrix where there is none.

    A safetensors file keeps no order: the last matrix of it may be any.
    """
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifier = config.classifier if config else None
    for layer in [classifier] if isinstance(classifier, str) else classifier or ():
        if f"{layer}.weight" in state:
            return len(state[f"{layer}.weight"])
    matrices = [value for key, value in state.items() if value.ndim in (2, 4) and key.endswith("weight")]
    return len(matrices[-1]) if matrices else 0


def fitted(state: dict[str, Tensor], network: nn.Module, path: Path, name: str) -> dict[str, Tensor]:
    """Weights by the names that timm's network has for them.

    Counters that older files lack are added. Where names differ and all tensors have the shapes of timm's in timm's
    order, they are taken by their order, which is told: ports of one network to PyTorch differ in names alone.
    """
    own = network.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith(COUNTER)}
    wanted = [key for key in own if key not in counters]
    given = [key for key in state if not key.endswith(COUNTER)]
    same_shapes = [own[key].shape for key in wanted] == [state[key].shape for key in given]
    if set(given) & set(wanted) or not same_shapes:
        return {**{key: value for key, value in counters.items() if key not in state}, **state}
    print(
        f"{path}: its {len(given)} tensors are called otherwise than in timm's {name}; they have the same shapes in "
        f"the same order, and are taken in that order ({given[0]} is {wanted[0]})",
        file=sys.stderr,
    )
    return counters | {mine: state[theirs] for mine, theirs in zip(wanted, given, strict=True)}
