"""The methods of distillation on a tiny diffusion transformer: their formulas, their checks, and the same bytes."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_VQVAE
from test_diffusion import TINY
from torch import Tensor

import hieramp
from hieramp.checkpoints import read_config, save_part, write_config
from hieramp.classifier import Classifier
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, DiTConfig, to_json
from hieramp.data import DataSource, open_source
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import LatentBasis, hash_of
from hieramp.diffusion.levels import NoiseLevel, log_snr_at
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.noise import gaussian
from hieramp.diffusion.sampler import Moment, Prediction, invert, sample
from hieramp.distillation.distill import distill
from hieramp.distillation.methods import store
from hieramp.distillation.methods.anchors import AnchorsOf, k_means
from hieramp.distillation.methods.cao2 import CaO2, Refined
from hieramp.distillation.methods.d3hr import D3HR
from hieramp.distillation.methods.d4m import D4M, NoisedAnchors
from hieramp.distillation.methods.method import Method
from hieramp.distillation.methods.mgd3 import MGD3, Pull
from hieramp.distillation.methods.noise_levels import levels_of, log_snr_of, respaced
from hieramp.distillation.methods.tgdd import TGDD, histograms, own_codes, structural_scores
from hieramp.distillation.plan import Item
from hieramp.errors import UserError
from hieramp.imageset.reader import open_set
from hieramp.scales import Scales
from hieramp.training.minimax import LatentMemory, MinimaxObjective, MinimaxOptions, folded, only_small_parts
from hieramp.vqvae.model import VQVAE

CPU = torch.device("cpu")
SMALL = DiTConfig(side=8, channels=4, num_classes=2, depth=2, width=32, num_heads=2)
OPTIONS = {"steps": 4, "guidance": 0.5}
BY: dict[str, Method] = {
    "mgd3": MGD3(),
    "tgdd": TGDD(averaged=3),
    "d4m": D4M(),
    "d3hr": D3HR(groups=50),
    "cao2": CaO2(refine_steps=3),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of two classes with a random DiT and a random classifier."""
    place = tmp_path_factory.mktemp("methods") / "small-dit"
    torch.manual_seed(0)
    vqvae, dit = VQVAE(TINY_VQVAE).eval(), DiT(SMALL).eval()
    for parameter in dit.parameters():
        parameter.data.normal_(std=0.2 if parameter.ndim > 1 else 0.1)
    basis = LatentBasis(TINY_VQVAE.code_dim, SMALL.channels)
    basis.components.copy_(torch.linalg.qr(torch.randn(TINY_VQVAE.code_dim, SMALL.channels)).Q)
    save_part(place, "vqvae", vqvae.state_dict())
    vqvae.load_state_dict({key: value.half().float() for key, value in vqvae.state_dict().items()})
    basis.vqvae.copy_(hash_of(vqvae))
    save_part(place, "latents", basis.state_dict(), torch.float32)
    save_part(place, "dit", dit.state_dict())
    judge = ClassifierConfig(num_classes=2, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    save_part(place, "classifier", Classifier(judge).state_dict())
    sizes = {"vqvae": to_json(TINY_VQVAE), "dit": to_json(SMALL), "classifier": to_json(judge)}
    write_config(place, **sizes, class_names=["red", "blue"])  # not the order of the image folder
    return place


@pytest.fixture(scope="module")
def small(folder: Path) -> DiffusionModel:
    return hieramp.load(folder, "cpu", kind="dit")


@pytest.fixture(scope="module")
def source(image_folder: Path) -> DataSource:
    return open_source(str(image_folder))


def made(model: DiffusionModel, method: Method, source: DataSource, out: Path, ipc: int = 2, **more: object) -> bytes:
    data = source if method.needs_data else None
    distill(model, ipc, out, method=method, data=data, **{**OPTIONS, **more}).run()  # type: ignore[arg-type]
    return out.read_bytes()


# sets


@pytest.mark.parametrize("name", BY)
def test_a_set_is_the_same_at_any_batch_size_and_after_a_stop(
    name: str, small: DiffusionModel, source: DataSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in "ab":
        (tmp_path / place).mkdir()
    whole = made(small, BY[name], source, tmp_path / "a" / "set.zip", ipc=3)
    saved = []

    def save_some(path: Path, state: dict[str, Tensor]) -> None:
        if len(saved) == 1:
            raise KeyboardInterrupt
        saved.append(path)
        write(path, state)

    write = store.save_safetensors
    monkeypatch.setattr(store, "save_safetensors", save_some)
    with pytest.raises(KeyboardInterrupt):  # in the preparation
        made(small, BY[name], source, tmp_path / "b" / "set.zip", ipc=3, batch_size=1)
    monkeypatch.undo()
    (kept,) = saved
    before = kept.stat().st_mtime_ns
    data = source if BY[name].needs_data else None
    again = distill(small, 3, tmp_path / "b" / "set.zip", method=BY[name], data=data, batch_size=1, **OPTIONS)
    for progress in again:
        if progress.done:
            break  # and in the drawing
    assert made(small, BY[name], source, tmp_path / "b" / "set.zip", ipc=3, batch_size=4) == whole
    assert kept.stat().st_mtime_ns == before  # what was prepared is not prepared again
    with open_set(tmp_path / "a" / "set.zip") as image_set:
        manifest = image_set.manifest
    assert manifest["method"] == name and manifest["settings"]["parameters"] == BY[name].to_json("dit")


def test_what_was_damaged_is_prepared_again(small: DiffusionModel, source: DataSource, tmp_path: Path) -> None:
    whole = made(small, MGD3(), source, tmp_path / "set.zip")
    for path in (tmp_path / "prepared").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    assert made(small, MGD3(), source, tmp_path / "other.zip") == whole


def test_anchors_are_of_the_class_by_its_name(small: DiffusionModel, source: DataSource, tmp_path: Path) -> None:
    """The model has red first, the folder blue: at hardly any noise a picture is its anchor, of its own colour."""
    made(small, D4M(strength=0.001, anchor="nearest"), source, tmp_path / "set.zip", guidance=0.0)
    nearest = next((tmp_path / "prepared").glob("k-means*")) / "0.safetensors"
    anchors = store.read_safetensors(nearest)["nearest"]
    red = [i for i, name in enumerate(map(source.file_name, range(len(source)))) if "red" in name]
    found = [
        small.latents.encode(torch.as_tensor(np.asarray(hieramp_picture(source, i))).movedim(-1, 0)[None] / 255)
        for i in red
    ]
    distances = [min(float((one[0] - anchor).abs().max()) for one in found) for anchor in anchors]
    assert max(distances) < 1e-4


@pytest.mark.parametrize("level", [NoiseLevel(0.3, 0.7, 700), NoiseLevel(0.8, 0.6, 400)], ids=["flow", "ddpm"])
def test_d4m_starts_from_the_anchor_with_the_noise_of_its_level(level: NoiseLevel) -> None:
    """z = a·m + s·ε, with the ε that is the image's own."""
    anchors = AnchorsOf({1: torch.randn(2, 3, 4, 4)}, 2)
    items = [Item(0, 1, 5, "a"), Item(1, 1, 6, "b")]
    eps = gaussian([1, 1], [5, 6], (3, 4, 4), torch.device("cpu"))
    wanted = level.signal * anchors(items) + level.noise * eps
    assert torch.allclose(NoisedAnchors(anchors, level)(items), wanted)


def hieramp_picture(source: DataSource, index: int) -> np.ndarray:
    from hieramp.data import read_image

    return np.array(read_image(source, index))


# formulas


def test_k_means_finds_clusters_that_are_there() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = np.concatenate([centre + random.normal(scale=0.1, size=(n, 2)) for n, centre in enumerate(centres, 5)])
    found = k_means(points, 4, 0)
    assert np.abs(np.sort(found.centres.round(), 0) - np.sort(centres, 0)).max() == 0
    assert sorted(np.bincount(found.cluster)) == [5, 6, 7, 8]
    with pytest.raises(UserError, match="2 different images for 3 clusters"):
        k_means(np.repeat(points[:2], 5, 0), 3, 0)


def test_the_pull_is_that_of_the_paper_on_either_path() -> None:
    """ε̂ - λ·√(1 - ᾱ)·(m - x̂0), within its window alone."""
    x0, eps, anchor = torch.randn(3, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    pull = Pull(AnchorsOf({0: anchor}, 1), 0.1, -10.0, -2.5)([Item(0, 0, 0, "")])
    ddpm = NoiseLevel(0.2, (1 - 0.2**2) ** 0.5, 500.0)
    for level in (ddpm, NoiseLevel(1 - ddpm.t, ddpm.t, 1000 * ddpm.t)):
        z = level.signal * x0 + level.noise * eps
        moment = Moment(0, level, z, Prediction(x0, eps), Prediction(x0, eps), None, z)
        assert torch.allclose(pull(moment), -0.1 * ddpm.noise * (anchor - x0), atol=1e-6)
    assert not pull(moment._replace(level=NoiseLevel(0.5, 0.5, 500.0))).any()


def test_no_pull_is_no_guidance_bit_for_bit(small: DiffusionModel, source: DataSource, tmp_path: Path) -> None:
    sets = {}
    for name, method in {"none": MGD3(pull=0, grid="even"), "some": MGD3(pull_until=5.0, grid="even")}.items():
        made(small, method, source, tmp_path / f"{name}.zip")
    distill(small, 2, tmp_path / "plain.zip", amplification=None, **OPTIONS).run()
    for name in ("none", "some", "plain"):
        with open_set(tmp_path / f"{name}.zip") as image_set:
            sets[name] = [image_set.image(i).tobytes() for i in range(len(image_set))]
    assert sets["none"] == sets["plain"] != sets["some"]


def test_a_structural_score_is_high_far_from_the_class_spread_out_and_on_its_own_codes() -> None:
    """Codes 0 to 5 at scales of 1, 2 and 3 positions a side: coarse weighs 3 (with scale 0), mid 1, fine 0.5."""
    scales = Scales((1, 2, 3, 4))
    tokens = torch.zeros(1, scales.num_tokens, dtype=torch.int64)
    tokens[0, scales.spans[2]] = 1
    tokens[0, scales.spans[3]] = torch.arange(16) % 2 + 2
    wanted = np.array([[3, 1, 0.25, 0.25]]) / 4.5
    assert np.allclose(histograms(tokens, scales, 4), wanted)
    common, own = np.eye(10)[0], np.eye(10)[1]
    p = np.stack([common, common, common, 0.5 * common + 0.5 * own])
    mine = own_codes(p, np.array([0.0, *[1.4] * 9]))  # every image has code 0: it tells nothing
    assert mine.tolist() == [False, True] + [False] * 8
    scores = structural_scores(p, mine)
    assert scores[3] > scores[0] and np.allclose(scores[:3], scores[0])
    assert np.allclose(structural_scores(p[:3], mine), 0)  # images that are alike


def test_a_var_is_given_the_anchors_first_scales(
    model_folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Classes by name; the tokens of the first scales are the anchor's, those of the finer ones the model's own."""
    data = tmp_path / "data"
    for name, of in (("frog", "blue"), ("airplane", "red"), ("cat", "blue"), ("dog", "red")):
        (data / name).mkdir(parents=True)
        for path in (image_folder / "train" / of).iterdir():
            (data / name / path.name).symlink_to(path.resolve())
    common = ["distill", "--method", "tgdd", "--ipc", "2", "--model", str(model_folder), "--data", str(data)]
    common += ["--classes", "frog;airplane", "--averaged", "1"]
    main([*common, "--anchor-scales", "6", "--out", str(tmp_path / "all.zip")])
    main([*common, "--anchor-scales", "2", "--out", str(tmp_path / "some.zip")])
    model = hieramp.load(model_folder, "cpu")
    anchors = store.read_safetensors(next((tmp_path / "prepared").glob("tgdd*")) / "0.safetensors")
    tokens = [anchors["tokens"][:, span] for span in model.var.scales.spans]
    whole = model.vqvae.to_images(model.vqvae.embed(tokens))
    sets = {}
    for name in ("all", "some"):
        with open_set(tmp_path / f"{name}.zip") as image_set:
            images = image_set.manifest["images"]
            of_label = [i for i, image in enumerate(images) if image["label"] == 0]
            sets[name] = [torch.as_tensor(np.array(image_set.image(i))).movedim(-1, 0) / 255 for i in of_label]
            seeds = [images[i]["seed"] for i in of_label]
    assert all((a - b).abs().max() < 0.01 for a, b in zip(sets["all"], whole, strict=True))
    drawn = model.generate([0, 0], seeds, prefix_tokens=tokens[:2]).images
    assert all((a - b).abs().max() < 0.01 for a, b in zip(sets["some"], drawn, strict=True))
    for more, said in (
        (["--anchor-scales", "7"], "anchor scales is 7"),
        (["--pull", "1"], "pull of tgdd is for a diffusion transformer: leave it out for a VAR"),
    ):
        with pytest.raises(SystemExit):
            main([*common, *more, "--out", str(tmp_path / "t.zip")])
        assert said in capsys.readouterr().err


def test_ddpms_levels_are_the_same_noise_on_the_linear_path(small: DiffusionModel) -> None:
    levels = levels_of(small.denoiser, 50, "vp")
    assert levels[0].log_snr == pytest.approx(log_snr_at(980)) and levels[-1].noise == 0
    assert all(level.signal + level.noise == pytest.approx(1) for level in levels)
    assert log_snr_of(25, 50) == pytest.approx(-2.58, abs=0.01)
    assert [round(level.log_snr, 2) for level in respaced(small.denoiser)[11:12]] == [log_snr_of(11, 50)]


def test_an_inverted_latent_is_drawn_back(small: DiffusionModel) -> None:
    levels = levels_of(small.denoiser, 50, "vp")
    z, labels = gaussian([0, 1], [3, 4], SMALL_SHAPE, CPU), torch.tensor([0, 1])
    there = invert(small.denoiser, z, levels, labels, guidance=0.5, until=20, rounds=8)
    *_, last = sample(small.denoiser, there, levels, labels, guidance=0.5, first=20)
    assert (last.after - z).norm() < 0.01 * z.norm()


SMALL_SHAPE = (SMALL.channels, SMALL.side, SMALL.side)


def test_the_distance_of_a_group_is_that_of_its_statistics() -> None:
    method, generator = D3HR(), torch.Generator().manual_seed(0)
    mean, std = torch.randn(6, generator=generator), torch.rand(6, generator=generator) + 0.5
    normal = torch.randn(3, 5, 6, generator=generator)
    groups = mean + std * normal
    for group, distance in zip(groups, method.distance(normal, std), strict=True):
        skewness = (((group - group.mean(0)) / group.std(0)) ** 3).mean(0)
        wanted = (group.mean(0) - mean).norm() + (group.std(0) - std).norm() + 0.5 * skewness.norm()
        assert float(distance) == pytest.approx(float(wanted), rel=1e-4)


def test_a_chosen_group_has_the_mean_and_deviation_of_its_class() -> None:
    """z = μ + σ·normal, with the deviation of a sample (n - 1): few images are not taken for all."""
    inverted = 3 * torch.randn(5, 2, 4, 4) + 1
    few = D3HR(groups=10)._chosen(SimpleNamespace(ipc=50, seed=0), 0, inverted)  # type: ignore[arg-type]
    assert torch.allclose(few["mean"], inverted.mean(0), atol=1e-5) and torch.allclose(few["std"], inverted.std(0))
    normal = (few["z"] - few["mean"]) / few["std"]
    assert normal.shape == (50, 2, 4, 4) and abs(float(normal.mean())) < 0.1 and 0.9 < float(normal.std()) < 1.1


def test_the_largest_cluster_comes_first_with_its_own_size() -> None:
    z = torch.cat([torch.full((2, 1, 2, 2), -5.0), torch.full((6, 1, 2, 2), 5.0), torch.full((4, 1, 2, 2), 0.0)])
    z += 0.1 * torch.randn(z.shape)
    found = D4M()._clustered(SimpleNamespace(ipc=3, seed=0), 0, z)  # type: ignore[arg-type]
    assert found["sizes"].tolist() == [6, 4, 2]
    assert found["centroids"].mean((1, 2, 3)).round().tolist() == [5, 0, -5]
    assert found["nearest"].mean((1, 2, 3)).round().tolist() == [5, 0, -5]


def test_minimax_compares_what_is_foreseen_with_both_memories() -> None:
    """Near to the farthest real latent of the class, far from the nearest of those foreseen before."""
    options = MinimaxOptions(representative=2.0, diverse=3.0, whole=True)
    objective = MinimaxObjective(DiT(SMALL), VQVAE(TINY_VQVAE), LatentBasis(SMALL.channels, 1), options)
    x0, before, now = (torch.randn(3, *SMALL_SHAPE) for _ in range(3))
    objective.further(x0, before, torch.tensor([0, 0, 1]))
    terms = objective.further(torch.randn(1, *SMALL_SHAPE), now[:1], torch.tensor([0]))
    to_real = torch.cosine_similarity(now[:1].flatten(1), x0[:2].flatten(1))
    to_foreseen = torch.cosine_similarity(now[:1].flatten(1), before[:2].flatten(1))
    assert float(terms["representative"]) == pytest.approx(2 * (1 - float(to_real.min())), rel=1e-4)
    assert float(terms["diverse"]) == pytest.approx(3 * float(to_foreseen.max()), rel=1e-4)


def test_cao2_takes_those_named_right_first() -> None:
    #              right, sure   wrong      right, less sure   wrong, nearer
    logits = torch.tensor([[9.0, 0], [0.0, 5], [1.0, 0], [0.0, 1]])
    assert CaO2(order="surest").chosen(logits, 0, 3) == [0, 2, 3]
    assert CaO2(order="least-sure").chosen(logits, 0, 3) == [2, 0, 3]
    assert CaO2().chosen(logits, 0, 1) == [0] and CaO2().chosen(torch.cat([logits] * 6), 0, 11)[0] == 2


def test_refinement_lowers_its_loss_and_minds_no_neighbour(small: DiffusionModel) -> None:
    level = respaced(small.denoiser)[5]
    refine = Refined((level,) * 30, 0.01, 10.0, with_label=False)
    items = [Item(0, 0, 7, ""), Item(1, 1, 8, "")]
    z = gaussian([0, 1], [7, 8], SMALL_SHAPE, CPU, "z")
    refined = refine(small.denoiser, z, items)
    other = refine(small.denoiser, torch.stack([z[0], -z[1]]), items)
    assert torch.equal(refined[0], other[0])

    def loss(latents: Tensor) -> float:
        noise = gaussian([0, 1], [7, 8], SMALL_SHAPE, CPU, "refine")
        noised = level.signal * latents + level.noise * noise
        error = noise - small.denoiser.predict(noised, level, torch.tensor([2, 2])).eps
        return float((error.square().flatten(1).mean(1) + 10 * error.abs().flatten(1).amax(1)).sum())

    assert loss(refined) < loss(z)


def test_a_memory_holds_the_last_of_a_class() -> None:
    memory = LatentMemory(2, 2, 3)
    assert not memory.similarities(torch.ones(1, 3), torch.tensor([1]))[1].any()
    memory.add(torch.eye(3), torch.tensor([1, 1, 1]))
    cosines, taken = memory.similarities(torch.tensor([[0.0, 0, 2]]), torch.tensor([1]))
    assert taken.all() and sorted(cosines[0].tolist()) == [0, 1]  # the first has given way


def test_folded_scales_change_nothing() -> None:
    torch.manual_seed(0)
    dit = DiT(TINY).eval()
    for parameter in dit.parameters():
        parameter.data.normal_(std=0.1)
    names = set(dit.state_dict())
    only_small_parts(dit)
    for name, parameter in dit.named_parameters():
        if name.endswith("gain"):
            parameter.data.uniform_(0.5, 1.5)
    z, t, labels = torch.randn(2, *SMALL_SHAPE), torch.tensor([100.0, 900.0]), torch.tensor([0, 1])
    before = dit(z, t, labels)
    trained = sum(p.numel() for p in dit.parameters() if p.requires_grad)
    assert 0 < trained < sum(p.numel() for p in dit.parameters()) / 5
    folded(dit)
    assert set(dit.state_dict()) == names and torch.allclose(dit(z, t, labels), before, atol=1e-5)


# commands


def test_minimax_fine_tunes_and_its_sets_say_so(
    folder: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tiny_train import PRESET

    tuned, data = tmp_path / "tuned", ["--data", str(image_folder)]
    common = ["train", "dit", "--preset", "methods", *data, "--out", str(tuned), "--objective", "minimax"]
    from dataclasses import replace

    from hieramp.training.presets import PRESETS

    monkeypatch.setitem(PRESETS, "methods", replace(PRESET, dit=SMALL))
    main([*common, "--warm-start", str(folder), "--budget", "2s", "--device", "cpu"])
    assert read_config(tuned)["trained"]["dit"]["objective"] == "minimax"
    main(["distill", "--method", "minimax", "--ipc", "1", "--model", str(tuned), "--out", str(tmp_path / "s.zip")])
    with open_set(tmp_path / "s.zip") as image_set:
        assert image_set.manifest["method"] == "minimax"
    capsys.readouterr()
    for arguments, said in (
        (common, "name its model with --warm-start"),
        (["distill", "--method", "minimax", "--ipc", "1", "--model", str(folder)], "was not fine-tuned for minimax"),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, *(["--out", str(tmp_path / "t.zip")] if arguments[0] == "distill" else [])])
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "mgd3"], "mgd3 takes real images of the model's classes: name their folder with --data"),
        (["--method", "mgd3", "--data", "DATA", "--ipc", "25"], "has 24 of red: lower --ipc"),
        (["--method", "mgd3", "--data", "DATA", "--images-per-class", "1"], "1 are looked at: --images-per-class"),
        (["--method", "mgd3", "--data", "DATA", "--pull-until", "49/50"], "pull from is -10"),
        (["--method", "mgd3", "--data", "DATA", "--pull-until", "60/50"], "give a log-SNR such as -2.5, or a step"),
        (["--method", "d3hr", "--data", "DATA", "--ipc", "1"], "d3hr compares the spread of the images of a class"),
        (
            ["--method", "d4m", "--data", "DATA", "--pull", "1"],
            "--pull is of --method mgd3, tgdd",
        ),
        (["--pull", "1"], "--pull is of --method mgd3, tgdd: leave it out for hieramp"),
        (["--method", "cao2", "--data", "DATA"], "cao2 takes no real images"),
        (["--method", "cao2", "--candidates", "2"], "cao2 chooses among the images it draws"),
        (["--method", "d4m", "--data", "DATA", "--strength", "0"], "strength is 0"),
    ],
)
def test_misuse_is_told_before_anything_is_written(
    arguments: list[str],
    said: str,
    folder: Path,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    given = [str(image_folder) if text == "DATA" else text for text in arguments]
    ipc = [] if "--ipc" in given else ["--ipc", "2"]
    with pytest.raises(SystemExit):
        main(["distill", *given, *ipc, "--model", str(folder), "--out", str(tmp_path / "set.zip")])
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_var_selects_and_says_what_it_cannot(
    model_folder: Path, folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    judge = tmp_path / "judge"
    config = ClassifierConfig(num_classes=4, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    torch.manual_seed(0)
    save_part(judge, "classifier", Classifier(config).state_dict())
    write_config(judge, classifier=to_json(config), class_names=read_config(model_folder)["class_names"])
    common = ["distill", "--ipc", "2", "--model", str(model_folder), "--classifier", str(judge)]
    main([*common, "--method", "cao2", "--out", str(tmp_path / "set.zip")])
    with open_set(tmp_path / "set.zip") as image_set:
        manifest = image_set.manifest
    seeds = [image["seed"] for image in manifest["images"]]
    assert set(seeds) <= set(range(4)) and all(a != b for a, b in zip(seeds[::2], seeds[1::2], strict=True))
    assert set(manifest["settings"]["parameters"]) == {"pool_factor", "order"}
    model = hieramp.load(model_folder, "cpu")
    first = manifest["images"][0]  # the seed that is told is the one that it was drawn with
    drawn = model.generate([first["label"]], [first["seed"]]).images[0]
    with open_set(tmp_path / "set.zip") as image_set:
        stored = torch.as_tensor(np.array(image_set.image(0))).movedim(-1, 0).float() / 255
    assert (drawn - stored).abs().max() < 0.01
    for method, said in (("d3hr", "d3hr inverts real images to noise"), ("mgd3", "take a diffusion transformer")):
        with pytest.raises(SystemExit):
            main([*common, "--method", method, "--data", str(image_folder), "--out", str(tmp_path / "t.zip")])
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*common, "--method", "cao2", "--refine-steps", "5", "--out", str(tmp_path / "t.zip")])
    assert "refine steps of cao2 is for a diffusion transformer" in capsys.readouterr().err
    assert json.dumps(manifest["settings"])
