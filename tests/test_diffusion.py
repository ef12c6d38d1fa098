"""The diffusion transformer: its latents, its sampler, HierAmp on it, and its training, at tiny size."""

import argparse
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_VQVAE
from PIL import Image
from tiny_train import PRESET
from torch import Tensor

import hieramp
from hieramp.amplification.output import RunningMap
from hieramp.amplification.settings import Amplification
from hieramp.checkpoints import load_part, read_config, save_part
from hieramp.classifier import Classifier
from hieramp.commands import arguments as shared
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, DiTConfig, to_json
from hieramp.data import decode, open_source
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import LatentBasis, VQLatents, fit_basis, hash_of
from hieramp.diffusion.levels import NoiseLevel, alphas_bar, ddpm_levels, flow_levels
from hieramp.diffusion.model import GROUP, DiffusionModel
from hieramp.diffusion.noise import chances, gaussian
from hieramp.diffusion.sampler import Prediction, invert, sample
from hieramp.distillation.diffusion import DiffusionDrawer
from hieramp.distillation.maker import BatchRequest
from hieramp.distillation.plan import Item
from hieramp.settings import Settings
from hieramp.training.dit import DiTObjective, per_stage
from hieramp.training.loop import RunSettings
from hieramp.training.runs import train_dit
from hieramp.vqvae.model import VQVAE

CPU = torch.device("cpu")
TINY = DiTConfig(side=8, channels=4, num_classes=4, depth=3, width=32, num_heads=2)
ON = Amplification((0.5, 1.0), (0.5, 1.0), (0.5, 1.0))


def build(seed: int = 0, config: DiTConfig = TINY) -> DiffusionModel:
    """A random model in which nothing is zero: classes differ, and every block matters."""
    torch.manual_seed(seed)
    vqvae, dit = VQVAE(TINY_VQVAE).eval(), DiT(config).eval()
    for parameter in dit.parameters():
        parameter.data.normal_(std=0.3 if parameter.ndim > 1 else 0.1)
    basis = LatentBasis(TINY_VQVAE.code_dim, config.channels)
    basis.components.copy_(torch.linalg.qr(torch.randn(TINY_VQVAE.code_dim, config.channels)).Q)
    return DiffusionModel(VQLatents(vqvae, basis), dit, tuple("abcd"), name="tiny-dit")


@pytest.fixture(scope="module")
def drawn() -> DiffusionModel:
    return build()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """A model folder with a VQ-VAE and a DiT of two coloured classes, by the command."""
    folder = tmp_path_factory.mktemp("dit")
    common = ["--preset", "tiny", "--data", str(image_folder), "--out", str(folder)]
    main(["train", "vqvae", *common])
    main(["train", "dit", *common])
    return folder


# noise and levels


def test_noise_is_an_images_own_and_standard_normal() -> None:
    labels, seeds = [0, 1, 0], [7, 7, 8]
    together = gaussian(labels, seeds, (4, 8, 8), CPU)
    for row, (label, seed) in enumerate(zip(labels, seeds, strict=True)):
        assert torch.equal(together[row], gaussian([label], [seed], (4, 8, 8), CPU)[0])
    assert not torch.equal(together[0], together[1]) and not torch.equal(together[0], together[2])
    many = gaussian([0], [0], (100_001,), CPU)[0]
    assert abs(float(many.mean())) < 0.015 and abs(float(many.std()) - 1) < 0.01
    assert abs(float((many**4).mean()) - 3) < 0.15
    assert not torch.equal(chances([0], [0], 1, 64, CPU), chances([0], [0], 2, 64, CPU))


def test_levels_of_both_paths_meet() -> None:
    assert [level.t for level in flow_levels(4)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [level.stage for level in flow_levels(4)] == ["coarse", "mid", "fine", "fine", "fine"]
    levels = ddpm_levels(50, alphas_bar())
    assert [levels[0].time, levels[1].time, levels[-2].time] == [980, 960, 0] and len(levels) == 51
    at = {level.time: level for level in ddpm_levels(1000, alphas_bar())}
    # the table of spec section 0
    assert (round(at[400].t, 3), round(at[400].log_snr, 2)) == (0.671, -1.43)
    assert (round(at[700].t, 3), round(at[700].log_snr, 2)) == (0.923, -4.97)
    with pytest.raises(ValueError, match="steps is 2000"):
        ddpm_levels(2000, alphas_bar())


# the sampler


class Straight:
    """All data is one point: x0 is known, so every sampler must arrive there."""

    def __init__(self, goal: Tensor) -> None:
        self.goal, self.null_label, self.asked = goal, 1, 0

    def predict(self, z: Tensor, level: NoiseLevel, labels_B: Tensor, factors: object = None) -> Prediction:
        self.asked += 1
        x0 = self.goal.expand_as(z) * torch.where(labels_B == self.null_label, 0.0, 1.0)[:, None, None, None]
        return Prediction(x0, (z - level.signal * x0) / level.noise)


@pytest.mark.parametrize("levels", [flow_levels(5), ddpm_levels(5, alphas_bar())], ids=["flow", "ddpm"])
@pytest.mark.parametrize(("solver", "calls"), [("euler", 5), ("heun", 9)])
def test_both_solvers_arrive_on_both_paths(levels: list[NoiseLevel], solver: str, calls: int) -> None:
    goal, noise = torch.linspace(-1, 1, 8).view(1, 2, 2, 2), gaussian([0], [0], (2, 2, 2), CPU)
    straight = Straight(goal)
    *_, last = sample(straight, noise, levels, torch.tensor([0]), solver=solver)  # type: ignore[arg-type]
    assert torch.allclose(last.after, goal, atol=1e-5) and straight.asked == calls
    *_, pushed = sample(straight, noise, levels, torch.tensor([0]), guidance=1.5)  # type: ignore[arg-type]
    assert torch.allclose(pushed.after, 2.5 * goal, atol=1e-4)  # w = 2.5, and the null label's data lie at 0


class Gaussian(Straight):
    """Data of deviation τ around 0, whose exact x0 is known; on its way z stays at z / √(a²τ² + s²)."""

    tau = 0.5

    def __init__(self) -> None:
        super().__init__(torch.zeros(1))

    def predict(self, z: Tensor, level: NoiseLevel, labels_B: Tensor, factors: object = None) -> Prediction:
        a, s = level.signal, level.noise
        x0 = z * (a * self.tau**2 / (a**2 * self.tau**2 + s**2))
        return Prediction(x0, (z - a * x0) / s)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_twice_the_steps_halve_the_error_of_euler_and_quarter_that_of_heun(solver: str, order: int) -> None:
    noise = gaussian([0], [0], (4, 4, 4), CPU)

    def error(steps: int) -> float:
        *_, last = sample(Gaussian(), noise, flow_levels(steps), torch.tensor([0]), solver=solver)  # type: ignore[arg-type]
        return (last.after - Gaussian.tau * noise).abs().max().item()

    assert error(16) / error(32) == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize("levels", [flow_levels(6), ddpm_levels(6, alphas_bar())], ids=["flow", "ddpm"])
def test_the_first_round_of_an_inversion_is_that_of_ddim(levels: list[NoiseLevel]) -> None:
    """Back along the velocity that is foreseen at the picture itself, brought to the noisier level."""
    picture = gaussian([0], [1], (2, 2, 2), CPU)
    level, following = levels[3:5]
    back = invert(Gaussian(), picture, [level, following], torch.tensor([0]), rounds=1)  # type: ignore[arg-type]
    here, there = level.signal + level.noise, following.signal + following.noise
    found = Gaussian().predict(picture * here / there, level, torch.tensor([0]))
    assert torch.allclose(back, here * (picture / there + (level.t - following.t) * found.velocity), atol=1e-6)


def test_a_guide_leads_elsewhere() -> None:
    """A guide that wants x0 elsewhere, as those of MGD3 or DIVER will, in terms of ε: Δx0 = -(s/a)·Δε."""
    goal, anchor = torch.ones(1, 2, 2, 2), torch.full((1, 2, 2, 2), -3.0)
    noise, levels = gaussian([0], [0], (2, 2, 2), CPU), flow_levels(8)

    def pull(moment) -> Tensor:  # noqa: ANN001
        return -(moment.level.signal / moment.level.noise) * (anchor - moment.guided.x0)

    *_, last = sample(Straight(goal), noise, levels, torch.tensor([0]), guides=[pull])  # type: ignore[arg-type]
    assert torch.allclose(last.after, anchor, atol=1e-4)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_inversion_then_sampling_gives_the_latent_back(drawn: DiffusionModel, solver: str, guidance: float) -> None:
    dit, labels = drawn.denoiser, torch.tensor([0, 1, 2, 3])
    latent = gaussian([0, 1, 2, 3], [5] * 4, dit.shape, CPU)
    levels, how = dit.levels(12), {"solver": solver, "guidance": guidance}
    noise = invert(dit, latent, levels, labels, **how)
    *_, last = sample(dit, noise, levels, labels, **how)
    assert float((last.after - latent).norm() / latent.norm()) < 0.01
    part = invert(dit, latent, levels, labels, until=7, **how)
    *_, last = sample(dit, part, levels, labels, first=7, **how)
    assert last.number == 11 and float((last.after - latent).norm() / latent.norm()) < 0.01


# drawing


def test_an_image_depends_on_its_own_settings_alone(drawn: DiffusionModel) -> None:
    """To the bit, whatever is drawn beside it, wherever it stands."""
    labels, seeds = [0, 1, 2, 3, 0, 1], [3, 4, 5, 6, 7, 8]
    amps = [None, ON, replace(ON, where="random"), replace(ON, blocks=(0, 2)), replace(ON, fine=None), None]
    everything = drawn.generate(labels, seeds, amps, guidance=1.0, steps=4)
    assert len(labels) > GROUP["cpu"]
    for i in reversed(range(len(labels))):
        alone = drawn.generate([labels[i]], [seeds[i]], amps[i], guidance=1.0, steps=4)
        assert torch.equal(alone.images[0], everything.images[i])
        assert torch.equal(alone.latents[0], everything.latents[i])
        assert all(torch.equal(a[0], e[i]) for a, e in zip(alone.saliency, everything.saliency, strict=True))
    without = drawn.generate(labels[:2], seeds[:2], [None, ON], guidance=0.0, steps=4)
    assert torch.equal(drawn.generate(labels[:1], seeds[:1], guidance=0.0, steps=4).images[0], without.images[0])


def test_guidance_nought_is_no_guidance_and_alpha_nought_is_off(drawn: DiffusionModel) -> None:
    labels, seeds = [0, 1], [0, 1]
    plain = drawn.generate(labels, seeds, guidance=0.0, steps=4)
    start, levels = gaussian(labels * 2, seeds * 2, drawn.denoiser.shape, CPU), drawn.denoiser.levels(4)
    z = start
    for level, following in pairwise(levels):  # the conditional half alone
        half = drawn.denoiser.predict(z, level, torch.tensor(labels * 2))
        z = z + (following.t - level.t) * (half.eps - half.x0)
    assert torch.equal(plain.latents, z[:2])
    for guidance in (0.0, 2.0):
        off = drawn.generate(labels, seeds, guidance=guidance, steps=4)
        nought = replace(ON, coarse=(0.5, 0.0), mid=(0.3, 0.0), fine=(1.0, 0.0))
        beside = drawn.generate(labels, seeds, [nought, ON], guidance=guidance, steps=4)
        assert torch.equal(off.latents, drawn.generate(labels, seeds, nought, guidance=guidance, steps=4).latents)
        assert torch.equal(off.latents[0], beside.latents[0])
        assert not torch.allclose(off.latents[1], beside.latents[1], atol=1e-3)
    assert not torch.allclose(plain.latents, off.latents, atol=1e-3)


def test_amplification_is_one_plus_alpha_times_m_on_the_attentions_output(drawn: DiffusionModel) -> None:
    """A ⊙ (1 + α·M), token by token: at the second step by the map of the first, in the chosen block alone."""
    dit = drawn.denoiser
    seen: list[Tensor] = []
    hooks = [block.attn.register_forward_hook(lambda *args: seen.append(args[-1])) for block in dit.blocks]
    after: list[Tensor] = []
    hooks += [block.register_forward_hook(lambda *args: after.append(args[-1])) for block in dit.blocks]
    amp = Amplification(mid=(0.25, 2.0), blocks=(1,))
    first, second, third, fourth = drawn.steps([2], [0], amp, guidance=1.0, steps=4)
    for hook in hooks:
        hook.remove()
    assert not first.amplified.any() and not third.amplified.any() and not fourth.amplified.any()
    assert second.level.stage == "mid" and int(second.amplified.sum()) == 16
    halves = first._groups[0].moment
    moved = (halves.conditional.velocity - halves.unconditional.velocity).norm(dim=1)  # type: ignore[union-attr]
    around = torch.nn.functional.avg_pool2d(moved[:1, None], 3, 1, 1, count_include_pad=False)[0, 0]
    wanted = torch.zeros(64, dtype=torch.bool)
    wanted[around.flatten().topk(16).indices] = True
    assert torch.equal(second.amplified[0].flatten(), wanted)
    # the network, computed anew with the factor
    factor = torch.where(wanted, 3.0, 1.0).expand(GROUP["cpu"], -1)
    z, labels = second._groups[0].moment.z, torch.full((GROUP["cpu"],), 2)
    assert torch.equal(dit.predict(z, second.level, labels, {1: factor}).x0, second._groups[0].moment.conditional.x0)
    assert not torch.equal(dit.predict(z, second.level, labels).x0, second._groups[0].moment.conditional.x0)


def test_controls_take_the_same_share_elsewhere(drawn: DiffusionModel) -> None:
    amps = [replace(ON, where=where) for where in ("salient", "least", "random")]
    *_, last = drawn.steps([1] * 3, [5] * 3, amps, guidance=1.0, steps=6)
    salient, least, random = last.amplified
    assert [int(chosen.sum()) for chosen in last.amplified] == [32] * 3
    # a share of a half: with no ties least is all that salient leaves. The maps differ by now, so ask at step 1
    second = list(drawn.steps([1] * 3, [5] * 3, amps, guidance=1.0, steps=6))[1].amplified
    assert torch.equal(second[0], ~second[1])
    assert not torch.equal(random, salient) and not torch.equal(random, least)
    assert torch.allclose(last.saliency.sum((1, 2)), torch.ones(3))


def test_the_running_map() -> None:
    running = RunningMap()
    assert running.ranks() is None and running.saliency() is None
    first, second = torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), torch.tensor([[[0.0, 0.0], [2.0, 2.0]]])
    running.add(first)
    running.add(second)
    assert torch.allclose(running.value, 0.7 * first / 1.0 + 0.3 * second / 1.0)  # type: ignore[arg-type]


def test_a_picture_at_every_step_and_the_last_is_the_picture(drawn: DiffusionModel) -> None:
    steps = list(drawn.steps([0, 3], [1, 2], guidance=1.0, steps=3))
    assert [step.index for step in steps] == [0, 1, 2] and [step.is_last for step in steps] == [False, False, True]
    assert all(step.image.shape == (2, 3, 32, 32) and 0 <= step.image.min() <= step.image.max() <= 1 for step in steps)
    assert torch.equal(steps[-1].image, drawn.generate([0, 3], [1, 2], guidance=1.0, steps=3).images)
    uniform = list(drawn.steps([0], [1], guidance=0.0, steps=2))[-1].saliency
    assert torch.equal(uniform, torch.full((1, 8, 8), 1 / 64))
    looked = list(drawn.steps([0], [1], guidance=0.0, steps=2, maps=True))[-1]
    assert not torch.equal(looked.saliency, uniform)
    assert torch.equal(looked.latent, list(drawn.steps([0], [1], guidance=0.0, steps=2))[-1].latent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": []}, "no labels"),
        ({"labels": [9]}, "class 9 does not exist: tiny-dit has 0 to 3"),
        ({"seeds": [1, 2]}, "counts differ: 1 labels, 2 seeds"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"solver": "euler2"}, "solver is 'euler2'; it must be 'euler' or 'heun'"),
        (
            {"amplification": Amplification(mid=(0.5, 2.0), mode="attention")},
            "mode is set, which is for var models: leave it out for dit",
        ),
        (
            {"amplification": Amplification(mid=(0.5, 2.0), scales=(1,))},
            "scales is set, which is for var",
        ),
        ({"amplification": Amplification(mid=(0.5, 2.0), blocks=(3,))}, "block 3 does not exist"),
        ({"top_k": 5}, "top k is set, which is for var"),
    ],
)
def test_bad_settings_are_told(drawn: DiffusionModel, changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        drawn.generate(**({"labels": [0], "seeds": [0]} | changes))


def test_a_transformer_begins_as_nothing() -> None:
    """adaLN-Zero: at first every block is the identity, and the velocity is zero."""
    dit = DiT(TINY)
    dit.initialize()
    z, time = gaussian([0, 1], [0, 0], dit.shape, CPU), torch.tensor([100.0, 900.0])
    assert torch.equal(dit(z, time, torch.tensor([0, 4])), torch.zeros_like(z))


# latents


def test_the_basis_takes_latents_there_and_back(image_folder: Path) -> None:
    torch.manual_seed(0)
    vqvae = VQVAE(TINY_VQVAE).eval()
    images = decode(open_source(str(image_folder)), 32).images
    whole = fit_basis(vqvae, images, TINY_VQVAE.code_dim)
    with torch.no_grad():
        f = vqvae.latent(images.float() / 127.5 - 1)
    w = whole.project(f)
    assert torch.allclose(whole.restore(w), f, atol=1e-5)
    variances = w.movedim(1, -1).flatten(0, -2).var(0, unbiased=False)
    assert torch.allclose(variances.mean(), torch.tensor(1.0), atol=1e-3)  # one scale for all
    assert (variances.diff() <= 1e-5).all()  # the widest direction first
    between = torch.cov(w.movedim(1, -1).flatten(0, -2).T)
    assert float((between - between.diag().diag()).abs().max()) < 1e-3
    few = fit_basis(vqvae, images)
    assert few.num_components < TINY_VQVAE.code_dim
    latents = VQLatents(vqvae, few)
    pictures = images.float() / 255
    with torch.no_grad():
        near, full = latents.decode(latents.encode(pictures)), VQLatents(vqvae, whole).decode(w)
    loss = 10 * torch.log10((near - pictures).square().mean() / (full - pictures).square().mean())
    assert float(loss) < 0.15  # fitted to 0.1 dB
    with pytest.raises(ValueError, match="all images are alike"):
        fit_basis(Pooled(), torch.zeros(4, 3, 32, 32, dtype=torch.uint8))  # type: ignore[arg-type]


# training


def test_a_trained_folder_loads_and_draws_the_same(trained: Path) -> None:
    config = read_config(trained)
    assert config["dit"]["num_classes"] == 2 and config["trained"]["dit"]["steps"] == 24
    model = hieramp.load(trained, "cpu")
    assert model.kind == "dit" and model.class_names == ("blue", "red")
    once, again = (hieramp.load(trained, "cpu").generate([0, 1], [0, 0], steps=3).images for _ in range(2))
    assert torch.equal(once, again)
    assert {path.name.split("-")[0] for path in (trained / "samples").glob("dit-*.png")} == {"dit"}
    assert list((trained / "logs" / "dit").rglob("events.out.tfevents.*"))


def test_another_vqvae_is_refused(trained: Path, image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(trained, folder)
    other = {key: value + 1 for key, value in load_part(folder, "vqvae").items()}
    save_part(folder, "vqvae", other)
    with pytest.raises(ValueError, match="latents of another VQ-VAE"):
        hieramp.load(folder, "cpu")
    with pytest.raises(ValueError, match="latents of another VQ-VAE"):
        train_dit(str(image_folder), PRESET, RunSettings(tmp_path / "other", "dit", warm_start=trained))


def test_a_stopped_run_goes_on_in_the_same_basis(trained: Path, image_folder: Path, tmp_path: Path) -> None:
    """Stopped and resumed, the weights are those of the undisturbed run."""
    from hieramp.training import loop

    folder = tmp_path / "stopped"
    folder.mkdir()
    shutil.copy(trained / "vqvae.safetensors", folder)
    config = read_config(trained)
    hieramp.checkpoints.write_config(folder, vqvae=config["vqvae"], class_names=config["class_names"])
    common = ["--preset", "tiny", "--data", str(image_folder), "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "stop_on_signal", _stopping_after(9))
        main(["train", "dit", *common])
    assert read_config(folder)["trained"]["dit"]["steps"] == 9
    main(["train", "dit", *common, "--resume"])
    for part in ("dit", "latents"):
        ours, theirs = load_part(folder, part), load_part(trained, part)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def _stopping_after(steps: int):  # noqa: ANN202
    from contextlib import nullcontext

    class Stop:
        left = steps

        def is_set(self) -> bool:
            self.left -= 1
            return self.left < 0

    return lambda: nullcontext(Stop())


def test_the_loss_by_stage_of_noise() -> None:
    parts = per_stage(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0.95, 0.9, 0.7, 0.1]))
    assert {key: float(value) for key, value in parts.items()} == {
        "velocity/fine": 8.0,
        "velocity/mid": 4.0,
        "velocity/coarse": 1.5,
    }


def test_muon_takes_the_blocks_matrices_and_nothing_else() -> None:
    objective = DiTObjective(DiT(TINY), VQVAE(TINY_VQVAE), LatentBasis(8, 4))
    assert len(objective.matrices()) == 4 * TINY.depth
    assert not {name for name in objective.matrices() if "ada" in name or "embed" in name or "head" in name}


class Pooled(torch.nn.Module):
    """Stands in for a VQ-VAE that is trained: a latent is the mean colour of 4×4 pixels."""

    def latent(self, images_BCHW: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images_BCHW, 4)

    def to_images(self, f_BCHW: Tensor) -> Tensor:
        return (torch.nn.functional.interpolate(f_BCHW, scale_factor=4) / 2 + 0.5).clamp(0, 1)


def test_two_colours_are_learned(image_folder: Path) -> None:
    """A planted problem: after seconds of training, a picture has the mean colour of the class asked for."""
    torch.manual_seed(0)
    images, pooled = decode(open_source(str(image_folder)), 32), Pooled()
    basis = fit_basis(pooled, images.images)  # type: ignore[arg-type]
    assert basis.num_components == 3
    config = replace(TINY, num_classes=2, channels=3)
    objective = DiTObjective(DiT(config), pooled, basis)  # type: ignore[arg-type]
    objective.model.initialize()
    optimizer = torch.optim.Adam(objective.parameters(), 6e-3)
    losses = []
    for _ in range(100):
        picked = torch.randint(len(images), (16,))
        loss = objective(images.images[picked], images.labels[picked])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
    latents = VQLatents(pooled, basis)  # type: ignore[arg-type]
    model = DiffusionModel(latents, objective.model.eval(), ("blue", "red"))
    drawn = model.generate([0] * 4 + [1] * 4, range(8), guidance=0.5, steps=12).images.mean((2, 3))
    of_class = torch.stack([images.images[images.labels == label].float().mean((0, 2, 3)) / 255 for label in (0, 1)])
    assert torch.cdist(drawn, of_class).argmin(1).tolist() == [0] * 4 + [1] * 4
    assert float((drawn[:4].mean(0) - of_class[0]).norm()) < 0.2
    assert float((drawn[4:].mean(0) - of_class[1]).norm()) < 0.2


def test_hash_follows_the_weights() -> None:
    vqvae = VQVAE(TINY_VQVAE)
    before = hash_of(vqvae)
    next(vqvae.parameters()).data += 1
    assert not torch.equal(before, hash_of(vqvae))


# the doors


def test_the_commands_take_a_diffusion_model(trained: Path, tmp_path: Path) -> None:
    common = ["--class", "red", "--model", str(trained), "--device", "cpu"]
    out = tmp_path / "sheet.png"
    how = ["--steps", "3", "--solver", "heun", "--guidance", "2", "--stages", "coarse=off,mid=50%:2,fine=25%:1"]
    main(["generate", *common, *how, "--count", "2", "--strip", "--out", str(out)])
    told = json.loads(Image.open(out).text["hieramp"])
    assert (told["steps"], told["solver"], told["guidance"]) == (3, "heun", 2.0)
    assert told["stages"] == {"coarse": None, "mid": [0.5, 2.0], "fine": [0.25, 1.0]} and "top_k" not in told
    assert (tmp_path / "sheet-steps.png").is_file()
    main(["saliency", *common, "--steps", "3", "--guidance", "0", "--out", str(out)])
    told = json.loads(Image.open(out).text["hieramp"])
    assert told["stages"] == {"coarse": None, "mid": None, "fine": None}


def test_a_schedules_name_means_alpha(trained: Path) -> None:
    parser = argparse.ArgumentParser()
    shared.add_drawing(parser)
    args = parser.parse_args(["--stages", "mid"])
    assert (shared.settings(args, "dit").mid, shared.settings(args).mid) == ((0.5, 1.0), (0.5, 5.0))
    assert (shared.settings(args, "dit").guidance, shared.settings(args).guidance) == (1.5, 4.0)
    written = parser.parse_args(["--stages", "coarse=50%:5,mid=50%:5,fine=50%:5"])
    assert shared.settings(written, "dit").mid == (0.5, 5.0)
    with pytest.raises(ValueError, match="cannot read stage 'weak-mid'"):
        shared.settings(parser.parse_args(["--stages", "weak-mid"]), "dit")


def test_settings_of_a_diffusion_model_are_stored_and_read() -> None:
    settings = Settings(steps=50, solver="heun", guidance=2.0, mid=(0.5, 1.0))
    stored = json.loads(json.dumps(settings.to_json("dit")))
    assert Settings.from_json(stored) == settings and "temperature" not in stored
    assert "steps" not in Settings().to_json()  # sets of a VAR keep their bytes
    with pytest.raises(ValueError, match="steps is set, which is for dit"):
        settings.check_kind("var")


def test_a_set_is_the_same_at_any_batch_size_and_after_a_stop(trained: Path, tmp_path: Path) -> None:
    model = hieramp.load(trained, "cpu", kind="dit")
    how = {"steps": 3, "seed": 2}
    hieramp.distill(model, 5, tmp_path / "a.zip", batch_size=7, **how).run()
    stopped = iter(hieramp.distill(model, 5, tmp_path / "b.zip", batch_size=3, **how))
    next(stopped)
    stopped.close()
    assert not (tmp_path / "b.zip").exists()
    hieramp.distill(model, 5, tmp_path / "b.zip", batch_size=4, **how).run()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    opened = hieramp.open_set(tmp_path / "a.zip")
    assert opened.manifest["settings"]["steps"] == 3
    assert opened.manifest["settings"]["stages"]["mid"] == [0.5, 1.0]
    drawn = model.generate([1], [2_000_003], settings=hieramp.settings.FOR_SETS["dit"], steps=3).images[0]
    pixels = (drawn.permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.abs(np.asarray(opened.image(8)).astype(int) - pixels).max() <= 1


def test_what_is_a_vars_alone_says_so(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes neither var_checkpoint nor class_tokens"):
        hieramp.load(trained, "cpu", class_tokens="kept")
    args = argparse.Namespace(
        model=str(trained), device="cpu", dtype="float32", var_checkpoint=None, class_tokens=None, classes_from=None
    )
    with pytest.raises(ValueError, match="is a diffusion transformer: this command takes a VAR"):
        shared.load_model(args)
    with pytest.raises(ValueError, match="has no var yet"):
        hieramp.load(trained, "cpu", kind="var")


def test_measure_judges_it_and_writes_the_card(
    trained: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "measured"
    shutil.copytree(trained, folder)
    config = ClassifierConfig(num_classes=2, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    save_part(folder, "classifier", Classifier(config).state_dict())
    hieramp.checkpoints.write_config(folder, classifier=to_json(config))
    how = ["--guidance", "0", "2", "--steps", "2", "--per-class", "4"]
    main(["measure", "--model", str(folder), "--data", str(image_folder), "--device", "cpu", *how])
    measured = json.loads((folder / "measured.json").read_text())["dit"]
    real, *drawn = measured["rows"]
    assert [row["setting"] for row in drawn[:2]] == ["guidance 0, 2 steps", "guidance 2, 2 steps"]
    assert drawn[2]["setting"].endswith(", amplified") and real["images"] == 8 and measured["test_images"] == 16
    assert all(0 <= row["accuracy"] <= 1 and row["fid"] > 0 and row["nearest"] > 0 for row in measured["rows"])
    card = (folder / "README.md").read_text()
    assert f"**{max(row['accuracy'] for row in drawn[:2]):.1%}**" in card and "samples-dit.png" in card
    with pytest.raises(SystemExit):
        main(["measure", "--model", str(folder), "--data", str(image_folder), "--top-k", "5", "--device", "cpu"])
    assert "error: top k is set, which is for var models: leave it out for dit" in capsys.readouterr().err


def test_the_surest_of_several_candidates_is_kept(drawn: DiffusionModel) -> None:
    torch.manual_seed(1)
    config = ClassifierConfig(num_classes=4, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    judge = Classifier(config).eval()
    drawer = DiffusionDrawer(drawn, Settings(steps=2, guidance=1.0), 32, judge, candidates=3)
    made = drawer.make(BatchRequest(tuple(Item(i, i % 4, 10 * i, "") for i in range(5))))().made
    assert [one.index for one in made] == list(range(5))
    for i, one in enumerate(made):
        images = drawn.generate([i % 4] * 3, [10 * i + c for c in range(3)], steps=2, guidance=1.0).images
        with torch.no_grad():
            sure = judge((images * 255).round() / 255).log_softmax(-1)[:, i % 4]
        assert one.chosen == int(sure.argmax())


def test_half_precision_draws_nearly_the_same() -> None:
    model = build(seed=3)
    full = model.generate([0, 1], [0, 0], steps=3).latents
    half = model.to("cpu", torch.bfloat16).generate([0, 1], [0, 0], steps=3).latents
    assert model.dtype == torch.bfloat16 and half.dtype == torch.float32
    assert 0 < float((half - full).norm() / full.norm()) < 0.1


def test_blocks_compile_whole() -> None:
    """What training on a GPU does, by the eager backend: no break in the graph, the same loss."""
    torch.manual_seed(0)
    objective = DiTObjective(DiT(replace(TINY, depth=1)), Pooled(), LatentBasis(3, 4))  # type: ignore[arg-type]
    objective.model.initialize()
    torch.nn.init.normal_(objective.model.head.weight)
    images, labels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 3])
    losses = []
    for compiled in (False, True):
        if compiled:
            assert objective.compile_parts("eager")
        torch.manual_seed(1)
        losses.append(objective(images, labels)["loss"])
    assert torch.allclose(*losses) and losses[1].requires_grad


def test_a_warm_start_takes_basis_and_weights(trained: Path, image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "warm"
    folder.mkdir()
    shutil.copy(trained / "vqvae.safetensors", folder)
    hieramp.checkpoints.write_config(folder, vqvae=read_config(trained)["vqvae"], class_names=["blue", "red"])
    short = replace(PRESET, dit_recipe=replace(PRESET.dit_recipe, epochs=1, learning_rate=1e-9))
    train_dit(str(image_folder), short, RunSettings(folder, "dit", warm_start=trained))
    assert all(
        torch.equal(load_part(folder, "latents")[key], value) for key, value in load_part(trained, "latents").items()
    )
    ours, theirs = load_part(folder, "dit"), load_part(trained, "dit")
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-3) for key in theirs)
    assert len(read_config(folder)["trained"]["dit"]["before"]) == 1
    wider = replace(short, dit=replace(PRESET.dit, width=64))
    with pytest.raises(ValueError, match="has other sizes"):
        train_dit(str(image_folder), wider, RunSettings(tmp_path / "warm", "dit", warm_start=trained))
