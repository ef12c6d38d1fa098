"""What a set holds, against sets whose answer is known."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hieramp
from hieramp import SCHEDULES
from hieramp.analysis.judged import closeness, fid, judge
from hieramp.analysis.neighbours import nearest
from hieramp.analysis.settokens import risen, token_usage
from hieramp.checkpoints import save_part, write_config
from hieramp.classifier import Classifier
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, to_json
from hieramp.data import to_signed
from hieramp.figures import read_settings
from hieramp.imageset.reader import open_set
from hieramp.training.runs import load_vqvae


def text_of(svg: Path) -> str:
    """What is written in a plot, its lines joined."""
    return " ".join(" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))).split())


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(32, 2, (1, 1, 1, 1), (8, 8, 8, 8), "half")).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: hieramp.Model, classifier: Classifier) -> Path:
    """A model folder with what `analyse` needs: VQ-VAE and classifier."""
    root = tmp_path_factory.mktemp("judge") / "model"
    save_part(root, "vqvae", model.vqvae.state_dict())
    save_part(root, "classifier", classifier.state_dict(), torch.float32)
    vqvae = to_json(model.vqvae.config)
    write_config(root, vqvae=vqvae, classifier=to_json(classifier.config), class_names=["blue", "red"])
    return root


def test_tokens_are_those_of_the_vqvae(model: hieramp.Model) -> None:
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (6, 3, 32, 32)).byte(), torch.tensor([1, 0, 1, 0, 1, 1])
    found = token_usage(model.vqvae, images, labels, per_class=2)
    tokens = model.vqvae.encode(to_signed(images[[0, 2]]))
    assert found.labels == (0, 1) and set(found.places) == {"coarse", "mid", "fine", *(f"scale {s}" for s in range(6))}
    for scale, idx in enumerate(tokens):
        usage = found.places[f"scale {scale}"][1]
        p = idx.flatten().bincount(minlength=64) / idx.numel()
        assert usage.num_tokens == idx.numel() and usage.coverage == (p > 0).float().mean().item()
        assert usage.entropy == pytest.approx(torch.special.entr(p).sum().item(), abs=1e-5)
    with pytest.raises(ValueError, match="class 0 has 2 images, not 3"):
        token_usage(model.vqvae, images, labels, per_class=3)


def test_noise_rises_over_flat_colours(model: hieramp.Model) -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 1, 1])
    flat = torch.full((4, 3, 32, 32), 128).byte()
    noise = torch.randint(0, 256, (4, 3, 32, 32)).byte()
    shares = risen(token_usage(model.vqvae, flat, labels), token_usage(model.vqvae, noise, labels))
    assert shares["fine"].entropy == shares["fine"].coverage == 1.0
    with pytest.raises(ValueError, match="different classes"):
        risen(token_usage(model.vqvae, flat, labels), token_usage(model.vqvae, noise, labels + 1))


def test_the_nearest_is_the_nearest() -> None:
    torch.manual_seed(0)
    real, points = torch.rand(4500, 12), torch.rand(20, 12)  # more than two chunks
    found = nearest(points, real)
    brute = (points[:, None] - real).square().mean(2).sqrt().min(1)
    assert torch.equal(found.index, brute.indices) and torch.allclose(found.distance, brute.values)
    copied = nearest(real[[7, 4400]], real)
    assert copied.index.tolist() == [7, 4400] and copied.distance.tolist() == [0, 0]
    grey = torch.full((1, 3, 4, 4), 100).byte()
    assert nearest(grey, grey + 51).distance.item() == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no real images"):
        nearest(points, real[:0])


def test_copies_are_found_out(classifier: Classifier) -> None:
    torch.manual_seed(0)
    real = judge(classifier, torch.randint(0, 256, (60, 3, 32, 32)).byte(), torch.arange(60) % 2)
    held_out = judge(classifier, torch.randint(0, 256, (40, 3, 32, 32)).byte(), torch.arange(40) % 2)
    copies = closeness(real.first(10), real, held_out)
    fresh = closeness(
        judge(classifier, torch.randint(0, 256, (40, 3, 32, 32)).byte(), torch.zeros(40).long()), real, held_out
    )
    for space in ("features", "pixels"):
        assert copies[space].median < 1e-6 and copies[space].share_close == 1.0
        assert fresh[space].share_close is not None and fresh[space].share_close < 0.2
    assert fid(real, real) == pytest.approx(0, abs=1e-4) and fid(real.first(1), real) is None


def test_confidence_is_the_classifiers(classifier: Classifier) -> None:
    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (8, 3, 32, 32)).byte(), torch.arange(8) % 2
    probabilities = classifier(images / 255).softmax(1).detach()
    judged = judge(classifier, images, labels)
    assert torch.allclose(judged.confidence_N, probabilities[torch.arange(8), labels], atol=1e-5)
    assert torch.equal(judged.named_N, probabilities.argmax(1))


def test_analyse_writes_figures_and_tables(
    folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    for ipc, name in ((3, "ours"), (4, "base")):
        more = ["--seed", str(ipc), "--data", str(image_folder), "--out", str(tmp_path / f"{name}.zip")]
        main(["distill", "--method", "random-real", "--ipc", str(ipc), *more])
    capsys.readouterr()
    judges = ["--model", str(folder), "--data", str(image_folder), "--device", "cpu", "--out", str(out)]
    main(["analyse", str(tmp_path / "ours.zip"), "--against", str(tmp_path / "base.zip"), *judges])
    said = capsys.readouterr().out
    found = json.loads((out / "analysis.json").read_text())
    ours = found["sets"]["ours"]
    assert (
        ours["images"] == 6 and set(found["risen"]) == set(ours["tokens"]) and found["risen"]["mid"]["num_classes"] == 2
    )
    # real training images are their own nearest neighbours
    assert ours["nearest_real"]["pixels"]["median"] == 0 and ours["nearest_real"]["features"]["of_test_images"] > 0
    assert "by pixels: median 0.0000" in said and "rose in coarse" in said and "FID of as many test images" in said
    tokens = list(csv.DictReader((out / "tokens.csv").open()))
    # both sets are counted over three images a class
    assert len(tokens) == 2 * 2 * 9 and {row["tokens"] for row in tokens if row["place"] == "scale 0"} == {"3"}
    images = list(csv.DictReader((out / "images.csv").open()))
    assert (
        len(images) == 6 + 8 and images[0]["image"].startswith("train/00000/") and "blue" in images[0]["pixels_nearest"]
    )
    assert images[0]["class"] == "blue"
    for name in ("tokens", "risen", "confidence", "features", "pixels", "closest-ours", "closest-base"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 400
    assert f"# ours: {json.dumps(ours['settings'])}" in (out / "differences-ours-minus-base.csv").read_text()
    lines = [line for line in (out / "differences-ours-minus-base.csv").open() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert [(row["class"], row["stage"]) for row in rows[:3]] == [
        ("blue", "coarse"),
        ("red", "coarse"),
        ("blue", "mid"),
    ]
    both = [
        [float(t["entropy_nats"]) for t in tokens if t["place"] == "mid" and t["set"] == s] for s in ("ours", "base")
    ]
    assert [float(row["entropy_nats"]) for row in rows if row["stage"] == "mid"] == pytest.approx(
        [a - b for a, b in zip(*both, strict=True)], abs=1e-5
    )
    assert all(
        float(row["entropy_nats_low"]) <= float(row["entropy_nats"]) <= float(row["entropy_nats_high"]) for row in rows
    )
    assert "3 images a class, mean of 2 classes" in text_of(out / "tokens.svg")
    assert "Guidance" not in text_of(out / "tokens.svg")  # no settings that they were drawn by
    assert "real test images, n = 16" in text_of(out / "pixels.svg") and "base, n = 8" in text_of(out / "pixels.svg")
    assert not (out / "changed.png").exists()  # no pairs
    svg = (out / "differences-ours-minus-base.svg").read_text()
    assert "3 images of each set, not paired" in svg and ">red<" in svg
    # nothing was amplified: no word on the paper's direction
    assert "coarse entropy: " in said and "In the paper" not in said


def test_what_amplification_did_is_said_of_pairs_of_one_seed(
    folder: Path, model: hieramp.Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, settings in (("plain", SCHEDULES["off"]), ("amplified", SCHEDULES["fine"])):
        hieramp.distill(model, 3, tmp_path / f"{name}.zip", settings, classes=[0, 1]).run()
    judge = shutil.copytree(folder, tmp_path / "judge")
    write_config(judge, class_names=["airplane", "cat"])
    judges = ["--model", str(judge), "--device", "cpu", "--out", str(tmp_path / "o")]
    main(["analyse", str(tmp_path / "amplified.zip"), "--against", str(tmp_path / "plain.zip"), *judges])
    said = capsys.readouterr().out
    assert "In the paper fine entropy falls; that" in said and "n = 2 classes)" in said and "coarse entropy: " in said
    found = json.loads((tmp_path / "o" / "analysis.json").read_text())["differences"]
    assert found["is_paired"] and found["images_of_a_class"] == 3
    # the plots of the page's What changed, with their settings
    stages = "amplified: Guidance 4. β: coarse off, mid off, fine 5 on 50% of the positions."
    for name, told in {
        "tokens": "entropy, nats",
        "risen": "In how many of 2 classes entropy and coverage rose",
        "changed": "Where the tokens of a pair differ, encoded by the VQ-VAE",
    }.items():
        text = text_of(tmp_path / "o" / f"{name}.svg")
        assert told in text and stages in text and "plain: Guidance 4. Amplification is off." in text
        with Image.open(tmp_path / "o" / f"{name}.png") as picture:
            assert picture.width > 700
        inside = read_settings(tmp_path / "o" / f"{name}.png")
        assert set(inside) == {"plain", "amplified"} and inside["amplified"]["stages"]["fine"] == [0.5, 5.0]
    assert text_of(tmp_path / "o" / "tokens.svg").endswith("plain amplified")  # colours as on the page
    assert text_of(tmp_path / "o" / "risen.svg").count("1×1 2×2 3×3 4×4 6×6 8×8 coarse mid fine") == 1
    sides, vqvae = model.var.scales.sides, load_vqvae(judge)
    lines = (tmp_path / "o" / "changed.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert len(rows) == sum(side * side for side in sides) and "# is_paired: true" in lines
    encoded = []
    for name in ("amplified", "plain"):
        with open_set(tmp_path / f"{name}.zip") as held:
            pictures = torch.stack([torch.from_numpy(np.array(held.image(i))) for i in range(6)]).permute(0, 3, 1, 2)
            encoded.append(token_usage(vqvae, pictures, torch.tensor(held.labels)).tokens)
    differ = [ours[5] != base[5] for ours, base in zip(*encoded, strict=True)]  # of each class (3, 64)
    wanted = torch.cat(differ).float().mean(0)
    assert [float(row["share_of_samples_changed"]) for row in rows[-64:]] == pytest.approx(wanted.tolist())
    svg = (tmp_path / "o" / "differences-amplified-minus-plain.svg").read_text()
    assert "3 pairs of one seed a class" in svg and "fine, amplified" in svg


def test_analyse_does_without_real_images(
    folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["analyse", str(image_folder), "--model", str(folder), "--out", str(tmp_path / "o")])
    said = capsys.readouterr()
    assert "they need --data" in said.err and "48 images" in said.out and "FID" not in said.out


def test_inception_says_what_it_lacks(
    folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image.fid", None)
    main(
        ["analyse", str(image_folder), "--model", str(folder), "--data", str(image_folder), "--inception"]
        + ["--out", str(tmp_path / "o")]
    )
    assert "Inception FID needs: pip install torchmetrics torch-fidelity" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--inception"], "--inception compares with real images"),
        (["--against", "SET"], "have the same name"),
        (["--model", "nowhere"], "nowhere is not a model folder"),
    ],
)
def test_analyse_misuse(
    folder: Path, image_folder: Path, tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    more = [str(image_folder) if text == "SET" else text for text in more]
    with pytest.raises(SystemExit) as stopped:
        main(["analyse", str(image_folder), "--model", str(folder), "--out", str(tmp_path / "o"), *more])
    assert stopped.value.code == 2 and said in capsys.readouterr().err and not (tmp_path / "o").exists()
