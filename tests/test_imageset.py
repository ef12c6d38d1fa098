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

import hieramp
from hieramp.commands.main import main
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
