"""Files that are damaged, foreign or dangerous."""

import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hieramp
from hieramp import checkpoints, devices, loading
from hieramp.classifier import Classifier
from hieramp.commands.main import main
from hieramp.errors import UserError
from hieramp.training.presets import PRESETS, Preset
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/hieramp-was-here"),))


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(model_folder, tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_loads_as_it_was(folder: Path, model: hieramp.Model) -> None:
    loaded = hieramp.load(folder, "cpu")
    assert loaded.class_names == model.class_names and loaded.var.config == model.var.config
    for key, value in model.var.state_dict().items():
        assert torch.allclose(loaded.var.state_dict()[key], value, atol=5e-3)


def test_shards_stay_small_and_all_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 4000)
    state = {f"w{i}": torch.randn(30, 30) for i in range(6)}
    checkpoints.save_part(tmp_path, "var", state, torch.float32)
    shards = sorted(tmp_path.glob("var-*.safetensors"))
    assert len(shards) == 6 and not list(tmp_path.glob("*.part"))
    assert all(torch.equal(checkpoints.load_part(tmp_path, "var")[k], v) for k, v in state.items())
    shards[2].unlink()
    with pytest.raises(ValueError, match="5 of the 6 shards"):
        checkpoints.load_part(tmp_path, "var")
    checkpoints.save_part(tmp_path, "var", {"w0": state["w0"]}, torch.float32)
    assert [p.name for p in tmp_path.iterdir()] == ["var.safetensors"]


def two_saves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, dict]:
    """Two models of several shards, the first of them saved in `folder`."""
    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 4000)
    old, new = ({f"w{i}": torch.full((30, 30), float(i + n)) for i in range(3)} for n in (0, 100))
    checkpoints.save_part(folder, "var", old, torch.float32)
    return old, new


def same(state: dict, other: dict) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize(
    ("shards", "renames"), [(1, 0), (1, 1), (3, 0), (3, 1), (3, 2), (5, 0), (5, 1), (5, 4), (5, 5)]
)
def test_a_save_that_is_killed_leaves_the_old_weights_or_the_new_ones(
    shards: int, renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the first rename, between two, or after the last, before the old shards go: never half of each."""
    old, new = two_saves(tmp_path, monkeypatch)
    new |= {f"w{i}": torch.ones(30, 30) for i in range(3, shards)}
    if shards == 1:
        monkeypatch.setattr(checkpoints, "SHARD_BYTES", 10**9)
    rename, remove, done = Path.replace, Path.unlink, []

    def killed_rename(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(self, target)

    def killed_removal(self: Path, missing_ok: bool = False) -> None:
        if self.suffix != ".part":
            raise KeyboardInterrupt
        remove(self, missing_ok)

    with monkeypatch.context() as killing:
        killing.setattr(Path, "replace", killed_rename)
        killing.setattr(Path, "unlink", killed_removal)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save_part(tmp_path, "var", new, torch.float32)
    assert len(done) == renames
    assert same(checkpoints.load_part(tmp_path, "var"), new if renames else old)
    checkpoints.save_part(tmp_path, "var", old, torch.float32)
    assert same(checkpoints.load_part(tmp_path, "var"), old)


def test_shards_of_two_saves_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, new = two_saves(tmp_path, monkeypatch)
    checkpoints.save_part(tmp_path / "other", "var", new, torch.float32)
    shutil.copy(tmp_path / "other" / "var-00002-of-00003.safetensors", tmp_path)
    with pytest.raises(UserError, match="shards of var in .* are of different saves"):
        checkpoints.load_part(tmp_path, "var")


def test_a_save_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = two_saves(tmp_path, monkeypatch)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(checkpoints, "flush", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save_part(tmp_path, "var", new, torch.float32)
    assert sorted(tmp_path.iterdir()) == before and same(checkpoints.load_part(tmp_path, "var"), old)


def changed(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return {key: value + 1 for key, value in checkpoints.load_part(folder, part).items()}


def test_class_tokens_of_another_transformer_are_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints.save_part(folder, "var", checkpoints.load_part(folder, "var"))
    assert hieramp.load(folder, "cpu").has_class_tokens and not caplog.records  # the same weights again
    tokens = checkpoints.load_part(folder, "class_tokens")
    checkpoints.save_part(folder, "var", changed(folder, "var"))
    sentence = "class_tokens in .* was trained on another var .*: train it again with python -m hieramp train class-tok"
    assert re.search(sentence, caplog.text)  # told when it happens
    with pytest.raises(UserError, match=sentence):
        hieramp.load(folder, "cpu")
    checkpoints.save_part(folder, "class_tokens", tokens)  # trained again
    assert hieramp.load(folder, "cpu").has_class_tokens


def test_a_transformer_of_another_vqvae_is_refused(folder: Path) -> None:
    """Also one that an older version wrote, without a word of what it stands on."""
    config = json.loads((folder / "config.json").read_text())
    assert set(config.pop("stands_on")) == {"var", "class_tokens"}
    (folder / "config.json").write_text(json.dumps(config))
    assert hieramp.load(folder, "cpu").has_class_tokens
    checkpoints.save_part(folder, "vqvae", changed(folder, "vqvae"))
    with pytest.raises(UserError, match="var in .* was trained on another vqvae than the one there now"):
        hieramp.load(folder, "cpu")


def test_a_fingerprint_is_that_of_the_weights(folder: Path) -> None:
    """Written by an older version, without one, the weights are read for it."""
    told = checkpoints.part_fingerprint(folder, "var")
    save_file(load_file(folder / "var.safetensors"), folder / "var.safetensors")
    assert checkpoints.part_fingerprint(folder, "var") == told
    save_file(load_file(folder / "vqvae.safetensors"), folder / "var.safetensors")
    assert checkpoints.part_fingerprint(folder, "var") != told


def test_truncated_and_foreign_weights(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "var.safetensors").read_bytes()
    (folder / "var.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated or not a safetensors"):
        hieramp.load(folder, "cpu")
    shutil.copy(folder / "vqvae.safetensors", folder / "var.safetensors")
    (folder / "class_tokens.safetensors").unlink()  # which would miss the transformer that they were trained on
    with pytest.raises(ValueError, match="does not fit this model"):
        hieramp.load(folder, "cpu")
    (folder / "var.safetensors").unlink()
    with pytest.raises(ValueError, match="no var weights"):
        hieramp.load(folder, "cpu")


def test_damaged_configs(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for text, said in [("{", "is damaged"), ("[]", "was not written by this version")]:
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            hieramp.load(folder, "cpu")
    del config["var"]["depth"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="depth is missing or unknown"):
        hieramp.load(folder, "cpu")


def test_unknown_models_and_devices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no model 'cifar11'"):
        hieramp.load("cifar11")
    with pytest.raises(ValueError, match="is not a model folder"):
        hieramp.load(tmp_path)
    with pytest.raises(ValueError, match="device 'gpu9' is not to be had"):
        devices.resolve_device("gpu9")


def test_pickles_with_code_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"w": Evil()}))
    torch.save({"w": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ValueError, match="was not opened|truncated or not"):
            loading.read_checkpoint(tmp_path / name)
    assert not Path("/tmp/hieramp-was-here").exists()


def test_pth_checkpoints(tmp_path: Path, model: hieramp.Model, folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    assert torch.equal(loading.read_checkpoint(tmp_path / "a.pth")["a"], torch.ones(2))
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[:200])
    with pytest.raises(ValueError, match="truncated"):
        loading.read_checkpoint(tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        loading.read_checkpoint(tmp_path / "list.pth")
    torch.save(model.var.state_dict(), tmp_path / "var.pth")
    shutil.rmtree(folder / "x", ignore_errors=True)
    (folder / "class_tokens.safetensors").unlink()
    wrapped = {"model": {f"module.{key}": value for key, value in model.var.state_dict().items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "trainer.pth")
    for name in ("var.pth", "trainer.pth"):
        assert hieramp.load(folder, "cpu", var_checkpoint=tmp_path / name).has_class_tokens


def test_class_tokens_load_on_top(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "class_tokens.safetensors", tmp_path / "class_tokens.safetensors")
    assert not hieramp.load(folder, "cpu").has_class_tokens
    assert hieramp.load(folder, "cpu", class_tokens=tmp_path / "class_tokens.safetensors").has_class_tokens
    with pytest.raises(ValueError, match="does not exist"):
        hieramp.load(folder, "cpu", class_tokens=tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="has no class tokens"):
        hieramp.load(folder, "cpu", class_tokens=folder)


def test_class_tokens_are_chosen_by_their_condition(folder: Path, model: hieramp.Model) -> None:
    """A folder of the older layout, then one more variant beside it."""
    old = checkpoints.load_part(folder, "class_tokens")
    other = {key: value + 1 for key, value in old.items()}
    assert hieramp.load(folder, "cpu", class_tokens="dropped").has_class_tokens
    with pytest.raises(ValueError, match=r"no class tokens with the condition kept \(it has: dropped\)"):
        hieramp.load(folder, "cpu", class_tokens="kept")
    checkpoints.save_part(folder, "class_tokens-kept", other)
    about = {"read_only": True, "condition": "kept", "with_backbone": False}
    checkpoints.write_config(folder, class_token_variants={"kept": about})

    def loaded(which: str | Path | None) -> tuple[bool, bool]:
        """Whether it is the new variant, and whether it is only read."""
        var = hieramp.load(folder, "cpu", class_tokens=which).var
        values = var.state_dict()["class_head.bias"]
        return torch.allclose(values, other["class_head.bias"], atol=1e-2), var.config.read_only_class_tokens

    assert loaded(None) == loaded("dropped") == (False, False)
    assert loaded("kept") == loaded(folder / "class_tokens-kept.safetensors") == (True, True)
    checkpoints.write_config(folder, class_tokens=about)
    assert loaded(None) == loaded(folder) == (True, True)


def test_models_ship_under_their_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assets = tmp_path / "assets"
    for name in ("one", "cifar10"):
        shutil.copytree(folder, assets / name)
    (assets / "notes").mkdir()
    monkeypatch.setattr(checkpoints, "ASSETS", assets)
    monkeypatch.chdir(tmp_path)
    assert checkpoints.shipped() == ["cifar10", "one"]
    assert hieramp.load("one", "cpu").folder == assets / "one" and hieramp.load(device="cpu").name == "cifar10"
    with pytest.raises(ValueError, match="no model 'two': give a model folder, or one of cifar10, one, var-d16"):
        hieramp.load("two", "cpu")
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    assert "cifar10, one, a model folder" in " ".join(capsys.readouterr().out.split())


def test_what_ships_is_small() -> None:
    sizes = {path: path.stat().st_size for path in checkpoints.ASSETS.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 20e6 and sum(sizes.values()) < 96e6


def test_the_presets_for_cifar10_make_models_small_enough_to_ship_together() -> None:
    """In float16: 64 MB for the default model, 96 MB with the small one, with half a megabyte each for cards."""
    total = {name: _float16_bytes(PRESETS[name]) for name in ("cifar10", "cifar10-small")}
    assert total["cifar10"] < 63.5e6 and sum(total.values()) < 95e6


def _float16_bytes(preset: Preset) -> int:
    with torch.device("meta"):
        parts = VQVAE(preset.vqvae), VAR(replace(preset.var, num_classes=10)), Classifier(preset.classifier)
    return sum(2 * tensor.numel() for part in parts for tensor in part.state_dict().values())


def test_an_official_checkpoint_that_is_not_here_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIERAMP_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(FileNotFoundError, match=f"var_d16.pth is not here.*put it at {tmp_path}"):
        hieramp.load("var-d16", "cpu")


def test_nothing_half_written_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: object, path: Path, metadata: object = None) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save_safetensors(tmp_path / "x.safetensors", {})
    assert not list(tmp_path.iterdir())
