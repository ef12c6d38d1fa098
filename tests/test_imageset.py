"""Reading sets that something happened to: each damage is found, and nothing leads out of the folder."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hieramp
from hieramp.commands.main import main
from hieramp.errors import printable
from hieramp.imageset.verify import problems

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def whole(model: hieramp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "set.zip"
    for _ in hieramp.distill(model, 2, out):
        pass
    return out


def rewritten(whole: Path, out: Path, change: Callable[[Files], object]) -> Path:
    with zipfile.ZipFile(whole) as file:
        files = {name: file.read(name) for name in file.namelist()}
    change(files)
    with zipfile.ZipFile(out, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return out


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Files], None]:
    def on_files(files: Files) -> None:
        values = json.loads(files["dataset.json"])
        change(values)
        files["dataset.json"] = json.dumps(values).encode()

    return on_files


FIRST = "train/00000/00000.png"
SECOND = "train/00000/00001.png"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.update({FIRST: f[FIRST][:-1] + b"\0"}), "is not the file whose SHA-256"),
        (lambda f: f.update({FIRST: f[SECOND]}), f"{FIRST} in"),
        (lambda f: f.pop(FIRST), f"lacks {FIRST}"),
        (lambda f: f.update({"train/00000/extra.png": b"x"}), "extra.png is not listed"),
        (lambda f: f.update({"train/metadata.csv": f["train/metadata.csv"].replace(b"cat", b"dog")}), "metadata.csv"),
        (manifest(lambda m: m["images"].pop()), "class 3 has 1 images; the settings say 2"),
        (manifest(lambda m: m["images"][0].update(label=1)), "has the label 1, whose folder is 00001"),
        (manifest(lambda m: m["images"].reverse()), "not in class order"),
        (manifest(lambda m: m["class_folders"].reverse()), "not in label order"),
        (manifest(lambda m: m.update(image_size=64)), "32×32 pixels; dataset.json says 64"),
        (manifest(lambda m: m["settings"].update(classes=[0, 1, 2])), "class 3 has images, but is not among"),
    ],
)
def test_verify_finds(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Files], object], said: str
) -> None:
    path = rewritten(whole, tmp_path / "set.zip", change)
    with hieramp.open_set(path) as image_set:
        assert any(said in problem for problem in problems(image_set)), list(problems(image_set))
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(path)])
    assert ended.value.code == 1 and "wrong: " in capsys.readouterr().out


def test_a_whole_set_has_no_problem(whole: Path) -> None:
    with hieramp.open_set(whole) as image_set:
        assert list(problems(image_set)) == [] and len(image_set) == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.update({"../outside.png": b"x"}), "could lead out"),
        (lambda f: f.update({"/etc/outside.png": b"x"}), "could lead out"),
        (lambda f: f.update({"train/../../outside.png": b"x"}), "could lead out"),
        (lambda f: f.update({"C:\\outside.png": b"x"}), "could lead out"),
        (lambda f: f.pop("dataset.json"), "no dataset.json"),
        (lambda f: f.update({"dataset.json": b"{"}), "is damaged"),
        (lambda f: f.update({"dataset.json": b"[]"}), "not a set of this version"),
        (manifest(lambda m: m.update(format=99)), "not a set of this version"),
        (manifest(lambda m: m["images"][0].update(file="../x.png")), "could lead out"),
        (manifest(lambda m: m["images"][0].update(file=SECOND)), "twice"),
        (manifest(lambda m: m["images"][0].update(label=7)), "label 7"),
        (manifest(lambda m: m["images"][0].update(label="0")), "label '0'"),
        (manifest(lambda m: m["images"][0].pop("sha256")), "is damaged"),
        (manifest(lambda m: m.pop("class_folders")), "is damaged"),
        (manifest(lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}})), "could lead out"),
    ],
)
def test_unsafe_or_damaged_sets_are_refused(
    whole: Path, tmp_path: Path, change: Callable[[Files], object], said: str
) -> None:
    path = rewritten(whole, tmp_path / "set.zip", change)
    with pytest.raises(ValueError, match=said):
        hieramp.open_set(path)


def test_a_name_twice_is_refused(whole: Path, tmp_path: Path) -> None:
    path = rewritten(whole, tmp_path / "set.zip", lambda _: None)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(FIRST, b"another")
    with pytest.raises(ValueError, match="twice"):
        hieramp.open_set(path)


def test_more_data_than_declared_is_refused(whole: Path, tmp_path: Path) -> None:
    path = rewritten(whole, tmp_path / "set.zip", lambda f: f.update({FIRST: f[FIRST] + bytes(10**6)}))
    with hieramp.open_set(path) as image_set, pytest.raises(ValueError, match="another size than its"):
        image_set.image(0)


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PK" * 99])
def test_truncated_zips_are_refused(whole: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "set.zip").write_bytes(damage(whole.read_bytes()))
    with pytest.raises(ValueError, match="truncated or no zip"):
        hieramp.open_set(tmp_path / "set.zip")


def test_unsafe_shards_are_refused(model: hieramp.Model, tmp_path: Path) -> None:
    for _ in hieramp.distill(model, 1, tmp_path / "set", format="webdataset"):
        pass
    shard = tmp_path / "set" / "train-000000.tar"
    with tarfile.open(shard, "a") as tar:
        entry = tarfile.TarInfo("../../outside.png")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(ValueError, match="could lead out"):
        hieramp.open_set(tmp_path / "set")
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(ValueError, match="truncated|lacks"), hieramp.open_set(tmp_path / "set") as image_set:
        image_set.image(3)


def test_a_folder_does_not_follow_links(whole: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(whole, tmp_path / "set")
    (tmp_path / "set" / FIRST).unlink()
    (tmp_path / "set" / FIRST).symlink_to("/etc/hostname")
    with hieramp.open_set(tmp_path / "set") as image_set, pytest.raises(ValueError, match=f"lacks {FIRST}"):
        image_set.image(0)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        hieramp.open_set(tmp_path / "no.zip")
    with pytest.raises(ValueError, match=r"no dataset.json"):
        hieramp.open_set(tmp_path)


# What strangers send


def shards(model: hieramp.Model, out: Path, change: Callable[[Files], object]) -> Path:
    """A webdataset whose shard was written anew."""
    for _ in hieramp.distill(model, 1, out, format="webdataset"):
        pass
    shard = out / "train-000000.tar"
    with tarfile.open(shard) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    change(files)
    with tarfile.open(shard, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out


LABEL = "train/00001/00000.cls"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.update({LABEL: b"9"}), f"{LABEL} does not say 1"),
        (lambda f: f.update({LABEL: b"#!/bin/sh" * 99}), f"{LABEL} does not say 1"),
        (lambda f: f.update({LABEL: b"1".ljust(99)}), f"{LABEL} does not say 1"),  # not read at all: it is too long
        (lambda f: f.pop(LABEL), f"{LABEL} is missing"),
        (lambda f: f.update({"train/00000/payload.cls": b"0"}), "payload.cls is not listed"),
    ],
)
def test_labels_of_shards_are_looked_at(
    model: hieramp.Model, tmp_path: Path, change: Callable[[Files], object], said: str
) -> None:
    with hieramp.open_set(shards(model, tmp_path / "set", change)) as image_set:
        assert any(said in problem for problem in problems(image_set)), list(problems(image_set))


def test_a_label_file_in_a_folder_is_too_much(whole: Path, tmp_path: Path) -> None:
    path = rewritten(whole, tmp_path / "set.zip", lambda f: f.update({"train/00000/payload.cls": b"x"}))
    with hieramp.open_set(path) as image_set:
        assert list(problems(image_set)) == ["train/00000/payload.cls is not listed in dataset.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("settings"),
        lambda m: m.update(settings=[]),
        lambda m: m["settings"].update(ipc="2"),
        lambda m: m["settings"].update(ipc=10**9),
        lambda m: m["settings"].update(classes={"0": 1}),
        lambda m: m["settings"].update(classes=["cat"]),
        lambda m: m["settings"].update(classes=[99]),
        lambda m: m.pop("image_size"),
        lambda m: m.update(image_size="32"),
        lambda m: m.update(image_size=10**9),
        lambda m: m.update(class_names=[1, 2, 3, 4]),
        lambda m: m.update(class_names=None),
        lambda m: m.update(class_folders="abcd"),
        lambda m: m.update(storage="floppy"),
        lambda m: m.update(images={}),
        lambda m: m.update(images=[[]]),
        lambda m: m.update(files=[]),
        lambda m: m["images"][0].update(file="a.png"),
        lambda m: m["images"][0].update(file="train/00000/run.sh"),
        lambda m: m["images"][0].update(sha256="0"),
        lambda m: m["images"][0].update(bytes=10**12),
        lambda m: m["images"][0].update(bytes=True),
        lambda m: m["images"][0].update(seed=None),
        lambda m: m["files"]["README.md"].pop("sha256"),
        lambda m: m["files"].update({"x": 1}),
    ],
)
def test_foreign_manifests_are_answered_in_a_sentence(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], object]
) -> None:
    path = rewritten(whole, tmp_path / "set.zip", manifest(change))
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(path)])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and "Error" not in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format":1,"images":' + "[" * 100_000, "null", "1e999", "\xff", '{"format": 1}']
)
def test_a_manifest_of_nonsense(whole: Path, tmp_path: Path, text: str) -> None:
    path = rewritten(whole, tmp_path / "set.zip", lambda f: f.update({"dataset.json": text.encode("latin-1")}))
    with pytest.raises(ValueError, match="is damaged|not a set of this version"):
        hieramp.open_set(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_flipped_bits_of_any_compression(whole: Path, tmp_path: Path, method: int) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(whole) as file, zipfile.ZipFile(path, "w", method) as packed:
        for name in file.namelist():
            packed.writestr(name, file.read(name))
    data = path.read_bytes()
    with zipfile.ZipFile(path) as packed:
        start = packed.getinfo(FIRST).header_offset + 30 + len(FIRST)
        end = start + packed.getinfo(FIRST).compress_size
    found = []
    for place in range(start, end, max(1, (end - start) // 40)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with hieramp.open_set(path) as image_set:
            found.append(any(FIRST in problem for problem in problems(image_set)))
    assert sum(found) > 0.9 * len(found)  # LZMA's first bytes do not decide about the picture


def test_what_unpacks_to_too_much_is_not_read(whole: Path, tmp_path: Path) -> None:
    for name in (FIRST, "dataset.json"):
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(whole) as file:
            files = {each: file.read(each) for each in file.namelist()}
        size = 200_000_000
        values = json.loads(files["dataset.json"])
        values["images"][0]["bytes"] = size
        files["dataset.json"] = json.dumps(values).encode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for each, data in files.items():
                packed.writestr(each, bytes(size) if each == name else data)
        with (
            pytest.raises(ValueError, match="that would unpack to 200000000; it was not read"),
            hieramp.open_set(path) as s,
        ):
            s.image(0)


def test_a_picture_larger_than_declared_is_not_unpacked(whole: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(buffer, "PNG")

    def change(files: Files) -> None:
        files[FIRST] = buffer.getvalue()
        manifest(lambda m: m["images"][0].update(bytes=len(buffer.getvalue())))(files)

    with hieramp.open_set(rewritten(whole, tmp_path / "set.zip", change)) as image_set:
        with pytest.raises(ValueError, match=r"is 6000×6000 pixels; dataset.json says 32"):
            image_set.image(0)
        assert any("6000×6000" in problem for problem in problems(image_set))


def test_soft_labels_have_the_size_of_the_set(whole: Path, tmp_path: Path) -> None:
    name = "labels/soft_labels.safetensors"
    row = {"bytes": 10**9, "sha256": "0" * 64}

    def change(files: Files) -> None:
        files[name] = b"x"
        manifest(lambda m: m["files"].update({name: row}))(files)

    with (
        hieramp.open_set(rewritten(whole, tmp_path / "set.zip", change)) as image_set,
        pytest.raises(ValueError, match="has 1000000000 bytes, at most"),
    ):
        image_set.soft_labels()


def test_a_sparse_file_in_a_shard_is_not_read(model: hieramp.Model, tmp_path: Path) -> None:
    out = shards(model, tmp_path / "set", lambda f: f.pop("train/00000/00000.png"))
    with tarfile.open(out / "train-000000.tar", "a") as tar:
        entry = tarfile.TarInfo("train/00000/00000.png")
        entry.type, entry.size = tarfile.GNUTYPE_SPARSE, 0
        tar.addfile(entry)
    with hieramp.open_set(out) as image_set, pytest.raises(ValueError, match="lacks train/00000/00000.png"):
        image_set.image(0)


def test_terminals_are_not_steered() -> None:
    assert printable("a\x1b[31m\nb café 猫") == "a\\x1b[31m\\nb café 猫"
