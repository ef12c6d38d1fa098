"""Distribution matching: its parts against their formulas, and whole sets of coloured patterns."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import hieramp
from hieramp.commands.main import main
from hieramp.data import decode, open_source
from hieramp.distillation import dm
from hieramp.distillation.dm import PRESETS, Matcher, Matching, fresh_network, match, statistics
from hieramp.distillation.siamese import FAMILIES, Change, changed, draw
from hieramp.errors import UserError
from hieramp.imageset.verify import problems

CPU = torch.device("cpu")
FEW = Matching(4, 3)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dm, "WIDTH", 8)
    monkeypatch.setattr(dm.EmbeddingNet.__init__, "__defaults__", (8,))
    monkeypatch.setattr(dm.fresh_network, "__defaults__", (8,))


# siamese augmentation


@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_is_the_same_for_all_images_and_lets_gradients_through(family: str) -> None:
    one = torch.randn(1, 3, 16, 16, requires_grad=True)
    change = Change(family, (0.3, 0.8, 0.6))
    many = changed(one.expand(3, -1, -1, -1), change)
    assert many.shape == (3, 3, 16, 16) and torch.equal(many[0], many[2])
    many.sum().backward()
    assert one.grad is not None and float(one.grad.abs().sum()) > 0


def test_each_family_does_what_it_says() -> None:
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(changed(x, Change("flip", (0.49, 0, 0))), x.flip(-1))
    assert torch.equal(changed(x, Change("flip", (0.5, 0, 0))), x)
    assert torch.equal(changed(x, Change("crop", (0.0, 0.0, 0)))[..., 2:, 2:], x[..., :-2, :-2])
    assert torch.allclose(changed(x, Change("rotate", (0.5, 0, 0))), x, atol=1e-5)
    unit = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)  # where the scale is 1
    assert torch.allclose(changed(x, Change("scale", (unit, unit, 0))), x, atol=1e-4)
    neutral = changed(x, Change("color", (0.5, 0.5, 0.5)))
    assert torch.allclose(neutral, x, atol=1e-5)
    cut = changed(x, Change("cutout", (0.5, 0.5, 0)))
    assert int((cut[0, 0] == 0).sum()) == 64 and torch.equal(cut[..., :4, :], x[..., :4, :])
    drawn = {draw(np.random.default_rng(seed)).family for seed in range(60)}
    assert drawn == set(FAMILIES)


# the objective


def test_the_network_is_the_papers_convnet() -> None:
    torch.manual_seed(0)
    network = dm.EmbeddingNet(32, 128)
    x = torch.randn(2, 3, 32, 32)
    assert network(x).shape == (2, 2048)
    features = network(x)
    for layer in (layer for layer in network if isinstance(layer, torch.nn.Conv2d)):
        x = F.avg_pool2d(F.relu(F.instance_norm(layer(x))), 2)
    assert torch.allclose(features, x.flatten(1), atol=1e-4)


def test_a_networks_weights_are_of_its_seed() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (fresh_network(16, seed, CPU) for seed in (1, 1, 2))
    assert torch.equal(one[0].weight, same[0].weight) and not torch.equal(one[0].weight, other[0].weight)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_step_goes_down_the_gradient_of_the_distance_of_means(image_folder: Path) -> None:
    matcher = _matcher(image_folder, Matching(4, 24))  # all real images of a class
    before = matcher.images.detach().clone()
    matcher.step()
    network = fresh_network(32, dm.seed_of(0, 0, 0), CPU)
    rng = np.random.default_rng((0, 0, 1))
    changes = [draw(rng) for _ in range(2)]
    images = before.requires_grad_()
    loss = torch.zeros(())
    for c, how in enumerate(changes):
        real = matcher._normalised(matcher.of_class[c])
        gap = network(changed(real, how)).mean(0) - network(changed(images[c], how)).mean(0)
        loss = loss + (gap**2).sum()
    loss.backward()
    assert loss.item() == pytest.approx(matcher.loss, rel=1e-4)
    assert images.grad is not None
    assert torch.allclose(matcher.images, before - images.grad, atol=1e-4)  # learning rate 1


def test_the_descent_is_the_papers(image_folder: Path) -> None:
    """SGD with momentum 0.5, at rate 1, from 100 images a class on at 10."""
    (group,) = _matcher(image_folder, Matching()).optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1.0, 0.5, 0)
    assert Matching().rate(99) == 1 and Matching().rate(100) == 10 and Matching(learning_rate=3.0).rate(100) == 3


def test_the_distance_falls(image_folder: Path) -> None:
    def distance(images: torch.Tensor) -> float:
        network = fresh_network(32, 99, CPU)
        means = [network(images[c]).mean(0) for c in range(2)]
        goals = [network(matcher._normalised(rows)).mean(0) for rows in matcher.of_class]
        return float(sum((a - b).square().sum() for a, b in zip(means, goals, strict=True)))

    matcher = _matcher(image_folder, Matching(60, 24))
    first = distance(matcher.images.detach())
    for _ in range(60):
        matcher.step()
    assert distance(matcher.images.detach()) < 0.7 * first


def test_bfloat16_is_for_the_real_images_alone(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dm, "supports_fast_bf16", lambda device: True)
    exact, rounded = (_matcher(image_folder, Matching(4, 24, bfloat16=half)) for half in (False, True))
    start = exact.images.detach().clone()
    exact.step()
    rounded.step()
    assert rounded.images.dtype == torch.float32 and not torch.equal(exact.images, rounded.images)
    difference = (exact.images - rounded.images).norm() / (exact.images - start).norm()
    assert float(difference.detach()) < 0.1


def test_statistics_are_those_of_the_authors_constants() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    mean, std = statistics(images)
    unit = images.float() / 255
    assert torch.allclose(mean.flatten(), unit.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(std.flatten(), unit.flatten(2).std(2, unbiased=False).mean(0), atol=1e-5)


def _matcher(folder: Path, matching: Matching) -> Matcher:
    held = decode(open_source(str(folder)), 32)
    chosen = torch.stack([torch.nonzero(held.labels == label).flatten()[:2] for label in (0, 1)])
    return Matcher(held.images, held.labels, chosen, (0, 1), 0, matching, CPU)


# whole sets


def test_the_command_makes_a_set(image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dm.zip"
    arguments = ["--method", "dm", "--data", str(image_folder), "--ipc", "2", "--out", str(out)]
    main(["distill", *arguments, "--preset", "preview", "--iterations", "2", "--real-images", "4", "--device", "cpu"])
    with hieramp.open_set(out) as made:
        assert made.labels == (0, 0, 1, 1) and made.class_names == ("blue", "red") and not list(problems(made))
        assert made.settings["iterations"] == 2 and made.settings["learning_rate"] == 1.0
        assert "distribution matching" in made.read("README.md").decode()
        pixels = [np.asarray(made.image(i), dtype=float).mean((0, 1)) for i in (0, 2)]
    assert pixels[0].argmax() == 2 and pixels[1].argmax() == 0


def test_killed_it_goes_on_to_the_same_bytes(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dm, "SAVE_SECONDS", 0.0)
    source = open_source(str(image_folder))
    how = {"device": "cpu", "seed": 5}
    *_, whole = match(source, 2, tmp_path / "whole.zip", FEW, **how)  # type: ignore[arg-type]
    out = tmp_path / "killed.zip"
    pid = os.fork()
    if pid == 0:
        for number, _ in enumerate(match(source, 2, out, FEW, **how)):  # type: ignore[arg-type]
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]) and not out.exists()
    assert int(dm.read_safetensors(tmp_path / "killed.zip.part" / dm.STATE)["done"]) >= 1
    *_, last = match(source, 2, out, FEW, **how)  # type: ignore[arg-type]
    assert last.finished and out.read_bytes() == whole.path.read_bytes()
    *_, other = match(source, 2, tmp_path / "other.zip", FEW, device="cpu", seed=6)
    assert other.path.read_bytes() != whole.path.read_bytes()


def test_bad_input_is_one_sentence(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = open_source(str(image_folder)), tmp_path / "x.zip"
    with pytest.raises(UserError, match="iterations is 0"):
        Matching(0)
    with pytest.raises(UserError, match="24 images of blue"):
        match(source, 25, out, FEW)
    with pytest.raises(UserError, match="diverged"):
        list(match(source, 2, out, Matching(9, 4, 1e38)))
    for line, sentence in {
        "--method dm": "takes real images",
        "--iterations 3": "belong to --method dm",
        f"--method dm --data {tmp_path} --candidates 2": "neither",
    }.items():
        with pytest.raises(SystemExit):
            main(["distill", "--ipc", "1", "--out", str(out), *line.split()])
        assert sentence in capsys.readouterr().err
    assert not out.exists() and PRESETS["full"] == Matching(20_000, 256)
