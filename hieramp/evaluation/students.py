"""Networks to be trained on a set, and to label one: the protocol's ResNet-18, a ConvNet, and any of timm's.

Every network takes images in [0, 1], (B, 3, H, W), and normalises them itself by ImageNet's mean and deviation.
"""

import difflib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.checkpoints import load_strictly, read_safetensors, save_safetensors
from hieramp.classifier import Classifier
from hieramp.config import ClassifierConfig
from hieramp.errors import UserError
from hieramp.evaluation.protocols import SMALL_SIDE
from hieramp.imagenet import MEAN, STD

OWN = ("resnet18", "small", "convnet")
PREVIEW = ("small",)
METADATA_KEY = "hieramp"


class Normalized(nn.Module):
    """A network behind ImageNet's normalisation; images of another size are brought to `size` pixels a side first.

    `size` 0 leaves them as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, size: int = 0) -> None:
        super().__init__()
        self.network, self.size = network, size
        for name, values in {"mean": MEAN, "std": STD}.items():
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        size = (self.size, self.size)
        if self.size and images_BCHW.shape[-2:] != size:
            images_BCHW = F.interpolate(images_BCHW, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.network((images_BCHW - self.mean) / self.std)


def build_student(name: str, num_classes: int, image_size: int) -> nn.Module:
    """A network with fresh weights: resnet18, small (for previews), convnet, or a name of timm's.

    Raises:
        UserError: timm has no such network, or cannot build it at this size.
    """
    if name in ("resnet18", "small"):
        stem = "cifar" if image_size <= SMALL_SIDE else "imagenet"
        config = ClassifierConfig(image_size, num_classes, stem=stem)
        if name == "small":
            stem = "half" if image_size <= SMALL_SIDE else "imagenet"
            config = ClassifierConfig(image_size, num_classes, (1, 1, 1, 1), (32, 64, 128, 256), stem)
        return Classifier(config)
    if name == "convnet":
        return Normalized(ConvNet(num_classes, image_size), image_size)
    return Normalized(_from_timm(name, num_classes, image_size), image_size)


class ConvNet(nn.Sequential):
    """The ConvNet of the distillation papers: 3×3 convolution, batch norm, ReLU, average pooling, 128 wide.

    Three such blocks for 32 px, one more for each doubling, so that 4×4 features reach the last layer.
    """

    def __init__(self, num_classes: int, image_size: int, width: int = 128) -> None:
        depth = max(1, (image_size // 4).bit_length() - 1)
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Conv2d(width if i else 3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.AvgPool2d(2))
        side = image_size // 2**depth
        super().__init__(*layers, nn.Flatten(), nn.Linear(width * side * side, num_classes))


def _from_timm(name: str, num_classes: int, image_size: int) -> nn.Module:
    import timm  # takes seconds to load

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [*OWN, *timm.list_models()], n=3, cutoff=0.4)
        raise UserError(f"there is no network {name!r}; the nearest are: {', '.join(near or OWN)}")
    small = image_size <= SMALL_SIDE
    pretrained = timm.get_pretrained_cfg(name)
    sizes: dict[str, Any] = {}
    if pretrained and pretrained.fixed_input_size:  # transformers; their patches are as many as at 224 px or fewer
        sizes["img_size"] = image_size
        if small:
            sizes["patch_size"] = max(1, image_size // (16 if name.startswith("swin") else 8))
            if name.startswith("swin"):
                sizes["window_size"] = 4
    try:
        network = timm.create_model(name, pretrained=False, num_classes=num_classes, **sizes)
        if small and not sizes:
            _use_small_stem(network)
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, image_size, image_size))
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"{name} cannot be built for {image_size} px: {error}") from error
    return network.train()


def _use_small_stem(network: nn.Module) -> None:
    """No early downsampling: a ResNet's 3×3 stem without max-pool, elsewhere two strided convolutions fewer."""
    if {"conv1", "maxpool", "layer1"} <= {name for name, _ in network.named_children()}:
        first = network.get_submodule("conv1")
        if isinstance(first, nn.Conv2d):
            network.conv1 = nn.Conv2d(3, first.out_channels, 3, 1, padding=1, bias=False)
        else:  # a deep stem
            _loosen(first, 1)
        network.maxpool = nn.Identity()
    else:
        _loosen(network, 2)


def _loosen(network: nn.Module, count: int) -> None:
    """Take the stride from the first `count` strided convolutions."""
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for convolution in strided[:count]:
        convolution.stride = (1, 1)


def save_network(
    path: Path,
    network: nn.Module,
    name: str,
    class_names: tuple[str, ...],
    image_size: int,
    trained: dict[str, Any] | None = None,
) -> None:
    """Weights with what is needed to rebuild the network and to check its class order, and how it was trained."""
    about = {"network": name, "class_names": list(class_names), "image_size": image_size, "trained": trained}
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    save_safetensors(path, state, {METADATA_KEY: json.dumps(about)})


def how_trained(path: Path) -> dict[str, Any] | None:
    """What `save_network` was told of the training; None where there is no such file, or where it says nothing."""
    return (_about(path) or {}).get("trained") if path.is_file() else None


def is_saved_network(path: Path) -> bool:
    """Whether a file is one of `save_network`, and not somebody else's weights."""
    return path.suffix == ".safetensors" and path.is_file() and _about(path) is not None


def load_network(path: Path) -> tuple[nn.Module, str, tuple[str, ...]]:
    """A network of `save_network`; its name and class names.

    Raises:
        UserError: a damaged file, one that does not name its network, weights of another network.
    """
    about = _about(path)
    state = read_safetensors(path)
    if about is None:
        raise UserError(f"{path} does not name its network: give it as NAME={path}, such as resnet18={path}")
    name, names = about["network"], tuple(about["class_names"])
    network = build_student(name, len(names), about["image_size"])
    load_strictly(network, state, str(path))
    return network, name, names


def _about(path: Path) -> dict | None:
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a model folder with a classifier, or a .safetensors file")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or not a safetensors file: {error}") from error
    if not text:
        return None
    try:
        about = json.loads(text)
        if not {"network", "class_names", "image_size"} <= about.keys():
            raise UserError("it lacks the network, its classes or its size")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"what {path} says of itself is damaged: copy it again ({error})") from error
    return about
