"""The teacher: whoever gives the soft labels, with the names of the classes it knows."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hieramp.checkpoints import fingerprint, model_folder, read_config
from hieramp.classifier import load_classifier
from hieramp.evaluation.students import load_network


@dataclass(frozen=True)
class Teacher:
    network: nn.Module  # images in [0, 1] to logits (B, K), in evaluation mode
    name: str
    class_names: tuple[str, ...]
    sha256: str


def load_teacher(spec: str) -> Teacher:
    """A model with a classifier (by name or folder), a FILE.safetensors of ours, or NAME=FILE.safetensors for timm's.

    Raises:
        UserError: nothing of the kind is there, or its weights or class names do not fit.
    """
    name, found, file = spec.partition("=")
    if found:
        network, name, class_names = load_network(Path(file), name)
    elif spec.endswith(".safetensors"):
        network, name, class_names = load_network(Path(spec))
    else:
        folder = model_folder(spec)
        network = load_classifier(folder)
        name, class_names = folder.resolve().name, tuple(read_config(folder)["class_names"])
    network = network.eval().requires_grad_(False)
    return Teacher(network, name, class_names, fingerprint(network.state_dict()))
