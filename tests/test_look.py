"""What makes a tokenizer's pictures look sharp: the perceptual and the adversarial loss, and the decoder on its own."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from conftest import TINY_VQVAE
from tiny_train import PRESET
from torch import Tensor, nn

import hieramp
from hieramp.analysis.measure import perceptual_distance
from hieramp.checkpoints import load_part
from hieramp.classifier import load_classifier
from hieramp.commands.looks import load_perceptual
from hieramp.commands.main import main
from hieramp.data import decode, open_source, to_signed
from hieramp.errors import UserError
from hieramp.perceptual import PerceptualDistance, stages_of
from hieramp.training import runs
from hieramp.training.adversarial import (
    PatchDiscriminator,
    adaptive_weight,
    changed_alike,
    discriminator_loss,
    generator_loss,
    without_learning,
)
from hieramp.training.loop import RunSettings
from hieramp.training.recipe import build_optimizers
from hieramp.training.vqvae import LookOptions, VQVAEObjective
from hieramp.vqvae.model import VQVAE

SHARP = LookOptions(adversarial=0.1, adversarial_from=0.25)


class TwoStages(nn.Module):
    """Channels as they come, then two of them added: features that can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Identity(), nn.AvgPool2d(2)
        self.feature_info = [{"module": "first"}, {"module": "second"}]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.second(self.first(x_BCHW)).mean((2, 3))


def test_the_perceptual_distance_by_hand() -> None:
    """Features of length 1 at every position: (1, 0, 0) against (0, 1, 0) is 2 apart, at each of two stages."""
    distance = PerceptualDistance(TwoStages())
    images = torch.full((1, 3, 64, 64), -1.0)
    others = images.clone()
    images[:, 0], others[:, 1] = 1.0, 0.2
    assert distance(images, others).item() == pytest.approx(4.0, abs=1e-4)
    others[:, 0], others[:, 1] = 1.0, 1.0  # (1, 1, 0) / √2: 2 - √2 from (1, 0, 0)
    assert distance(images, others).item() == pytest.approx(2 * (2 - math.sqrt(2)), abs=1e-4)
    assert distance(images, images).item() == 0


def test_any_network_of_timms_has_stages(trained_classifier: Path) -> None:
    for name in ("resnet18", "mobilenetv3_small_050", "convnext_atto"):
        assert len(stages_of(timm.create_model(name))) >= 4, name
    distance = load_perceptual(str(trained_classifier))
    a, b = torch.rand(2, 2, 3, 32, 32).mul(2).sub(1).requires_grad_()
    distance(a, b).backward()
    assert a.grad is None or a.grad.abs().sum() > 0
    with pytest.raises(UserError, match="there is no network 'nothing' in timm"):
        load_perceptual("timm/nothing")


@pytest.fixture(scope="module")
def trained_classifier(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    few = replace(PRESET, classifier_recipe=replace(PRESET.classifier_recipe, epochs=2))
    runs.train_classifier(str(image_folder), few, RunSettings(folder, "classifier"))
    return folder


def test_what_comes_after_the_last_stage_is_not_computed() -> None:
    network = TwoStages()
    network.forward = lambda x: network.second(network.first(x)) + pytest.fail("it went on")  # type: ignore[method-assign]
    found = PerceptualDistance(network).features(torch.zeros(1, 3, 64, 64))
    assert [tuple(x.shape) for x in found] == [(1, 3, 64, 64), (1, 3, 32, 32)]


def test_measured_reconstructions_look_the_better_the_closer_they_are(trained_classifier: Path) -> None:
    classifier = load_classifier(trained_classifier)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    near, far = ((images / 255 + torch.randn(4, 3, 32, 32) * noise).clamp(0, 1) for noise in (0.02, 0.3))
    same, close, distant = (perceptual_distance(classifier, x, images) for x in (images / 255, near, far))
    assert same < 1e-6 < close < distant


def test_hinge_losses_by_hand() -> None:
    real, made = torch.tensor([0.5, 2.0]), torch.tensor([-3.0, 0.0])
    assert discriminator_loss(real, made).item() == pytest.approx(0.5 * (0.25 + 0.5))
    assert generator_loss(made).item() == 1.5


def test_the_adaptive_weight_is_the_ratio_of_gradients() -> None:
    last = nn.Parameter(torch.tensor([1.0, 1.0]))
    reconstruction, adversarial = (last * torch.tensor([3.0, 4.0])).sum(), (last * torch.tensor([0.6, 0.8])).sum()
    assert adaptive_weight(reconstruction, adversarial, last).item() == pytest.approx(5 / 1.0001)
    nothing = (last * 0).sum()
    assert adaptive_weight(reconstruction, nothing, last).item() == 1e4


def test_the_decoder_learns_from_a_discriminator_that_stands_still() -> None:
    discriminator, images = PatchDiscriminator(32, 8), torch.rand(2, 3, 32, 32, requires_grad=True)
    generator_loss(without_learning(discriminator, images)).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())


def test_both_kinds_of_images_are_changed_alike() -> None:
    images = torch.rand(4, 3, 32, 32)
    first, second = changed_alike(images, images)
    assert torch.equal(first, second) and not torch.equal(first, images)
    rows = [(first[i] - first[j]).abs().max() for i, j in ((0, 1), (1, 2))]
    assert min(rows) > 0
    assert all(0.05 < (changed == 0).float().mean() < 0.5 for changed in first)  # the square that was cut out


def test_the_discriminator_has_an_optimiser_of_its_own() -> None:
    objective = VQVAEObjective(VQVAE(TINY_VQVAE), SHARP)
    optimizers = build_optimizers(objective, PRESET.vqvae_recipe, objective.matrices(), objective.apart())
    held = [{id(p) for group in one.param_groups for p in group["params"]} for one in optimizers]
    judging = {id(p) for p in objective.look.parameters()}
    assert held[-1] == judging and not any(judging & some for some in held[:-1])
    assert optimizers[-1].param_groups[0]["betas"] == (0.5, 0.9)


def test_an_adversarial_run_that_stopped_goes_on_as_if_it_had_not(image_folder: Path, tmp_path: Path) -> None:
    def run(folder: Path, epochs: float, resume: bool = False) -> dict[str, Tensor]:
        recipe = replace(PRESET.vqvae_recipe, epochs=epochs, warmup=1e-9, hold=1.0, optimizer="adamw")
        preset = replace(PRESET, vqvae_recipe=recipe)
        look = replace(SHARP, adversarial_from=0.0)
        runs.train_vqvae(str(image_folder), preset, RunSettings(folder, "vqvae", resume=resume), look)
        return load_part(folder, "vqvae")

    torch.manual_seed(0)
    whole = run(tmp_path / "whole", 2)
    torch.manual_seed(0)
    run(tmp_path / "parts", 1)
    parts = run(tmp_path / "parts", 2, resume=True)
    assert all(torch.allclose(whole[key], parts[key], atol=1e-3) for key in whole)


def test_the_discriminator_waits_for_its_time(image_folder: Path) -> None:
    objective = VQVAEObjective(VQVAE(PRESET.vqvae), SHARP)
    images = decode(open_source(str(image_folder)), 32, limit=4).images
    for progress, has_judged in ((0.2, False), (0.3, True)):
        objective.before_step(progress)
        losses = objective(images, torch.zeros(4, dtype=torch.long))
        losses["loss"].backward()
        learned = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in objective.look.parameters()]
        assert any(learned) == has_judged and ("discriminator" in losses) == has_judged


def test_a_decoder_alone_leaves_all_tokens_and_what_stands_on_them(
    image_folder: Path, trained_classifier: Path, tmp_path: Path
) -> None:
    import tiny_train

    assert tiny_train.PRESET
    common = ["--preset", "tiny", "--data", str(image_folder), "--out", str(tmp_path)]
    for part in ("vqvae", "var", "class-tokens", "dit"):
        main(["train", part, *common])
    images = to_signed(decode(open_source(str(image_folder)), 32, limit=8).images)
    before, weights = runs.load_vqvae(tmp_path), load_part(tmp_path, "vqvae")
    looks = ["--perceptual", str(trained_classifier), "--adversarial", "0.1", "--adversarial-from", "0.1"]
    main(["train", "decoder", *common, *looks])
    after, now = runs.load_vqvae(tmp_path), load_part(tmp_path, "vqvae")
    changed = {key.split(".")[0] for key in weights if not torch.equal(weights[key], now[key])}
    assert changed == {"decoder", "post_quant_conv"}
    assert all(torch.equal(a, b) for a, b in zip(before.encode(images), after.encode(images), strict=True))
    model = hieramp.load(tmp_path, "cpu", kind="var")
    assert model.has_class_tokens and model.generate([0], [0]).images.isfinite().all()
    assert hieramp.load(tmp_path, "cpu", kind="dit").generate([0], [0], steps=2).images.isfinite().all()


def test_a_decoder_is_not_taken_for_the_one_of_another_tokenizer(image_folder: Path, tmp_path: Path) -> None:
    """A transformer that did not fit the tokenizer before does not fit it afterwards."""
    common = ["--preset", "tiny", "--data", str(image_folder)]
    for name in ("a", "b"):
        main(["train", "vqvae", *common, "--out", str(tmp_path / name), "--seed", "0" if name == "a" else "1"])
    main(["train", "var", *common, "--out", str(tmp_path / "a")])
    shutil.copy(tmp_path / "b" / "vqvae.safetensors", tmp_path / "a" / "vqvae.safetensors")
    main(["train", "decoder", *common, "--out", str(tmp_path / "a")])
    with pytest.raises(UserError, match="was trained on another"):
        hieramp.load(tmp_path / "a", "cpu")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["vqvae", "--adversarial", "-1"], "adversarial is -1.0: give a number from 0 on"),
        (["vqvae", "--adversarial-from", "1"], "adversarial_from is 1.0: give a share of the run"),
        (["var", "--perceptual", "timm/resnet18"], "--perceptual is for vqvae and decoder; var draws no pixels"),
        (["vqvae", "--perceptual", "lpips"], "--perceptual lpips needs the package lpips"),
    ],
)
def test_bad_looks_are_told(
    image_folder: Path, tmp_path: Path, given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import tiny_train

    assert tiny_train.PRESET
    with pytest.raises(SystemExit) as stopped:
        main(["train", *given, "--preset", "tiny", "--data", str(image_folder), "--out", str(tmp_path)])
    assert stopped.value.code == 2 and told in capsys.readouterr().err
