"""The classifier that judges images: timm's ResNet with the stem of the student protocol.

Images come in [0, 1], (B, 3, H, W); ImageNet mean and standard deviation even on CIFAR (docs/protocols.md).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.checkpoints import built, has_part, home_of, load_part, read_config
from hieramp.class_names import ids_of, keys_of_both
from hieramp.config import ClassifierConfig, from_json
from hieramp.errors import UserError
from hieramp.imagenet import MEAN, STD

PART = "classifier"  # of a model folder


class Classifier(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        from timm.models.resnet import BasicBlock, ResNet  # takes seconds to load, and not all who draw need it

        super().__init__()
        self.config = config
        # timm's annotations ask for an instance of the block
        block: Any = BasicBlock
        network: Any = ResNet(
            block, config.layers, num_classes=config.num_classes, channels=config.channels, zero_init_last=False
        )
        if config.stem != "imagenet":
            stride = 2 if config.stem == "half" else 1
            network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, stride, padding=1, bias=False)
            network.maxpool = nn.Identity()
        _drop_idle_strides(network, config)
        self.network = network
        for name, values in {"mean": MEAN, "std": STD}.items():
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def features(self, images_BCHW: Tensor) -> Tensor:
        """Pooled features before the last layer, (B, F)."""
        x = (self._resized(images_BCHW) - self.mean) / self.std
        return self.network.forward_head(self.network.forward_features(x), pre_logits=True)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Class logits, (B, K)."""
        return self.network.fc(self.features(images_BCHW))

    def _resized(self, images_BCHW: Tensor) -> Tensor:
        size = self.config.image_size
        if images_BCHW.shape[-2:] == (size, size):
            return images_BCHW
        return F.interpolate(images_BCHW, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _drop_idle_strides(network: nn.Module, config: ClassifierConfig) -> None:
    """A stride means nothing where the map is down to one pixel: the same values without it.

    oneDNN's bfloat16 gradient of a strided 3×3 convolution of one pixel reads memory that nobody wrote (torch 2.14).
    """
    side = -(-config.image_size // {"cifar": 1, "half": 2, "imagenet": 4}[config.stem])
    for stage in ("layer2", "layer3", "layer4"):
        if side == 1:
            for module in network.get_submodule(stage).modules():
                if isinstance(module, nn.Conv2d):
                    module.stride = (1, 1)
        side = -(-side // 2)


def has_classifier(folder: Path) -> bool:
    """Whether a model folder has a classifier of its classes: its own, or that of the folder which it takes one from.

    Raises:
        UserError: a config.json is damaged.
    """
    if not has_part(folder, PART):
        return False
    config = read_config(folder)
    ours, theirs = keys_of_both(ids_of(config), ids_of(read_config(home_of(folder, PART))))
    return PART in config and set(ours) == set(theirs)


def load_classifier(folder: Path) -> Classifier:
    """The classifier of a model folder, in evaluation mode, its classes in the order of the folder's.

    Raises:
        UserError: the folder has none, its weights do not fit its config, or the folder that it is taken from has other
            classes.
    """
    config = read_config(folder)
    if PART not in config:
        raise UserError(f"{folder} has no classifier: run python -m hieramp train classifier --out {folder} first")
    sizes, weights = from_json(ClassifierConfig, config[PART]), load_part(folder, PART)
    found = built(lambda: Classifier(sizes), weights, str(folder / "classifier.safetensors")).eval()
    home = home_of(folder, PART)
    return found if home == folder else in_order(found, ids_of(read_config(home)), ids_of(config), str(home))


def load_classifier_for(folder: Path, class_ids: Sequence[str], device: torch.device) -> Classifier:
    """The classifier of a folder for a model that has classes of these names or ids: in their order, on its device.

    Raises:
        UserError: the folder has none, or it knows other classes.
    """
    found = load_classifier(folder)
    return in_order(found, ids_of(read_config(folder)), class_ids, str(folder)).to(device)


def in_order(classifier: Classifier, names: Sequence[str], wanted: Sequence[str], whose: str) -> Classifier:
    """The classifier with its logits in the order of `wanted`; `names` are its classes in its own order.

    Raises:
        UserError: they are not the same classes; names one that differs.
    """
    ours, theirs = keys_of_both(names, wanted)
    if len(ours) != len(theirs):
        raise UserError(f"the classifier in {whose} knows {len(ours)} classes, the images have {len(theirs)}")
    for name, key in zip(wanted, theirs, strict=True):
        if key not in ours:
            raise UserError(f"the classifier in {whose} does not know {name!r}; it knows {', '.join(names[:10])}")
    if ours != theirs:
        last, rows = classifier.network.fc, [ours.index(key) for key in theirs]
        last.weight.data, last.bias.data = last.weight.data[rows], last.bias.data[rows]
    return classifier
