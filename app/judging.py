"""The classifier that comes with a model, as the page asks it: pictures in, probabilities out."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from app.recipes import has_classifier
from hieramp import Model
from hieramp.checkpoints import read_config
from hieramp.classifier import Classifier, in_order, load_classifier

Judge = Callable[[Tensor], Tensor]  # images (B, 3, H, W) in [0, 1] → probabilities (B, K) on the CPU


def classifier_of(model: Model) -> Classifier | None:
    """The classifier in the model's folder, its logits in the order of the model's classes; None without one."""
    if model.folder is None or not has_classifier(model):
        return None
    return _loaded(model.folder, tuple(model.class_names), str(model.device))


@lru_cache(maxsize=4)
def _loaded(folder: Path, names: tuple[str, ...], device: str) -> Classifier:
    return in_order(load_classifier(folder), read_config(folder)["class_names"], names, str(folder)).to(device)


def judge_of(model: Model) -> Judge | None:
    """What the classifier of a model makes of pictures."""
    classifier = classifier_of(model)
    if classifier is None:
        return None

    @torch.no_grad()
    def judge(images_BCHW: Tensor) -> Tensor:
        return classifier(images_BCHW.to(classifier.mean.device).float()).softmax(-1).cpu()

    return judge
