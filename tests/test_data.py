"""Reading images: folders, tars, and what is wrong with them."""

import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hieramp import data
from hieramp.data import EndlessBatches, decode, endless_loader, open_source, to_signed, to_square


def test_a_folder_and_its_tar_are_the_same(image_folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(image_folder / "train", arcname=".")
    folder, packed = open_source(str(image_folder)), open_source(str(tmp_path / "set.tar"))
    assert folder.class_names == packed.class_names == ("blue", "red") and len(folder) == len(packed) == 48
    one, other = decode(folder, 32), decode(packed, 32)
    assert sorted(map(bytes, one.images.numpy())) == sorted(map(bytes, other.images.numpy()))


def test_a_broken_image_is_skipped_and_named(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.png").write_bytes((image_folder / "train" / "red" / f"00{i}.png").read_bytes())
    (tmp_path / "b" / "0.png").write_bytes(b"not an image")
    (tmp_path / "b" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:60])
    decoded = decode(open_source(str(tmp_path)), 32)
    assert decoded.labels.tolist() == [0, 0]
    assert capsys.readouterr().err.count("skipped b/") == 2


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        open_source(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no images"):
        open_source(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"not a folder or a \.tar"):
        open_source(str(tmp_path / "notes.txt"))
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(ValueError, match="no class sub-folders"):
        open_source(str(tmp_path))
    (tmp_path / "c").mkdir()
    (tmp_path / "loose.png").rename(tmp_path / "c" / "x.png")
    (tmp_path / "c" / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="not one of the 1 images"):
        decode(open_source(str(tmp_path)), 8)


def test_images_become_square() -> None:
    wide = Image.fromarray(np.full((20, 50, 4), 200, np.uint8))
    assert to_square(wide, 8).size == (8, 8) and to_square(wide, 8).mode == "RGB"
    assert to_square(Image.new("L", (3, 100)), 16).size == (16, 16)


def test_batches_are_epochs_and_can_start_anywhere() -> None:
    first = list(islice(EndlessBatches(10, 4, seed=1), 10))
    assert sorted([*first[0], *first[1], *first[2][:2]]) == list(range(10))
    assert list(islice(EndlessBatches(10, 4, seed=1, start=3), 7)) == first[3:]
    assert first != list(islice(EndlessBatches(10, 4, seed=2), 10))
    assert [len(b) for b in islice(EndlessBatches(3, 8, seed=0), 4)] == [8] * 4


def test_large_sets_are_streamed_with_a_random_crop(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hieramp.data.CACHE_BYTES", 0)
    images, labels = next(iter(endless_loader(open_source(str(image_folder)), 24, 6, 0, 0, torch.device("cpu"))))
    assert images.shape == (6, 3, 24, 24) and images.dtype == torch.uint8 and labels.shape == (6,)
    assert to_signed(images).min() >= -1 and to_signed(images).max() <= 1


def test_a_decoded_set_lies_where_it_is_trained_on(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU; the images are those of a loader that leaves them where they are."""
    monkeypatch.setattr(data, "_is_small_on", lambda *_: True)
    source = open_source(str(image_folder))
    there, labels = next(iter(endless_loader(source, 24, 6, 0, 0, torch.device("meta"))))
    assert there.is_meta and labels.is_meta and there.shape == (6, 3, 24, 24)
    here = decode(source, 24)
    moved = here.to(torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(here.__getitems__([3, 1]), moved.__getitems__([3, 1]), strict=True))
