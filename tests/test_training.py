"""The whole chain on a folder of images at tiny size, with the shipped command."""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from tiny_train import PRESET, PRESETS
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import hieramp
from hieramp import state_file
from hieramp.checkpoints import load_part, read_config
from hieramp.classifier import Classifier, load_classifier
from hieramp.commands.card import write_card
from hieramp.commands.main import main
from hieramp.data import open_source
from hieramp.errors import UserError
from hieramp.evaluation.students import build_student, save_network
from hieramp.training import loop, runs
from hieramp.training.augment import randomly_shifted
from hieramp.training.class_tokens import ClassTokenOptions, OwnClassTokenObjective
from hieramp.training.classifier import ClassifierObjective
from hieramp.training.loop import Clock, Objective, Outcome, RunSettings
from hieramp.training.recipe import Muon, Recipe, build_optimizers, orthogonalize
from hieramp.training.tokens import Tokenizer
from hieramp.training.var import ClassTokenObjective, VARObjective
from hieramp.training.vqvae import Codebook, VQVAEObjective
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

ROOT = Path(__file__).parent.parent
TRAIN = ["train", "--preset", "tiny"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """A model folder with all four parts; the first was there already."""
    folder = tmp_path_factory.mktemp("trained")
    main([*TRAIN, "vqvae", "--data", str(image_folder), "--out", str(folder)])
    main([*TRAIN, "all", "--data", str(image_folder), "--out", str(folder), "--resume"])
    return folder


def test_the_folder_is_a_model(trained: Path) -> None:
    model = hieramp.load(trained, "cpu")
    assert model.class_names == ("blue", "red") and model.has_class_tokens
    assert torch.isfinite(model.generate([0, 1], [0, 0]).images).all()
    assert set(read_config(trained)["trained"]) == {"vqvae", "var", "class_tokens-dropped", "classifier"}
    assert load_classifier(trained).config.num_classes == 2


def test_all_goes_on_with_what_is_missing(
    trained: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in trained.glob("*.safetensors")}
    main([*TRAIN, "all", "--data", str(image_folder), "--out", str(trained), "--resume"])
    assert capsys.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in trained.glob("*.safetensors")} == before


def test_the_same_line_goes_on_until_all_is_trained(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a machine that is lent in short calls: each is stopped after 25 steps of a part."""

    class Stop:
        def __init__(self) -> None:
            self.steps = iter(range(25))

        def is_set(self) -> bool:
            return next(self.steps, None) is None

    monkeypatch.setattr(loop, "stop_on_signal", lambda: nullcontext(Stop()))
    said = []
    while not said or "interrupted" in said[-1]:
        main([*TRAIN, "all", "--data", str(image_folder), "--out", str(tmp_path), "--resume"])
        said.append(capsys.readouterr().out)
    assert [text.count("interrupted after") for text in said] == [1, 1, 0]
    trained = read_config(tmp_path)["trained"]
    assert {part: run["steps"] for part, run in trained.items()} == {
        "vqvae": 30,
        "var": 24,
        "class_tokens-dropped": 12,
        "classifier": 36,
    }
    assert hieramp.load(tmp_path, "cpu").var.config.own_class_tokens
    assert read_config(tmp_path)["class_tokens"]["attention"] == "own"


def test_samples_and_losses_are_written(trained: Path) -> None:
    assert {p.name.split("-")[0] for p in (trained / "samples").glob("*.png")} == {"vqvae", "var", "class_tokens"}
    assert list((trained / "logs").rglob("events.out.tfevents.*"))


SHARED = ClassTokenOptions("shared", condition="kept")


def test_class_tokens_are_a_small_file_and_the_backbone_stays(
    trained: Path, image_folder: Path, tmp_path: Path
) -> None:
    """Those that share the blocks' projections beside those that have their own."""
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    before, others = load_part(folder, "var"), load_part(folder, "class_tokens-dropped")
    settings = RunSettings(folder, "class_tokens-kept")
    runs.train_class_tokens(str(image_folder), PRESET, settings, replace(SHARED, read_only=True))
    after = load_part(folder, "var")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (folder / "class_tokens-kept.safetensors").stat().st_size < 10_000
    told = {"read_only": True, "condition": "kept", "with_backbone": False, "attention": "shared"}
    assert read_config(folder)["class_tokens"] == told
    assert hieramp.load(folder, "cpu").var.config.read_only_class_tokens
    dropped = hieramp.load(folder, "cpu", class_tokens="dropped").var
    assert dropped.config.own_class_tokens
    assert all(torch.equal(dropped.state_dict()[key], others[key]) for key in others)


def test_a_new_backbone_leaves_no_class_tokens_of_the_old_one(
    trained: Path, image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    settings = RunSettings(folder, "class_tokens-kept")
    runs.train_class_tokens(str(image_folder), PRESET, settings, replace(SHARED, with_backbone=True))
    assert hieramp.load(folder, "cpu").has_class_tokens
    with pytest.raises(ValueError, match="no class tokens with the condition dropped \\(it has: kept\\)"):
        hieramp.load(folder, "cpu", class_tokens="dropped")


def test_training_learns(image_folder: Path, tmp_path: Path) -> None:
    """Two colours are told apart, and reconstructions come closer to their images."""
    long = replace(PRESET, classifier_recipe=replace(PRESET.classifier_recipe, epochs=30))
    outcome = runs.train_classifier(str(image_folder), long, RunSettings(tmp_path, "classifier"))
    assert outcome.last["accuracy"] > 0.9
    short = runs.train_vqvae(str(image_folder), PRESET, RunSettings(tmp_path / "a", "vqvae"))
    more = replace(PRESET, vqvae_recipe=replace(PRESET.vqvae_recipe, epochs=40))
    longer = runs.train_vqvae(str(image_folder), more, RunSettings(tmp_path / "b", "vqvae"))
    assert longer.last["psnr"] > short.last["psnr"] > 5


def test_ctrl_c_saves_and_resume_goes_on(image_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("tiny_train.py")), *TRAIN, "vqvae"]
    command += ["--data", str(image_folder), "--out", str(tmp_path), "--budget", "10m"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("samples")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "interrupted after" in out and "--resume" in out
    steps = int(out.split("after ")[1].split(" ")[0])
    with pytest.raises(ValueError, match="holds an interrupted run: add --resume"):
        runs.train_vqvae(str(image_folder), PRESET, RunSettings(tmp_path, "vqvae"))
    assert steps > 0 and (tmp_path / "vqvae.safetensors").is_file()
    more = replace(PRESET, vqvae_recipe=replace(PRESET.vqvae_recipe, epochs=(steps + 3) * 16 / 48))
    outcome = runs.train_vqvae(str(image_folder), more, RunSettings(tmp_path, "vqvae", resume=True))
    assert outcome.steps == steps + 3 and not outcome.interrupted


def test_a_resumed_run_is_the_undisturbed_run(image_folder: Path, tmp_path: Path) -> None:
    def run(folder: Path, epochs: float, resume: bool = False) -> dict[str, torch.Tensor]:
        recipe = replace(PRESET.vqvae_recipe, epochs=epochs, warmup=1e-9, hold=1.0)
        runs.train_vqvae(
            str(image_folder), replace(PRESET, vqvae_recipe=recipe), RunSettings(folder, "vqvae", resume=resume)
        )
        return load_part(folder, "vqvae")

    torch.manual_seed(0)
    whole = run(tmp_path / "whole", 2)
    torch.manual_seed(0)
    run(tmp_path / "parts", 1)
    parts = run(tmp_path / "parts", 2, resume=True)
    assert all(torch.allclose(whole[key], parts[key], atol=1e-3) for key in whole)


def test_a_warm_start_begins_from_another_folder(trained: Path, image_folder: Path, tmp_path: Path) -> None:
    """With next to no training, what is written is what it began from."""
    still = Recipe(16, 1 / 3, 1e-9)
    preset = replace(PRESET, vqvae_recipe=still, var_recipe=still, class_token_recipe=still, classifier_recipe=still)
    for part in ("vqvae", "var", "class_tokens-dropped", "classifier"):
        settings = RunSettings(tmp_path, part, warm_start=trained)
        if part.startswith("class_tokens"):
            runs.train_class_tokens(str(image_folder), preset, settings, ClassTokenOptions())
        else:
            getattr(runs, f"train_{part}")(str(image_folder), preset, settings)
        before, after = load_part(trained, part), load_part(tmp_path, part)
        counted = ("embedding", "running", "num_", "mean_SC", "spread_SC")  # statistics of the images, taken anew
        learned = [key for key in before if not any(name in key for name in counted)]
        assert all(torch.allclose(before[key], after[key], atol=2e-3) for key in learned)
        if part == "vqvae":  # one step moves the moving averages a little; the transformer's codes must stay its codes
            codes, moved = before["quantize.embedding.weight"], after["quantize.embedding.weight"]
            assert (codes - moved).norm() < 0.2 * codes.norm()
        earlier, now = (read_config(folder)["trained"][part] for folder in (trained, tmp_path))
        assert now["before"] == [earlier] and now["steps"] == 1
    write_card(tmp_path, {})
    assert "| vqvae | 0 min | 30 × 16 + 1 × 16 | 10.33 |" in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="has no var yet"):
        runs.train_var(str(image_folder), preset, replace(settings, part="var", warm_start=tmp_path / "none"))


@pytest.mark.parametrize("change", [{"shared_adaln": True}, {"l2_attention": False}, {"last_passes": 1}])
def test_other_transformers_train_too(trained: Path, image_folder: Path, tmp_path: Path, change: dict) -> None:
    for name in ("config.json", "vqvae.safetensors"):
        shutil.copy(trained / name, tmp_path / name)
    preset = replace(PRESET, var=replace(PRESET.var, **change), var_recipe=replace(PRESET.var_recipe, epochs=4))
    outcome = runs.train_var(str(image_folder), preset, RunSettings(tmp_path, "var"))
    assert outcome.last["loss"] < math.log(16)  # better than guessing among the codes
    found = hieramp.load(tmp_path, "cpu").var.config
    assert all(getattr(found, name) == value for name, value in change.items())


def test_a_transformer_of_one_pass_begins_one_of_several(trained: Path, image_folder: Path, tmp_path: Path) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    still = Recipe(16, 1 / 3, 1e-9)
    for folder, passes, start in ((one, 1, None), (four, 4, one)):
        folder.mkdir()
        for name in ("config.json", "vqvae.safetensors"):
            shutil.copy(trained / name, folder / name)
        preset = replace(PRESET, var=replace(PRESET.var, last_passes=passes), var_recipe=still)
        runs.train_var(str(image_folder), preset, RunSettings(folder, "var", warm_start=start))
    key = "word_embed.weight"
    before, after = load_part(one, "var"), load_part(four, "var")
    assert torch.allclose(after[key][:, :8], before[key], atol=2e-3) and after[key].shape == (32, 17)
    assert after[key][:, 8:].abs().max() < 1e-6
    narrow = replace(PRESET, var=replace(PRESET.var, last_passes=1), var_recipe=still)
    with pytest.raises(ValueError, match=r"word_embed.weight is \(32, 17\), the model has \(32, 8\)"):
        runs.train_var(str(image_folder), narrow, RunSettings(one, "var", warm_start=four))


def test_a_shallow_transformer_begins_a_deeper_one(
    trained: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "vqvae.safetensors"):
        shutil.copy(trained / name, tmp_path / name)
    still = [*TRAIN, "var", "--data", str(image_folder), "--out", str(tmp_path), "--learning-rate", "1e-9"]
    deeper = PRESET.var.depth + 1
    main([*still, "--warm-start", str(trained), "--depth", str(deeper)])
    before, after = hieramp.load(trained, "cpu"), hieramp.load(tmp_path, "cpu")
    assert after.var.config.depth == deeper
    plain = [model.generate([0, 1], [3, 4], guidance=0).images for model in (before, after)]
    assert (plain[0] - plain[1]).abs().mean() < 0.01  # kept in float16, a token may change
    main([*still, "--warm-start", str(tmp_path)])
    assert hieramp.load(tmp_path, "cpu").var.config.depth == deeper  # of the start, where the preset has fewer
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*still, "--warm-start", str(tmp_path), "--depth", str(deeper - 1)])
    assert stopped.value.code == 2
    said = f"--depth is {deeper - 1}, but {tmp_path} has {deeper} blocks: a warm start may add some, not drop any"
    assert said in capsys.readouterr().err


def test_codes_are_looked_up_in_full_precision(image_folder: Path) -> None:
    torch.manual_seed(0)
    vqvae, latent = VQVAE(PRESET.vqvae), torch.randn(4, 8, 8, 8)
    plain = vqvae.quantize.quantize(latent)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = vqvae.quantize.quantize(latent)
    assert all(torch.equal(a, b) for a, b in zip(plain.tokens, mixed.tokens, strict=True))
    assert mixed.partial[-1].dtype == torch.float32


@pytest.mark.parametrize("half", [True, False])
def test_training_is_in_bfloat16_where_the_cpu_has_it(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    monkeypatch.setattr(loop, "supports_fast_bf16", lambda device: half)
    AcceleratorState._reset_state(True)  # it is one for the whole process, its precision as well
    decode = VQVAE.decode

    class SeenError(Exception):
        pass

    def decode_once(self: VQVAE, f_BCHW: torch.Tensor) -> torch.Tensor:
        images = decode(self, f_BCHW)
        if images.requires_grad:  # a step of training: the first says it
            raise SeenError(images.dtype)
        return images

    monkeypatch.setattr(VQVAE, "decode", decode_once)
    try:
        with pytest.raises(SeenError) as seen:
            runs.train_vqvae(str(image_folder), PRESET, RunSettings(tmp_path, "vqvae"))
    finally:
        AcceleratorState._reset_state(True)
    assert seen.value.args == (torch.bfloat16 if half else torch.float32,)


@pytest.mark.parametrize("read_only", [True, False])
def test_attention_under_autocast_is_the_fused_one(read_only: bool) -> None:
    torch.manual_seed(0)
    config = replace(PRESET.var, num_classes=3, class_token_scales=(1, 3, 5), read_only_class_tokens=read_only)
    var, labels = VAR(config), torch.tensor([0, 2])
    inputs = torch.randn(2, config.scales.num_tokens - 1, config.code_dim)
    plain = var(labels, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        half = var(labels, inputs)
    for a, b in ((plain.logits_BLV, half.logits_BLV), (plain.class_logits_BSK, half.class_logits_BSK)):
        assert a is not None and b is not None
        assert (a - b).abs().max() < 0.05 * a.abs().max()


def test_a_shift_must_stay_inside_the_image(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*TRAIN, "var", "--data", str(image_folder), "--out", str(tmp_path / "m"), "--shift", "32"])
    assert stopped.value.code == 2 and "--shift is 32, but the images have 32 pixels" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_two_processes_train_one_model(image_folder: Path, tmp_path: Path) -> None:
    """Accelerate's launcher, two processes on the CPU: the run ends, and its model is whole."""
    script = str(Path(__file__).with_name("tiny_train.py"))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", script]
    for part in ("vqvae", "var"):
        arguments = [*TRAIN, part, "--data", str(image_folder), "--out", str(tmp_path), "--budget", "3s"]
        subprocess.run([*launch, *arguments], check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert torch.isfinite(hieramp.load(tmp_path, "cpu").generate([0, 1]).images).all()


def test_resume_refuses_another_recipe(trained: Path, image_folder: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*TRAIN, "vqvae", "--data", str(image_folder), "--out", str(trained), "--resume", "--batch-size", "7"])
    assert stopped.value.code == 2 and "it was begun with" in capsys.readouterr().err


def test_resume_refuses_other_data(trained: Path, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("blue", "orange"):  # as many classes and images
        shutil.copytree(image_folder / "train" / "blue", tmp_path / "train" / name)
    with pytest.raises(UserError, match="begun with other data \\(48 images of blue, red\\)"):
        runs.train_vqvae(str(tmp_path), PRESET, RunSettings(trained, "vqvae", resume=True))


@pytest.mark.parametrize("name", ["cdua", "cuda:7", "meta"])
def test_a_device_that_is_not_there_is_refused(
    name: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*TRAIN, "vqvae", "--data", str(image_folder), "--out", str(tmp_path / "m"), "--device", name])
    assert stopped.value.code == 2 and f"device '{name}'" in capsys.readouterr().err and not (tmp_path / "m").exists()


def test_weights_that_are_no_numbers_never_take_the_place_of_the_last_state(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 4 of 30 breaks the weights; every step is saved, the loss is looked at every tenth."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(state_file, "SAVING_SHARE", 1e9)
    taken = VQVAEObjective.after_step

    def breaking(self: VQVAEObjective, progress: float) -> dict[str, torch.Tensor]:
        if progress * 30 > 3.5:
            self.model.encoder.conv_in.weight.data.fill_(math.nan)
        return taken(self, progress)

    monkeypatch.setattr(VQVAEObjective, "after_step", breaking)
    with pytest.raises(UserError, match="weights are no longer numbers at step 5"):
        runs.train_vqvae(str(image_folder), PRESET, RunSettings(tmp_path, "vqvae"))
    kept = load_file(tmp_path / "training" / "vqvae.safetensors")
    assert all(value.isfinite().all() for value in kept.values()) and not list(tmp_path.glob("vqvae*"))
    monkeypatch.setattr(VQVAEObjective, "after_step", taken)
    outcome = runs.train_vqvae(str(image_folder), PRESET, RunSettings(tmp_path, "vqvae", resume=True))
    assert outcome.steps == 30


def test_a_kill_between_weights_and_state_leaves_a_run_that_goes_on(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    command = [*TRAIN, "all", "--data", str(image_folder), "--out", str(tmp_path)]
    with monkeypatch.context() as killing:
        killing.setattr(runs, "save_part", killed)
        with pytest.raises(SystemExit):
            main(command)
    main([*command, "--resume"])
    assert hieramp.load(tmp_path, "cpu").has_class_tokens


def test_the_card_names_the_device_that_trained(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the GPU of a machine that was told to leave it unused."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "an unused GPU")
    settings, outcome = RunSettings(tmp_path, "vqvae", device="cpu"), Outcome(1, 1.0, False, {})
    runs._write_about(settings, open_source(str(image_folder)), outcome, PRESET.vqvae_recipe)
    assert "CPU cores" in read_config(tmp_path)["trained"]["vqvae"]["machine"]


def test_the_learning_rate_is_the_one_asked_for(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*TRAIN, "vqvae", "--data", str(image_folder), "--out", str(tmp_path), "--learning-rate", "1e-4"])
    assert f"learning_rate {1e-4 * PRESET.vqvae_recipe.rate(29 / 30):.4g}" in capsys.readouterr().out


def test_parts_are_trained_in_order(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([*TRAIN, "var", "--data", str(image_folder), "--out", str(tmp_path / "empty")])
    assert "has no vqvae yet: run python -m hieramp train vqvae" in capsys.readouterr().err


def test_measure_writes_figures_and_card(trained: Path, image_folder: Path) -> None:
    main(["measure", "--model", str(trained), "--data", str(image_folder), "--per-class", "4", "--test-images", "16"])
    measured = json.loads((trained / "measured.json").read_text())
    assert measured["autoencoder"]["images"] == 16 and len(measured["transformer"]) == 6
    assert [row["side"] for row in measured["saliency"]["on"]["drawings"]["rows"]] == [2, 3, 4, 6, 8]
    assert measured["drawings"]["guidance 4"]["images"] == 8
    assert {f"guidance {g}" for g in (1, 2, 3, 4, 6, 8)} < set(measured["drawings"])
    assert "guidance 4, amplified" in measured["drawings"]
    assert [row["given"] for row in measured["limits"]["rows"]] == [None, 6, 5, 4, 3, 2, 1, 0]
    card = (trained / "README.md").read_text()
    summed = measured["autoencoder"]["psnr_db_per_scale"]
    assert len(summed) == 6 and summed[-1] == pytest.approx(measured["autoencoder"]["psnr_db"], abs=1e-3)
    assert f"the first two, … to all: {summed[0]:.1f}, {summed[1]:.1f}, " in card
    assert f"{measured['autoencoder']['psnr_db']:.2f} dB" in card and (trained / "samples.png").is_file()
    best = min(measured["drawings"][f"guidance {g}"]["fid"] for g in (1, 2, 3, 4, 6, 8))
    assert f"Best FID: **{best:.2f}**" in card and "what 8 real training images score" in card
    assert "## What the saliency follows" in card and "| 8×8 | guidance | insertion |" in card
    assert json.loads((trained / "average_maps.json").read_text())["families"]["class tokens"]["images"] == 16
    assert "## What limits it" in card and "| first 3 scales real |" in card


def test_a_second_judge_lies_beside_the_model_or_is_named(
    trained: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `evaluate --save` wrote; each has its own ceilings."""
    command = [
        "measure",
        "--model",
        str(trained),
        "--data",
        str(image_folder),
        "--only",
        "saliency",
        "--test-images",
        "4",
    ]
    beside, other = trained / "judge2.safetensors", tmp_path / "other.safetensors"
    save_network(beside, build_student("convnet", 2, 32), "convnet", ("blue", "red"), 32)
    main(command)
    beside.unlink()
    row = json.loads((trained / "measured.json").read_text())["saliency"]["on"]["test images"]["rows"][-1]
    assert set(row["judges"]) == {"classifier", "convnet"}
    assert all({"attribution", "CAM"} < set(found["means"]) for found in row["judges"].values())
    card = (trained / "README.md").read_text()
    assert "By convnet, the map over" in card and "CAM minus map" in card and "after the semicolon, by convnet" in card
    save_network(other, build_student("convnet", 2, 32), "convnet", ("red", "green"), 32)
    with pytest.raises(SystemExit):
        main([*command, "--judge2", str(other)])
    assert "--judge2 convnet was trained on other classes than" in capsys.readouterr().err


def test_every_top_p_at_every_guidance_and_a_sheet_of_the_clearest(trained: Path, image_folder: Path) -> None:
    command = ["measure", "--model", str(trained), "--data", str(image_folder), "--per-class", "4"]
    main([*command, "--test-images", "16", "--only", "drawings", "--guidance", "4", "6", "--top-p", "0.95", "0.5"])
    drawings = json.loads((trained / "measured.json").read_text())["drawings"]
    settings = ["guidance 4", "guidance 6", "guidance 4, top-p 0.5", "guidance 6, top-p 0.5"]
    assert list(drawings)[2:] == [*settings, "guidance 4, amplified"]
    assert drawings["guidance 4"]["fid"] != drawings["guidance 4, top-p 0.5"]["fid"]
    clearest, shown = max(settings, key=lambda name: drawings[name]["accuracy"]), trained / "samples-clearest.png"
    assert shown.is_file() == (clearest != "guidance 4")
    card = (trained / "README.md").read_text()
    assert (f"at {clearest}, where accuracy is highest:" in card) == shown.is_file()
    assert "at the default settings:\n\n![samples at the default settings](samples.png)" in card


def test_every_temperature_is_measured_under_its_name(trained: Path, image_folder: Path) -> None:
    command = ["measure", "--model", str(trained), "--data", str(image_folder), "--per-class", "2", "--guidance", "4"]
    main([*command, "--test-images", "8", "--only", "drawings", "limits", "--temperature", "fine=0", "1", "0.5"])
    measured = json.loads((trained / "measured.json").read_text())
    settings = ["guidance 4, temperature fine 0", "guidance 4", "guidance 4, temperature 0.5"]
    assert list(measured["drawings"])[2:] == [*settings, "guidance 4, amplified"]
    assert len({measured["drawings"][name]["fid"] for name in settings}) == 3
    assert "are drawn at guidance 4;" in (trained / "README.md").read_text()
    main([*command, "--test-images", "8", "--only", "limits", "--temperature", "fine=0"])
    assert "are drawn at guidance 4, temperature fine 0;" in (trained / "README.md").read_text()


def test_every_power_of_guidance_is_measured_under_its_name(trained: Path, image_folder: Path) -> None:
    command = ["measure", "--model", str(trained), "--data", str(image_folder), "--per-class", "24", "--guidance", "4"]
    main([*command, "--test-images", "8", "--only", "drawings", "limits", "--guidance-power", "0", "1"])
    drawings = json.loads((trained / "measured.json").read_text())["drawings"]
    assert list(drawings)[2:] == ["guidance 4 (power 0)", "guidance 4", "guidance 4, amplified"]
    assert drawings["guidance 4"]["fid"] != drawings["guidance 4 (power 0)"]["fid"]


def test_measuring_just_one_thing_keeps_the_rest(trained: Path, image_folder: Path) -> None:
    before = json.loads((trained / "measured.json").read_text())
    command = ["measure", "--model", str(trained), "--data", str(image_folder), "--per-class", "2"]
    main([*command, "--test-images", "16", "--only", "limits", "--guidance", "2"])
    after = json.loads((trained / "measured.json").read_text())
    assert after["drawings"] == before["drawings"] and after["limits"]["guidance"] == 2.0
    assert after["limits"]["images"] == 4 and after["limits"]["others"] == 12
    with pytest.raises(SystemExit):
        main([*command, "--guidance", "4", "-1"])
    assert json.loads((trained / "measured.json").read_text()) == after


def test_dead_codes_are_restarted(image_folder: Path) -> None:
    """A codebook in which one code takes everything is spread over the data."""
    torch.manual_seed(0)
    vqvae = VQVAE(PRESET.vqvae)
    codebook = Codebook(vqvae)
    vqvae.quantize.embedding.weight.data.fill_(100.0)
    vqvae.quantize.embedding.weight.data[0] = 0
    latent = torch.randn(8, 8, 8, 8)
    assert len({int(i) for t in vqvae.quantize.quantize(latent).tokens for i in t.flatten()}) == 1
    for _ in range(5):
        dead = codebook.update(vqvae.quantize.quantize(latent), restart=True)
        assert 0 <= int(dead) < 16
    assert len({int(i) for t in vqvae.quantize.quantize(latent).tokens for i in t.flatten()}) == 16


def test_encoder_and_phi_learn_from_the_pixels() -> None:
    """A decoder that answers to nothing changes their gradients: what is left is the pull between latent and codes."""
    torch.manual_seed(0)
    objective = VQVAEObjective(VQVAE(PRESET.vqvae))
    images, labels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
    watched = [objective.model.encoder.conv_in.weight, objective.model.quantize.quant_resi.qresi_ls[0].weight]

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(1)  # of the flips
        return list(torch.autograd.grad(objective(images, labels)["loss"], watched))

    seeing = gradients()
    objective.model.decoder.conv_out.weight.data.zero_()
    for sees, blind in zip(seeing, gradients(), strict=True):
        assert blind.abs().max() > 0 and (sees - blind).norm() > 0.01 * blind.norm()


@pytest.mark.parametrize("part", ["vqvae", "var", "class-tokens", "class-tokens-own", "classifier"])
def test_a_step_of_training_never_waits_for_the_device(part: str) -> None:
    """Fake tensors have no values: whatever reads one, as a GPU would have to be waited for, raises."""
    with FakeTensorMode():
        config = replace(PRESET.var, class_token_scales=(0, 1, 2) if part.startswith("class-tokens") else ())
        objective: Objective
        if part == "vqvae":
            objective = VQVAEObjective(VQVAE(PRESET.vqvae))
        elif part == "classifier":
            objective = ClassifierObjective(Classifier(PRESET.classifier))
        elif part == "var":
            objective = VARObjective(VAR(config), Tokenizer(VQVAE(PRESET.vqvae), shift=2))
        elif part == "class-tokens":
            objective = ClassTokenObjective(VAR(config), Tokenizer(VQVAE(PRESET.vqvae)), "dropped")
        else:
            var = VAR(replace(config, read_only_class_tokens=True, class_token_attention="own"))
            options = ClassTokenOptions(with_backbone=True)
            objective = OwnClassTokenObjective(var, Tokenizer(VQVAE(PRESET.vqvae), shift=2), options)
        optimizers = build_optimizers(objective, PRESET.vqvae_recipe, objective.matrices())
        assert len(optimizers) == 2
        losses = objective(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 2.0)
        for optimizer in optimizers:
            optimizer.step()
        logged = losses | objective.after_step(0.5)
        assert all(isinstance(value, torch.Tensor) for value in logged.values())
        with pytest.raises(DataDependentOutputException):
            float(logged["loss"].detach())


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_muon_updates_are_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert singular.min() > 0.5 and singular.max() < 1.5


def test_muon_finds_the_minimum_of_a_quadratic() -> None:
    torch.manual_seed(0)
    goal, weight = torch.randn(6, 4), torch.nn.Parameter(torch.zeros(6, 4))
    muon = Muon([weight], lr=0.1)
    for step in range(100):
        for group in muon.param_groups:
            group["lr"] = 0.1 * (1 - step / 100)
        muon.zero_grad()
        (weight - goal).square().sum().backward()
        muon.step()
    assert (weight - goal).norm() < 0.2 * goal.norm()


def test_the_schedule_follows_the_clock_and_ends_low() -> None:
    recipe = Recipe(1, 1, 1.0, warmup=0.1, hold=0.5, decay="linear", final=0.02)
    rates = [recipe.rate(p) for p in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)]
    assert rates[1] == 0.5 and rates[2] == rates[3] == 1.0 and rates[-1] == pytest.approx(0.02)
    clock = Clock(num_steps=100, budget=10.0, step=50, spent=4.0)
    assert clock.progress == pytest.approx(0.4)
    assert Clock(num_steps=100, budget=None, step=50).progress == 0.5


def test_the_tiny_preset_is_not_shipped() -> None:
    del PRESETS["tiny"]
    try:
        assert set(PRESETS) == {"cifar10", "cifar10-small", "photos64", "photos64-small", "imagenet256"}
        for preset in PRESETS.values():
            assert preset.vqvae.sides == preset.var.sides and preset.vqvae.num_codes == preset.var.num_codes
            assert preset.vqvae.image_size in (32, 64, 256)
    finally:
        PRESETS["tiny"] = PRESET


def test_imagenet_ids_get_their_words(image_folder: Path, tmp_path: Path) -> None:
    for wnid, name in {"n01440764": "red", "n01443537": "blue"}.items():
        shutil.copytree(image_folder / "train" / name, tmp_path / "set" / wnid)
    runs.train_vqvae(str(tmp_path / "set"), PRESET, RunSettings(tmp_path / "m", "vqvae", budget=0.1))
    config = read_config(tmp_path / "m")
    assert config["wnids"] == ["n01440764", "n01443537"] and config["class_names"][0].startswith("tench")


def test_sources(image_folder: Path) -> None:
    assert len(open_source(str(image_folder))) == 48 and len(open_source(str(image_folder), "test")) == 16


def test_images_are_shifted_by_up_to_so_many_pixels() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (200, 3, 8, 8)).float()
    assert randomly_shifted(images, 0) is images
    shifted, found = randomly_shifted(images, 2), set()
    for image, moved in zip(images, shifted, strict=True):
        inside = moved[:, 2:6, 2:6]  # what no border reaches
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(inside, image[:, y : y + 4, x : x + 4])]
        assert len(places) == 1
        found.update(places)
    assert len(found) == 25
    for image, moved in zip(images, shifted, strict=True):  # a reflection brings in no colour of its own
        assert set(moved.flatten().tolist()) <= set(image.flatten().tolist())


def test_the_last_part_of_a_run_sees_images_where_they_are() -> None:
    tokenizer = Tokenizer(VQVAE(PRESET.vqvae), shift=2)
    objective = VARObjective(VAR(PRESET.var), tokenizer, shift_until=0.9)
    objective.before_step(0.89)
    assert tokenizer.shift == 2
    objective.before_step(0.9)
    assert tokenizer.shift == 0


def test_compiled_blocks_learn_the_same_under_the_same_names() -> None:
    torch.manual_seed(0)
    var, tokenizer = VAR(PRESET.var), Tokenizer(VQVAE(PRESET.vqvae))
    plain, compiled = VARObjective(var, tokenizer), VARObjective(copy.deepcopy(var), tokenizer)
    compiled.compile_parts(backend="aot_eager")
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    images, labels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1])
    for objective in (plain, compiled):
        torch.manual_seed(1)
        objective(images, labels)["loss"].backward()
    for name, parameter in plain.named_parameters():
        expected, found = parameter.grad, compiled.get_parameter(name).grad
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_the_two_cranes_of_imagenet_are_trained_in_all_parts(tmp_path: Path) -> None:
    """n02012849 is the bird, n03126707 the machine, and each part finds the classes of the one before."""
    for number, wnid in enumerate(("n01440764", "n02012849", "n03126707")):
        for split, count in {"train": 4, "test": 2}.items():
            (tmp_path / "data" / split / wnid).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", (32, 32), (80 * number, 40 * i, 90))
                image.save(tmp_path / "data" / split / wnid / f"{i}.png")
    data, out = ["--data", str(tmp_path / "data")], str(tmp_path / "m")
    main(["train", "all", *data, "--preset", "tiny", "--budget", "4s", "--out", out])
    model = hieramp.load(out, "cpu")
    assert model.class_names[1:] == ("crane", "crane") and model.wnids[1:] == ("n02012849", "n03126707")
    main(["measure", "--model", out, *data, "--only", "autoencoder"])
    for number, wnid in enumerate(model.wnids):
        source = open_source(str(tmp_path / "data")).reordered(model.class_ids)
        assert source.file_name(4 * number).startswith(f"train/{wnid}/") and source.labels()[4 * number] == number
    one = open_source(str(tmp_path / "data" / "test")).among(("n03126707", "n02012849", "n01440764"))
    assert one.labels() == [2, 2, 1, 1, 0, 0]
