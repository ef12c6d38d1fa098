"""The folder of an unfinished set, and what may be found in it."""

import zipfile
from pathlib import Path

import pytest

import hieramp


def begun(model: hieramp.Model, out: Path) -> Path:
    """A set that was stopped after its first batch."""
    steps = iter(hieramp.distill(model, 2, out, batch_size=4))
    while next(steps).done == 0:
        pass
    steps.close()
    return out.with_name(out.name + ".part")


def test_a_folder_of_the_users_is_not_taken_over(model: hieramp.Model, tmp_path: Path) -> None:
    mine = tmp_path / "set.zip.part" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(ValueError, match=r"set.zip.part is in the way: it holds mine.txt, which no unfinished set has"):
        list(hieramp.distill(model, 1, tmp_path / "set.zip"))
    assert mine.read_text() == "precious" and not (tmp_path / "set.zip").exists()
    mine.unlink()
    list(hieramp.distill(model, 1, tmp_path / "set.zip"))
    assert (tmp_path / "set.zip").is_file()


@pytest.mark.parametrize("text", ["[]", "null", "3", "{"])
def test_settings_of_nonsense_are_told(model: hieramp.Model, tmp_path: Path, text: str) -> None:
    part = begun(model, tmp_path / "set.zip")
    (part / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings.json is damaged: remove .*set.zip.part to begin anew"):
        list(hieramp.distill(model, 2, tmp_path / "set.zip"))


def test_a_batch_of_bad_pictures_is_made_again(model: hieramp.Model, tmp_path: Path) -> None:
    list(hieramp.distill(model, 2, tmp_path / "whole.zip"))
    part = begun(model, tmp_path / "set.zip")
    (batch,) = part.glob("*.batch")
    with zipfile.ZipFile(batch) as file:
        names = file.namelist()
    with zipfile.ZipFile(batch, "w") as file:
        for name in names:
            file.writestr(name, b"no picture")
    list(hieramp.distill(model, 2, tmp_path / "set.zip"))
    assert (tmp_path / "set.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
