"""The average saliency map: measured by a command, kept with the weights it was measured with, shown on the page."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_class_tokens import own_model

import hieramp
from app.average_map import view_of
from hieramp.analysis import average_map
from hieramp.analysis.faithfulness import Maps, fixed_share
from hieramp.checkpoints import save_part, write_config
from hieramp.errors import UserError
from hieramp.var.class_tokens import is_class_token


def looking_model(model_folder: Path, folder: Path) -> hieramp.Model:
    """The tiny model in a folder, with class tokens of their own by default."""
    shutil.copytree(model_folder, folder)
    var = own_model(class_token_width=64).var
    (folder / "class_tokens.safetensors").unlink()
    tokens = {key: value for key, value in var.state_dict().items() if is_class_token(key)}
    save_part(folder, "class_tokens-dropped", tokens)
    write_config(folder, class_tokens={"condition": "dropped", "read_only": True, "attention": "own"})
    return hieramp.load(folder, "cpu")


@pytest.fixture
def looking(model_folder: Path, tmp_path: Path) -> hieramp.Model:
    return looking_model(model_folder, tmp_path / "tiny")


def random_maps(model: hieramp.Model, count: int = 5) -> Maps:
    generator = torch.Generator().manual_seed(0)
    maps = tuple(torch.rand(count, side * side, generator=generator).softmax(1) for side in model.var.scales.sides)
    return Maps({"class tokens": maps, "guidance": tuple(m.flip(1) for m in maps)}, None)


def test_it_is_kept_with_the_weights_it_was_measured_with(looking: hieramp.Model) -> None:
    assert looking.folder is not None and average_map.load(looking) is None
    maps = random_maps(looking)
    average_map.save(looking, maps)
    found = average_map.load(looking)
    assert found is not None and found.images == 5
    own = maps.by_family["class tokens"]
    for average, share, m_NL in zip(found.maps, found.fixed_share, own, strict=True):
        assert average == pytest.approx(m_NL.mean(0).tolist(), abs=1e-6)
        assert share == pytest.approx(fixed_share(m_NL), abs=1e-6)
    tokens = {key: value for key, value in looking.var.state_dict().items() if is_class_token(key)}
    save_part(looking.folder, "class_tokens-dropped", {key: value + 1 for key, value in tokens.items()})
    assert average_map.load(looking) is None and view_of(looking) is None  # other class tokens


def test_the_page_says_how_much_is_position(looking: hieramp.Model, model: hieramp.Model) -> None:
    average_map.save(looking, random_maps(looking))
    view, found = view_of(looking), average_map.load(looking)
    assert view is not None and found is not None
    assert view["maps"][5] == list(found.maps[5]) and "one position" in view["words"][0]
    assert view["words"][5].startswith(f"At 8×8, {100 * found.fixed_share[5]:.0f} % of what the maps hold is position")
    assert view_of(model) is None  # in no folder


def test_a_damaged_file_is_told(looking: hieramp.Model) -> None:
    assert looking.folder is not None
    average_map.save(looking, random_maps(looking))
    path = looking.folder / average_map.FILE
    stored = json.loads(path.read_text())
    stored["families"]["class tokens"]["maps"][2] = [1.0]
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="maps of other sizes than tiny: measure it again"):
        average_map.load(looking)
    path.write_text("{")
    with pytest.raises(UserError, match="average_maps.json is damaged: measure it again"):
        average_map.load(looking)


def test_class_tokens_that_share_the_blocks_have_no_average(model_folder: Path, tmp_path: Path) -> None:
    """Theirs are other maps in every block."""
    shutil.copytree(model_folder, tmp_path / "tiny")
    shared = hieramp.load(tmp_path / "tiny", "cpu")
    average_map.save(shared, random_maps(shared))
    assert average_map.load(shared) is None
