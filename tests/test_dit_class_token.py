"""The class token of a diffusion transformer: it looks with the class hidden, and its map can amplify and be judged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY_VQVAE
from PIL import Image
from test_diffusion import ON, TINY, build

import hieramp
from hieramp.amplification.settings import CLASS_TOKEN, Amplification
from hieramp.analysis.dit_faithfulness import TIMES
from hieramp.analysis.faithfulness import another_of_class
from hieramp.checkpoints import load_part, read_config, save_part
from hieramp.classifier import Classifier
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, DiTClassTokenConfig, to_json
from hieramp.diffusion.class_token import SPANS, DiTClassToken
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import LatentBasis
from hieramp.diffusion.levels import COARSE_UNTIL, MID_UNTIL, NoiseLevel
from hieramp.diffusion.model import DiffusionModel
from hieramp.training.class_tokens import ClassTokenOptions
from hieramp.training.dit_class_token import DiTClassTokenObjective
from hieramp.vqvae.model import VQVAE

TOKEN = DiTClassTokenConfig(width=TINY.width, own_width=16, num_heads=2, num_classes=4, class_token_block=1)


def token(seed: int = 0) -> DiTClassToken:
    torch.manual_seed(seed)
    made = DiTClassToken(TOKEN).eval()
    made.query_SW.data.normal_(std=3.0)
    return made


@pytest.fixture(scope="module")
def seeing() -> DiffusionModel:
    model = build()
    model.class_token = token()
    return model


def test_it_finds_a_planted_object() -> None:
    """3×3 positions of 64 tell the class, other ones each time: after some steps the map lies there."""
    torch.manual_seed(0)
    objective = DiTClassTokenObjective(
        DiTClassToken(TOKEN), DiT(TINY), VQVAE(TINY_VQVAE), LatentBasis(8, 4), ClassTokenOptions(left_out=1.0)
    )
    assert {id(p) for p in objective.parameters()} == {id(p) for p in objective.model.parameters()}
    optimizer, sign = torch.optim.Adam(objective.parameters(), 0.05), torch.randn(5, TINY.width)

    def batch(rows: int) -> tuple[torch.Tensor, ...]:
        labels, at = torch.randint(4, (rows,)), torch.randint(64, (rows,))
        near = torch.nn.functional.one_hot(at, 64).view(-1, 1, 8, 8).float()
        near = torch.nn.functional.max_pool2d(near, 3, 1, 1).flatten(1)
        x = torch.randn(rows, 64, TINY.width) + near[..., None] * 3 * (sign[labels] + sign[4])[:, None]
        return x, torch.rand(rows), labels, near

    for _ in range(120):
        x, t, labels, _ = batch(48)
        optimizer.zero_grad()
        objective.looking(x, t, labels)["loss"].backward()
        optimizer.step()
    x, t, labels, near = batch(200)
    seen = objective.model(x, t)
    assert (objective.model.answer(seen).argmax(-1) == labels).float().mean() > 0.8
    assert (seen.map() * near).sum(1).mean() > 3 * near.mean()  # of an even map as much as there are positions


def test_its_map_is_what_is_amplified(seeing: DiffusionModel) -> None:
    """At the second step the share of tokens that the token looked at in the first, in the unconditional half."""
    amp = Amplification(mid=(0.25, 2.0), blocks=(2,), map_from=CLASS_TOKEN)
    for guidance in (0.0, 1.0):  # the halves in calls of their own, and in one
        first, second, *_ = seeing.steps([2, 1], [0, 5], amp, guidance=guidance, steps=4)
        moment, entering = first._groups[0].moment, {}
        labels = torch.full((len(moment.z),), seeing.denoiser.null_label)
        seeing.denoiser.predict(moment.z, first.level, labels, watch=lambda block, x: entering.update({block: x}))  # noqa: B023
        seen = seeing.class_token(entering[1], torch.full((len(moment.z),), first.level.t))  # type: ignore[misc]
        around = torch.nn.functional.avg_pool2d(seen.map().view(-1, 1, 8, 8), 3, 1, 1, count_include_pad=False)
        wanted = torch.zeros(2, 64, dtype=torch.bool).scatter_(1, around[:2].flatten(1).topk(16).indices, True)
        assert torch.equal(second.amplified.flatten(1), wanted)
        assert torch.allclose(first.saliency.flatten(1), seen.map()[:2], atol=1e-5)


def test_a_map_changes_nothing_that_is_off_and_minds_no_neighbour(seeing: DiffusionModel) -> None:
    labels, seeds = [0, 1, 2, 3, 0], [3, 4, 5, 6, 7]
    by_token = Amplification(ON.coarse, ON.mid, ON.fine, map_from=CLASS_TOKEN)
    amps = [by_token, ON, Amplification(map_from=CLASS_TOKEN), by_token, None]
    everything = seeing.generate(labels, seeds, amps, guidance=1.0, steps=4)
    for i in (4, 2, 1, 0):
        alone = seeing.generate([labels[i]], [seeds[i]], amps[i], guidance=1.0, steps=4)
        assert torch.equal(alone.images[0], everything.images[i])
        assert torch.equal(alone.saliency[-1][0], everything.saliency[-1][i])
    guided = seeing.generate([0], [3], ON, guidance=1.0, steps=4)
    assert not torch.allclose(guided.latents[0], everything.latents[0], atol=1e-3)
    plain = build().generate([2], [5], guidance=1.0, steps=4)
    assert torch.equal(plain.latents[0], everything.latents[2])
    with pytest.raises(ValueError, match="tiny-dit has no class token for its map: train one"):
        build().generate([0], [0], by_token)


def test_it_looks_by_the_noise(seeing: DiffusionModel) -> None:
    assert seeing.class_token is not None
    x = torch.randn(1, 64, TINY.width).expand(2, -1, -1)
    low, high = seeing.class_token(x, torch.tensor([0.1, 0.9])).map()
    assert not torch.allclose(low, high, atol=1e-3)
    whole = seeing.class_token(x, torch.tensor([0.0, 1.0])).map()
    assert torch.allclose(whole.sum(1), torch.ones(2))
    for stage, times in TIMES.items():
        assert all(NoiseLevel(1 - t, t, 0).stage == stage for t in times)
    assert COARSE_UNTIL < MID_UNTIL and another_of_class(torch.tensor([0, 1, 0])).tolist() == [2, 1, 0]


def test_no_place_is_looked_at_for_being_at_the_edge(seeing: DiffusionModel) -> None:
    """Where all positions are alike, so are their weights: the average of neighbours counts those that there are."""
    assert seeing.class_token is not None
    alike = torch.randn(1, 1, TINY.width).expand(1, 64, -1)
    assert torch.allclose(seeing.class_token(alike, torch.tensor([0.5])).map(), torch.full((1, 64), 1 / 64), atol=1e-6)


def test_calibrated_it_sees_tokens_of_mean_0_and_spread_1() -> None:
    made, x = token(), 3 * torch.randn(50, 64, TINY.width) + torch.linspace(-2, 2, TINY.width)
    made.calibrate(2, x)
    seen: list[torch.Tensor] = []
    made.key.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made(x, torch.full((50,), 2.5 / SPANS))
    assert torch.allclose(seen[0].mean((0, 1)), torch.zeros(TINY.width), atol=1e-3)
    assert torch.allclose(seen[0].std((0, 1)), torch.ones(TINY.width), atol=1e-3)


def test_the_commands_train_draw_and_judge_it(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny_train import PRESET

    assert PRESET.dit.depth == 2
    folder, data = tmp_path / "model", ["--data", str(image_folder)]
    common = ["--preset", "tiny", *data, "--out", str(folder), "--device", "cpu"]
    main(["train", "vqvae", *common, "--budget", "2s"])
    main(["train", "dit", *common, "--budget", "2s"])
    picture = tmp_path / "cat.png"
    draw = ["generate", "--class", "red", "--model", str(folder), "--stages", "all", "--map-from", "class-token"]
    draw += ["--steps", "3", "--device", "cpu", "--out", str(picture)]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(draw)
    assert "has no class token for its map" in capsys.readouterr().err
    main(["train", "class-tokens", *common, "--budget", "2s", "--token-width", "16"])
    config = read_config(folder)
    assert config["dit_class_token"]["class_token_block"] == 1 and config["trained"]["dit_class_token"]["steps"] > 0
    main(draw)
    assert json.loads(Image.open(picture).text["hieramp"])["map_from"] == "class-token"
    model = hieramp.load(folder, "cpu", kind="dit")
    how = {"steps": 2, "map_from": CLASS_TOKEN}
    hieramp.distill(model, 1, tmp_path / "set.zip", **how).run()
    with hieramp.open_set(tmp_path / "set.zip") as image_set:
        told = image_set.manifest["settings"]
    assert told["map_from"] == CLASS_TOKEN and len(told[CLASS_TOKEN]) == 64
    # judged as a VAR's maps are
    judge = ClassifierConfig(num_classes=2, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    save_part(folder, "classifier", Classifier(judge).state_dict())
    hieramp.checkpoints.write_config(folder, classifier=to_json(judge))
    main(["measure", "--model", str(folder), *data, "--device", "cpu", "--only", "saliency", "--test-images", "8"])
    measured = json.loads((folder / "measured.json").read_text())
    assert "dit" not in measured
    for found in measured["dit_saliency"]["on"].values():
        assert [row["stage"] for row in found["rows"]] == ["coarse", "mid", "fine"]
        for row in found["rows"]:
            assert set(row["fixed_share"]) == {"guidance", "class tokens"} and 0 <= row["named"] <= 1
            over = row["judges"]["classifier"]["over"]["guidance"]
            assert set(over) == {"another picture", "random", "centre", "average map"}
    card = (folder / "README.md").read_text()
    assert (
        "## What the map M follows" in card
        and "| stage of noise | fixed share, class tokens | fixed share, guidance | named |" in card
    )
    # what stood on another DiT is refused
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    save_part(other, "dit", {key: value + 1 for key, value in load_part(other, "dit").items()})
    with pytest.raises(ValueError, match="train it again with python -m hieramp train class-tokens --kind dit"):
        hieramp.load(other, "cpu", kind="dit")
    capsys.readouterr()
    for more, said in (
        (["--attention", "shared"], "leave out --attention shared"),
        (["--watch-block", "2"], "watch block is 2: the DiT in"),
        (["--model", "cifar10", "--kind", "dit"], "--model names a VAR"),
    ):
        with pytest.raises(SystemExit):
            main(["train", "class-tokens", *common, *more])
        assert said in capsys.readouterr().err
