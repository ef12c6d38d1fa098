"""A model folder that takes parts from the folder beside it, as the diffusion transformer that ships does."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import hieramp
from hieramp import checkpoints
from hieramp.checkpoints import has_part, load_part, read_config, save_part, write_config
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One with a part, and one beside it that takes it from there."""
    one, other = tmp_path / "one", tmp_path / "other"
    save_part(one, "vqvae", {"w": torch.ones(3)})
    write_config(one)
    write_config(other, parts_in={"vqvae": "one"})
    return one, other


def test_a_part_is_found_beside_and_ones_own_goes_before(folders: tuple[Path, Path]) -> None:
    one, other = folders
    assert has_part(other, "vqvae") and not has_part(other, "classifier")
    assert torch.equal(load_part(other, "vqvae")["w"], torch.ones(3))
    assert not list(other.glob("*.safetensors"))
    save_part(other, "vqvae", {"w": torch.zeros(3)})
    assert torch.equal(load_part(other, "vqvae")["w"], torch.zeros(3))
    assert torch.equal(load_part(one, "vqvae")["w"], torch.ones(3))


def test_what_is_missing_or_elsewhere_is_told(folders: tuple[Path, Path]) -> None:
    one, other = folders
    shutil.rmtree(one)
    with pytest.raises(UserError, match="takes its vqvae from .*one, which has none: put that folder beside it"):
        load_part(other, "vqvae")
    for elsewhere in ("../one", "/etc", 3):
        (other / "config.json").write_text(json.dumps({"format": 1, "parts_in": {"vqvae": elsewhere}}))
        with pytest.raises(UserError, match="give the name of a folder beside it"):
            load_part(other, "vqvae")


def test_the_transformer_that_ships_loads_by_name() -> None:
    model = hieramp.load("cifar10-dit", "cpu")
    assert isinstance(model, DiffusionModel) and model.name == "cifar10-dit"
    folder = checkpoints.ASSETS / "cifar10-dit"
    sharing = read_config(folder)["parts_in"]
    for part, beside in sharing.items():  # and what it says of them is so
        assert read_config(folder)[part] == read_config(folder.parent / beside)[part]
        assert not list(folder.glob(f"{part}*.safetensors"))
    sizes = [path.stat().st_size for path in checkpoints.ASSETS.rglob("*") if path.is_file()]
    assert sum(sizes) < 96e6 and max(sizes) < 16e6
