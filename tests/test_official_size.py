"""The official geometry without the official weights. Slow, and so not run by itself: `python -m pytest -m slow`."""

import json
from pathlib import Path

import pytest

import hieramp
from benchmarks.official_size import CLASSES, SIZE, TEST_IMAGES, whole_way
from hieramp.checkpoints import read_safetensors


@pytest.mark.slow  # 1.7 GB of weights, two images of 2.6 TFLOP a class
def test_a_var_d16_draws_is_labelled_and_evaluated(tmp_path: Path) -> None:
    steps = whole_way(tmp_path)
    assert [step.command for step in steps] == ["distill", "relabel", "evaluate"]
    with hieramp.open_set(tmp_path / "set.zip") as made:
        assert made.image_size == SIZE and len(made) == len(CLASSES)
        assert made.class_names[made.labels[0]].startswith("Shih-Tzu")
    labels = [read_safetensors(tmp_path / "labels" / f"epoch-{epoch:04d}.safetensors") for epoch in (0, 1)]
    assert all(epoch["logits"].shape == (len(CLASSES), len(CLASSES)) for epoch in labels)  # of 1,000
    result = json.loads((tmp_path / "result" / "result.json").read_text())
    assert result["test"]["images"] == len(CLASSES) * TEST_IMAGES and len(result["runs"]) == 1
    assert all(step.peak > 2**28 for step in steps) and steps[0].peak > 1.7e9  # the weights at least
