"""Random resized crops in training: which parts of an image are seen, how they are resized, and until when."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_train import PRESET, PRESETS
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import functional as vision

from hieramp.commands.main import main
from hieramp.data import batches
from hieramp.training import runs
from hieramp.training.augment import resized_boxes, resized_crops, side_to_crop_from
from hieramp.training.classifier import ClassifierObjective
from hieramp.training.loop import RunSettings


def test_boxes_are_resized_as_torchvision_does() -> None:
    """Reduced, enlarged, in one axis alone, at the border, one pixel: each against its crop by torchvision."""
    torch.manual_seed(0)
    boxes = [(0, 0, 23, 31), (3, 7, 12, 24), (20, 28, 3, 3), (5, 0, 16, 16), (1, 2, 1, 1), (0, 4, 23, 5)]
    images = torch.randint(0, 256, (len(boxes), 3, 23, 31), dtype=torch.uint8)
    at = torch.tensor(boxes, dtype=torch.float32)
    ours = resized_boxes(images, at[:, :2], at[:, 2:], 16)
    for image, box, found in zip(images, boxes, ours, strict=True):
        expected = vision.resized_crop(image.float(), *box, [16, 16], antialias=True)
        assert (found.float() - expected).abs().max() <= 0.51  # rounded, no more


def test_crops_are_random_parts_of_the_size_asked_for() -> None:
    """Images whose colours are their coordinates tell which part was taken."""
    side = side_to_crop_from(64, 0.5)
    assert side == 91 and side_to_crop_from(64, 1.0) == 64
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    images = torch.stack([rows, columns, rows]).to(torch.uint8).expand(400, -1, -1, -1)
    torch.manual_seed(1)
    crops = resized_crops(images, 64, 0.5)
    assert crops.shape == (400, 3, 64, 64) and crops.dtype == torch.uint8
    torch.manual_seed(1)
    assert torch.equal(crops, resized_crops(images, 64, 0.5))
    first, last = (crops[:, :2, edge, edge].float() for edge in (0, -1))
    lengths = (last - first + 1) * 64 / 63  # from the middles of the outermost pixels
    area, ratio = lengths.prod(1) / side**2, lengths[:, 1] / lengths[:, 0]
    assert area.min() > 0.45 and area.max() > 0.9 and 0.6 < area.mean() < 0.8
    assert 0.7 < ratio.min() < 0.85 and 1.18 < ratio.max() < 1.42
    assert first.min() <= 1 and first.max() > 15 and last.max() >= side - 2
    plain = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert resized_crops(plain, 16) is plain
    doubled = plain.repeat_interleave(2, -1).repeat_interleave(2, -2)
    expected = vision.resize(doubled.float(), [16, 16], antialias=True)
    assert (resized_crops(doubled, 16).float() - expected).abs().max() <= 0.51


def test_nothing_of_a_crop_waits_for_the_device() -> None:
    with FakeTensorMode():
        assert resized_crops(torch.zeros(4, 3, 12, 12, dtype=torch.uint8), 8, 0.5).shape == (4, 3, 8, 8)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_sees_crops_and_at_last_whole_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """Whole images come as they were decoded, all alike; crops differ from them."""
    shape = (60, 60)
    ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.stack([2 * ramp] * 3, -1).astype(np.uint8)).save(
                tmp_path / "images" / name / f"{number}.png"
            )
    if streamed:
        monkeypatch.setattr(batches, "CACHE_BYTES", 0)
    seen: list[Tensor] = []
    before = ClassifierObjective.forward

    def forward(objective: ClassifierObjective, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        seen.append(images.clone())
        return before(objective, images, labels)

    monkeypatch.setattr(ClassifierObjective, "forward", forward)
    recipe = replace(PRESET.classifier_recipe, batch_size=8, epochs=10, min_crop=0.4, shift_until=0.7)
    preset = replace(PRESET, classifier_recipe=recipe)
    runs.train_classifier(str(tmp_path / "images"), preset, RunSettings(tmp_path / "m", "classifier"))
    assert len(seen) == 10 and {images.shape for images in seen} == {(8, 3, 32, 32)}
    whole = seen[-1]
    assert all(torch.equal(image, whole[0]) for image in whole)
    assert [bool((images == whole).all()) for images in seen] == [False] * 7 + [True] * 3
    assert len({image.numpy().tobytes() for images in seen[:7] for image in images}) > 50


def test_the_presets_of_photographs_crop_and_the_command_says_how_much(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = ("vqvae_recipe", "var_recipe", "class_token_recipe", "classifier_recipe", "dit_recipe")
    for name, preset in PRESETS.items():
        crops = {getattr(preset, recipe).min_crop for recipe in recipes}
        assert crops == ({0.5} if name.startswith("photos64") else {1.0})
    read: list[int] = []
    decode = batches.decode
    monkeypatch.setattr(batches, "_LAST_DECODED", {})
    monkeypatch.setattr(batches, "decode", lambda source, size: read.append(size) or decode(source, size))
    common = ["train", "vqvae", "--preset", "tiny", "--data", str(image_folder), "--budget", "1s"]
    main([*common, "--min-crop", "0.25", "--out", str(tmp_path / "m")])
    assert read == [64]
    with pytest.raises(SystemExit):
        main([*common, "--min-crop", "0", "--out", str(tmp_path / "n")])
    assert "--min-crop is 0: give a share of the area above 0" in capsys.readouterr().err
