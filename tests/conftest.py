"""Tiny models and images made on the spot: nothing here needs a download or a trained model."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hieramp
from hieramp.checkpoints import save_part, write_config
from hieramp.classifier import Classifier
from hieramp.config import ClassifierConfig, VARConfig, VQVAEConfig, to_json
from hieramp.var.class_tokens import is_class_token
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

SIDES = (1, 2, 3, 4, 6, 8)
CLASSES = ("airplane", "cat", "dog", "frog")
TINY_VQVAE = VQVAEConfig(
    sides=SIDES, num_codes=64, code_dim=8, channels=32, multipliers=(1, 1), num_res_blocks=1, patch=2
)
TINY_VAR = VARConfig(
    sides=SIDES,
    num_codes=64,
    code_dim=8,
    num_classes=len(CLASSES),
    depth=4,
    width=64,
    num_heads=2,
    class_token_scales=tuple(range(len(SIDES))),
)
# The headless shell is Chromium without windows: a page opens for half the computing.
CHROMIUM = next(filter(Path.exists, map(Path, ("/usr/bin/chromium-headless-shell", "/usr/bin/chromium"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-features=LocalNetworkAccessChecks"]


# Ray's workers ask for less of a processor than all else that runs, so beside other tests they would hardly get any.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build_model(var_config: VARConfig = TINY_VAR, seed: int = 0) -> hieramp.Model:
    """A random model whose logits are far enough apart to be worth sampling."""
    torch.manual_seed(seed)
    vqvae, var = VQVAE(TINY_VQVAE).eval(), VAR(var_config).eval()
    for name, parameter in var.named_parameters():
        if name.startswith(("head.", "cls_tokens", "class_emb")):
            parameter.data.normal_(std=0.5)
    return hieramp.Model(vqvae, var, CLASSES, name="tiny")


@pytest.fixture(scope="session")
def model() -> hieramp.Model:
    return build_model()


@pytest.fixture(scope="session")
def plain_model() -> hieramp.Model:
    """The same without class tokens."""
    return build_model(replace(TINY_VAR, class_token_scales=()))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, model: hieramp.Model) -> Path:
    """The tiny model as a folder that --model takes."""
    folder = tmp_path_factory.mktemp("tiny-model")
    save_part(folder, "vqvae", model.vqvae.state_dict())
    state = model.var.state_dict()
    save_part(folder, "var", {k: v for k, v in state.items() if not is_class_token(k)})
    save_part(folder, "class_tokens", {k: v for k, v in state.items() if is_class_token(k)})
    plain = replace(TINY_VAR, class_token_scales=())
    about = {"read_only": False, "condition": "dropped", "with_backbone": False}
    write_config(folder, vqvae=to_json(TINY_VQVAE), var=to_json(plain), class_tokens=about, class_names=list(CLASSES))
    return folder


@pytest.fixture(scope="session")
def judged_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a classifier beside it."""
    folder = tmp_path_factory.mktemp("judged") / "tiny"
    shutil.copytree(model_folder, folder)
    torch.manual_seed(0)
    config = ClassifierConfig(32, len(CLASSES), (1, 1, 1, 1), (8, 8, 8, 8), "half")
    save_part(folder, "classifier", Classifier(config).state_dict())
    write_config(folder, classifier=to_json(config))
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ with a folder of coloured 32×32 patterns for each of two classes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in {"train": 24, "test": 8}.items():
        for label, name in enumerate(("blue", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.repeat(np.repeat(rng.integers(0, 96, (4, 4, 3)), 8, 0), 8, 1).astype(np.uint8)
                pixels[..., 2 - 2 * label] += 150
                Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with pytest.MonkeyPatch.context() as patch, playwright.sync_playwright() as running:
        # by default it looks in every frame, and so asks for sixty a second
        patch.setattr(
            playwright.Page, "wait_for_function", partialmethod(playwright.Page.wait_for_function, polling=100)
        )
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
