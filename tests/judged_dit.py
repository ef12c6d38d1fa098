"""A tiny diffusion transformer whose folder takes its classifier from the one beside it, as assets/cifar10-dit does."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from test_diffusion import build

from hieramp.checkpoints import save_part, write_config
from hieramp.classifier import Classifier
from hieramp.config import ClassifierConfig, to_json
from hieramp.diffusion.model import DiffusionModel

SIZES = ClassifierConfig(32, 4, (1, 1, 1, 1), (8, 8, 8, 8), "half")


def judged_dit(root: Path, known: Sequence[str] = tuple("dbca")) -> DiffusionModel:
    """The model in root/tiny-dit; `known` are the classes of the classifier in root/judge, in its own order."""
    model = replace(build(), folder=root / "tiny-dit")
    torch.manual_seed(0)
    save_part(root / "judge", "classifier", Classifier(SIZES).state_dict())
    write_config(root / "judge", classifier=to_json(SIZES), class_names=list(known))
    beside = {"classifier": "judge"}
    write_config(root / "tiny-dit", classifier=to_json(SIZES), class_names=list(model.class_names), parts_in=beside)
    return model
