"""DIVER: any distilled set drawn anew by a tiny diffusion model."""

import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import build_model
from PIL import Image
from test_diffusion import build
from torch import Tensor

import hieramp
from hieramp.diffusion.levels import alphas_bar, ddpm_levels
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.noise import gaussian
from hieramp.diffusion.sampler import sample
from hieramp.distillation import maker
from hieramp.distillation.diver import Diver, paper_level, recovered
from hieramp.distillation.given import open_given, read_tensors
from hieramp.errors import UserError
from hieramp.imageset.verify import problems

CPU = torch.device("cpu")
FAST = {"steps": 4, "grid": "model"}


@pytest.fixture(scope="module")
def tiny() -> DiffusionModel:
    return build()  # classes a, b, c, d of 16 px


def noise_images(count: int, side: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).random((count, 3, side, side), dtype=np.float32))


def write_folder(root: Path, counts: dict[str, int], side: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(noise_images(count, side)):
            pixels = (image * 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


# the formulas


def test_steps_of_the_paper_have_the_noise_of_ddpm() -> None:
    # the table of section 0 of the specification: DDPM's times 500 and 800
    assert (round(paper_level(25).t, 3), round(paper_level(40).t, 3)) == (0.775, 0.963)
    assert paper_level(0).noise == 0 and paper_level(50).signal == 0


@pytest.mark.parametrize("start", ["top", "level"])
def test_without_a_window_it_is_img2img(tiny: DiffusionModel, start: str) -> None:
    """Noise on the latent, then nothing but sampling."""
    side, labels, seeds = tiny.image_size, [0, 1, 2, 3], [4, 5, 6, 7]
    images = noise_images(4, side)
    diver = Diver(steps=6, window_start=25, window_end=25, start=start, guidance=1.0)
    levels = diver.levels(tiny.denoiser)
    assert [level.t for level in levels] == [level.t for level in ddpm_levels(6, alphas_bar())]
    with torch.no_grad():
        z0 = tiny.latents.encode(images)
    eps = gaussian(labels, seeds, tiny.denoiser.shape, CPU)
    if start == "top":  # a latent of unit variance, in the place of the noise
        noised = paper_level(25)
        first, norm = 0, (levels[0].signal ** 2 + levels[0].noise ** 2) ** 0.5
        z = norm * (noised.signal * z0 + noised.noise * eps)
    else:
        first = min(range(6), key=lambda k: abs(levels[k].t - paper_level(25).t))
        z = (1 - levels[first].t) * z0 + levels[first].t * eps
    *_, last = sample(tiny.denoiser, z, levels, torch.tensor(labels), guidance=1.0, first=first)
    with torch.no_grad():
        assert torch.equal(recovered(tiny, images, labels, seeds, diver), tiny.latents.decode(last.after))


@pytest.mark.parametrize("difference", ["before", "after"])
@pytest.mark.parametrize("sigma", ["marginal", "posterior"])
def test_the_pull_is_that_of_the_paper(tiny: DiffusionModel, difference: str, sigma: str) -> None:
    """One step with its guide, and z ← z - γ·σ_t·(z_t - z0) made by hand after a step without."""
    diver = Diver(steps=10, gamma=0.3, difference=difference, sigma=sigma, window_start=50, window_end=0)
    levels, labels = diver.levels(tiny.denoiser), torch.tensor([0, 1])
    z0 = gaussian([0, 1], [8, 9], tiny.denoiser.shape, CPU)
    z = gaussian([0, 1], [1, 2], tiny.denoiser.shape, CPU)
    plain = next(sample(tiny.denoiser, z, levels, labels, first=3)).after
    pulled = next(sample(tiny.denoiser, z, levels, labels, first=3, guides=diver.guides(z0, levels))).after
    here, there = levels[3], levels[4]
    norm_here, norm_there = np.hypot(here.signal, here.noise), np.hypot(there.signal, there.noise)
    kept, then = (here.signal / norm_here) ** 2, (there.signal / norm_there) ** 2
    deviation = (1 - kept) ** 0.5 if sigma == "marginal" else ((1 - then) / (1 - kept) * (1 - kept / then)) ** 0.5
    compared = z / norm_here if difference == "before" else plain / norm_there
    expected = plain - norm_there * 0.3 * deviation * (compared - z0)
    assert torch.allclose(pulled, expected, atol=1e-4) and not torch.allclose(plain, expected, atol=1e-2)


def test_only_steps_inside_the_window_are_pulled(tiny: DiffusionModel) -> None:
    diver = Diver()
    levels = diver.levels(tiny.denoiser)
    z0 = torch.zeros(1, *tiny.denoiser.shape)
    guide = diver.guides(z0, levels)[0]
    z = torch.ones_like(z0)
    moments = sample(tiny.denoiser, z, levels, torch.tensor([0]))
    pulled = [k for k, moment in enumerate(moments) if k < 49 and bool(guide(moment).any())]
    times = [980 - 20 * k for k in pulled]  # DDIM's
    assert max(times) == 800 and min(times) == 520


def test_the_foreseen_picture_is_pulled_as_in_mgd3(tiny: DiffusionModel) -> None:
    """ε ← ε - γ·√(1-ᾱ)·(z0 - x0): the picture moves towards z0, the noised latent stays what it is."""
    diver = Diver(steps=10, gamma=0.2, pull="x0", window_start=50, window_end=0)
    levels, labels = diver.levels(tiny.denoiser), torch.tensor([0, 1])
    z0 = gaussian([0, 1], [8, 9], tiny.denoiser.shape, CPU)
    z = gaussian([0, 1], [1, 2], tiny.denoiser.shape, CPU)
    plain = next(sample(tiny.denoiser, z, levels, labels, first=4)).guided
    pulled = next(sample(tiny.denoiser, z, levels, labels, first=4, guides=diver.guides(z0, levels))).guided
    a, s = levels[4].signal, levels[4].noise
    share = 0.2 * s / np.hypot(a, s) * s / a
    assert torch.allclose(pulled.x0, plain.x0 + share * (z0 - plain.x0), atol=1e-4)
    assert torch.allclose(a * pulled.x0 + s * pulled.eps, z, atol=1e-4)


# whole sets


def test_any_set_gives_one_of_the_same_size(
    tiny: DiffusionModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "given", {"b": 3, "d": 1}, 20)
    out = hieramp.recover(folder, tiny, tmp_path / "out.zip", **FAST).run()
    side = tiny.image_size
    assert f"images of 20×20 pixels are resized to {side}×{side}" in capsys.readouterr().err
    with hieramp.open_set(out) as made:
        assert made.labels == (1, 1, 1, 3) and made.image_size == side
        assert not list(problems(made))
        assert made.settings["recovered_from"]["name"] == "given" and made.settings["gamma"] == 0.1
        assert "1 to 3 images a class" in made.read("README.md").decode()
    again = hieramp.recover(out, tiny, tmp_path / "again.zip", seed=1, **FAST).run()  # a set of ours
    with hieramp.open_set(again) as made:
        assert made.labels == (1, 1, 1, 3)


def test_batches_do_not_change_a_byte(tiny: DiffusionModel, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "given", {"a": 4, "c": 3}, tiny.image_size)
    one = hieramp.recover(folder, tiny, tmp_path / "one.zip", batch_size=1, **FAST).run()
    all_at_once = hieramp.recover(folder, tiny, tmp_path / "all.zip", batch_size=7, **FAST).run()
    assert one.read_bytes() == all_at_once.read_bytes()


def test_killed_it_goes_on_to_the_same_bytes(tiny: DiffusionModel, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "given", {"a": 6, "b": 6}, tiny.image_size)
    whole = hieramp.recover(folder, tiny, tmp_path / "whole.zip", batch_size=2, **FAST).run()
    out = tmp_path / "killed.zip"
    pid = os.fork()
    if pid == 0:
        maker._single_threads.cache_clear()  # threads do not live on in a fork
        for progress in hieramp.recover(folder, tiny, out, batch_size=2, **FAST):
            if progress.done >= 4:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert not out.exists()
    progress = hieramp.recover(folder, tiny, out, batch_size=2, **FAST)
    assert next(iter(progress)).done >= 4
    assert hieramp.recover(folder, tiny, out, batch_size=2, **FAST).run().read_bytes() == whole.read_bytes()
    assert not out.with_name("killed.zip.part").exists()


# the files of others


def test_files_of_dc_and_dm_and_mtt_are_read(tmp_path: Path) -> None:
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])
    dm = {"data": [[images + 1, labels], [images, labels]], "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}
    torch.save(dm, tmp_path / "res_DM.pt")
    found, numbers = read_tensors(tmp_path / "res_DM.pt", 1)
    assert torch.equal(found, images) and torch.equal(numbers, labels)
    torch.save([images, torch.eye(2)[labels]], tmp_path / "pair.pt")  # soft labels
    assert torch.equal(read_tensors(tmp_path / "pair.pt")[1], labels)
    torch.save(images, tmp_path / "images_best.pt")
    torch.save(labels, tmp_path / "labels_best.pt")
    assert torch.equal(read_tensors(tmp_path / "images_best.pt")[0], images)


def test_normalised_pixels_are_made_visible_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = noise_images(2, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    torch.save([(unit - mean) / std, torch.tensor([1, 0])], tmp_path / "set.pt")
    given = open_given(tmp_path / "set.pt", ("a", "b"))
    said = capsys.readouterr().err
    assert "normalised as those of cifar10" in said and "label 0 is taken for a" in said
    assert given.labels == (0, 1)
    shown = torch.from_numpy(np.asarray(given.read(1)).copy()).permute(2, 0, 1).float() / 255
    assert float((shown - unit[0]).abs().max()) < 0.005  # label 1 was the first in the file
    named = open_given(tmp_path / "set.pt", ("a", "b", "c"), classes=["c", "a"])
    assert named.labels == (0, 2)


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("was-opened"),))


def test_bad_sets_are_one_sentence_and_leave_nothing(
    tiny: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    saved: dict[str, object] = {
        "images_alone.pt": images,
        "one.pt": [images],
        "objects.pt": {"data": [[images, labels]], "more": Harmful()},
        "counts.pt": [images, labels[:1]],
        "ninth.pt": [images, torch.tensor([0, 9])],
        "nan.pt": [images * float("nan"), labels],
        "flat.pt": [images.flatten(1), labels],
        "words.pt": {"a": 1},
    }
    for name, value in saved.items():
        torch.save(value, tmp_path / name)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "one.pt").read_bytes()[:200])
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Harmful()))
    loose = tmp_path / "loose"
    loose.mkdir()
    Image.new("RGB", (8, 8)).save(loose / "a.png")
    write_folder(tmp_path / "strange", {"zebra": 1}, 8)
    expected = {
        "images_alone.pt": "without labels",
        "one.pt": "without labels",
        "objects.pt": "it was not opened",
        "plain.pt": "it was not opened",
        "counts.pt": "2 images and 1 labels",
        "ninth.pt": "has the label 9",
        "nan.pt": "no numbers",
        "flat.pt": "shape",
        "words.pt": "no list of images and labels",
        "cut.pt": "truncated|damaged",
        "missing.pt": "does not exist",
        "loose": "class",
        "strange": "no class 'zebra'",
    }
    for name, sentence in expected.items():
        with pytest.raises(UserError, match=sentence):
            hieramp.recover(tmp_path / name, tiny, tmp_path / "out.zip")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("out", "was-opened"))]


def test_bad_settings_are_one_sentence(tiny: DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="window is from step 10 to 20"):
        Diver(window_start=10, window_end=20)
    with pytest.raises(UserError, match="pull is 'y'"):
        Diver(pull="y")
    with pytest.raises(UserError, match="is a VAR"):
        hieramp.recover(tmp_path, build_model(), tmp_path / "out.zip")  # type: ignore[arg-type]
