"""Teachers and checkpoints that other people's scripts saved."""

import argparse
import json
import unicodedata
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import TINY_VAR, build_model
from PIL import Image
from safetensors.torch import save_file
from test_conformance import SIDES, TRANSFORMER, VAE, filled
from timm.data import ImageNetInfo
from torch import nn

import hieramp
from hieramp import loading, official
from hieramp.checkpoints import read_safetensors
from hieramp.class_names import keys_of, short_name, split_names
from hieramp.commands.main import main
from hieramp.config import VARConfig
from hieramp.evaluation import results, teachers
from hieramp.evaluation.epoch_labels import relabel
from hieramp.evaluation.images import (
    LabeledImages,
    align_classes,
    align_test,
    align_to_model,
    load_set,
    of_its_classes,
)
from hieramp.evaluation.protocols import PROTOCOLS, training_of
from hieramp.evaluation.runner import Evaluation, EvaluationConfig, begin
from hieramp.evaluation.teachers import Teacher, load_teacher
from hieramp.pickles import read_checkpoint
from hieramp.published import read_network
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

WRAPPED: dict[str, Any] = {
    "bare": lambda state: state,
    "DDP": lambda state: {f"module.{key}": value for key, value in state.items()},
    "torch.compile": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "both": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": OrderedDict(state), "best": torch.tensor(1.0)},
    "Lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"state": {}}},
    "ema": lambda state: {"ema": state, "args": argparse.Namespace(depth=16)},
    "timm's ema": lambda state: {"state_dict_ema": state, "epoch": 3, "arch": "resnet10t"},
    "a shadow": lambda state: {"ema": {"shadow": state, "decay": 0.99}},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(4), **{f"module.{k}": v for k, v in state.items()}},
    "trainer": lambda state: {"trainer": {"var_wo_ddp": state, "var_opt": {"state": {0: torch.ones(2)}}}, "iter": 7},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_trainers_save_is_unwrapped(tmp_path: Path, name: str) -> None:
    vae, var = filled(VQVAE(VAE)), filled(VAR(TRANSFORMER))
    torch.save(WRAPPED[name](var), tmp_path / "var.pth")
    torch.save(WRAPPED[name](vae), tmp_path / "vae.pth")
    loaded = hieramp.from_official(read_checkpoint(tmp_path / "vae.pth"), read_checkpoint(tmp_path / "var.pth"), SIDES)
    assert all(torch.equal(value, var[key]) for key, value in loaded.var.state_dict().items())


class Odd:
    pass


def test_what_is_refused_says_what_was_found_and_what_to_do(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(1)}, "args": Odd()}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"more than tensors \(.*Odd\); it was not opened: save its state_dict\(\)"):
        read_checkpoint(tmp_path / "odd.pth")
    for text in (b"root:x:0:0:root:/root:/bin/bash\n", b"e\n", b"", b"\x80\x02", b"some text that goes on\n" * 9):
        (tmp_path / "text.pth").write_bytes(text)
        with pytest.raises(ValueError, match="PyTorch checkpoint"):
            read_checkpoint(tmp_path / "text.pth")
    vae = filled(VQVAE(VAE))
    for state in ({1: torch.ones(2)}, {"a": 1}, {}):
        with pytest.raises(ValueError, match="it has no tensor 'word_embed.weight'; it has no tensors at all"):
            hieramp.from_official(vae, state, SIDES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it has encoder.conv_in.weight"):
        hieramp.from_official(vae, vae, SIDES)


def test_the_512_pixel_model_has_its_own_sides() -> None:
    """Built without memory: shapes alone, as in var_d36.pth."""
    with torch.device("meta"):
        config = VARConfig(official.SIDES_512, depth=36, width=64 * 36, num_heads=36, shared_adaln=True)
        state = VAR(config).state_dict()
    assert official._sides(state) == official.SIDES_512 and state["pos_1LC"].shape[1] == 2240
    assert official._var_config(state, official.SIDES_512) == config
    assert "var-d36" in loading.OFFICIAL


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A VAR of three classes as if it were the official var-d4, in HIERAMP_HOME."""
    torch.save(filled(VQVAE(VAE)), tmp_path / loading.HUB_VQVAE)
    torch.save(filled(VAR(VARConfig(**{**TRANSFORMER.__dict__, "num_classes": 3}))), tmp_path / "own.pth")
    monkeypatch.setenv("HIERAMP_HOME", str(tmp_path))
    name = f"var-d{TRANSFORMER.depth}"
    monkeypatch.setattr(loading, "OFFICIAL", (name, "var-d16"))
    monkeypatch.setattr(official, "OFFICIAL_SIDES", SIDES)
    return tmp_path


def test_a_var_of_own_classes_is_never_given_imagenets_names(own: Path) -> None:
    name, file = f"var-d{TRANSFORMER.depth}", own / "own.pth"
    assert hieramp.load(name, "cpu", var_checkpoint=file).class_names == ("0", "1", "2")
    for folder in ("b, c", "a", "Z"):
        (own / "images" / "train" / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(own / "images" / "train" / folder / "1.png")
    (own / "names.json").write_text(json.dumps(["x", "y"]))
    (own / "names.txt").write_text("x\ny\nz\n")
    for place, names in [
        ("images", ("Z", "a", "b, c")),
        ("names.json", ("x", "y", "2")),
        ("names.txt", ("x", "y", "z")),
    ]:
        loaded = hieramp.load(name, "cpu", var_checkpoint=file, classes_from=own / place)
        assert loaded.class_names == names and loaded.wnids == ()
    (own / "names.json").write_text(json.dumps(list("abcd")))
    with pytest.raises(ValueError, match="names 4 classes, the VAR has 3"):
        hieramp.load(name, "cpu", var_checkpoint=file, classes_from=own / "names.json")
    with pytest.raises(ValueError, match=f"is a {name}, not a var-d16: give --model {name}"):
        hieramp.load("var-d16", "cpu", var_checkpoint=file)
    with pytest.raises(ValueError, match="cifar10 names its classes itself"):
        hieramp.load("cifar10", "cpu", classes_from=own / "names.txt")


def test_only_models_that_exist_are_offered(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "OFFICIAL", ("var-d16",))
    with pytest.raises(ValueError, match=r"not a var-d16: load it with hieramp\.from_official"):
        hieramp.load("var-d16", "cpu", var_checkpoint=own / "own.pth")


# Teachers


@pytest.mark.parametrize("name", WRAPPED)
def test_pth_weights_are_teachers(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=3).eval()
    torch.save(WRAPPED[name](network.state_dict()), tmp_path / "t.pth")
    (tmp_path / "t.json").write_text(json.dumps(["cat", "dog", "frog"]))
    teacher = load_teacher(f"resnet10t={tmp_path / 't.pth'}")
    assert teacher.class_names == ("cat", "dog", "frog") and teacher.name == "resnet10t"
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(teacher.network(images), network((images - mean) / std), atol=1e-5)


def test_a_resnet_for_small_images_is_recognised(tmp_path: Path) -> None:
    """RDED's teachers for CIFAR: torchvision's ResNet-18 with a 3×3 first convolution and no max-pool."""
    from torchvision.models import resnet18

    network = resnet18(num_classes=2)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    state = {k: v for k, v in network.eval().state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "t.pth")
    with pytest.raises(ValueError, match="does not say which class is which"):
        load_teacher(f"resnet18={tmp_path / 't.pth'}")
    with pytest.raises(ValueError, match="the teacher is empty: give a model"):
        load_teacher("")
    with pytest.raises(ValueError, match="does not name its network"):
        load_teacher(str(tmp_path / "t.pth"))
    (tmp_path / "t.json").write_text('["cat", "dog"]')
    teacher = load_teacher(f"resnet18={tmp_path / 't.pth'}")
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(
        teacher.network(images), network((images - teacher.network.mean) / teacher.network.std), atol=1e-4
    )


def test_imagenets_networks_name_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network = timm.create_model("resnet10t")
    torch.save(network.state_dict(), tmp_path / "t.pth")
    teacher = load_teacher(f"resnet10t={tmp_path / 't.pth'}")
    assert len(teacher.class_names) == 1000 and teacher.class_names[0] == "tench, Tinca tinca"
    images = torch.rand(1, 3, 32, 32)
    for names in (
        ("n01443537", "n01440764"),
        ("goldfish, Carassius auratus", "tench, Tinca tinca"),
        ("goldfish", "tench"),
    ):
        few = teacher.for_classes(names, "my set")
        assert few.class_names == names
        assert torch.equal(few.network(images), teacher.network(images)[:, [1, 0]])
        assert "knows 1000 classes; the 2 of my set are taken by name" in capsys.readouterr().err
    assert teacher.for_classes(("goldfish", "my dog"), "my set") is teacher


def test_timm_names_bring_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: what timm would have fetched is made here."""
    made = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: made)
    teacher = load_teacher("timm/vit_tiny_patch16_224")
    assert len(teacher.class_names) == 1000
    assert torch.allclose(teacher.network.mean.flatten(), torch.full((3,), 0.5))  # its own, not ResNet's
    assert teacher.network(torch.rand(1, 3, 32, 32)).shape == (1, 1000)  # resized to the 224 px it takes

    def offline(name: str, pretrained: bool) -> nn.Module:
        raise OSError("we cannot reach the Hub\nand more")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ValueError, match=r"timm/resnet10t cannot be fetched \(we cannot reach the Hub\): give resnet10t=FILE"
    ):
        load_teacher("timm/resnet10t")
    with pytest.raises(ValueError, match="no network 'resnat'"):
        load_teacher("timm/resnat")


def test_imagenets_weights_see_images_as_their_network_was_made_to(tmp_path: Path) -> None:
    """tf_efficientnet_lite0: mean and deviation 0.5, 224 px; a ResNet's own would be others."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    torch.save(network.state_dict(), tmp_path / "t.pth")
    teacher = load_teacher(f"tf_efficientnet_lite0={tmp_path / 't.pth'}").network
    images = torch.rand(1, 3, 224, 224)
    assert torch.allclose(teacher(images), network((images - 0.5) / 0.5), atol=1e-4)
    small = torch.rand(1, 3, 64, 64)
    enlarged = nn.functional.interpolate(small, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.allclose(teacher(small), network((enlarged - 0.5) / 0.5), atol=1e-4)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto"])
def test_safetensors_of_the_hub_are_imagenets_without_a_list(tmp_path: Path, name: str) -> None:
    """They keep no order, so that the classifier's weights are not the last: it is found by its name."""
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    torch.save(network.state_dict(), tmp_path / "t.pth")
    saved, pickled = (load_teacher(f"{name}={tmp_path / file}") for file in ("model.safetensors", "t.pth"))
    assert len(saved.class_names) == 1000 and saved.class_names == pickled.class_names
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(saved.network(images), pickled.network(images))
    assert read_network(name, tmp_path / "model.safetensors").num_classes == 1000


def test_safetensors_that_others_wrote_are_as_good_as_their_pickles(tmp_path: Path) -> None:
    """RDED's ResNet-18 for small images, and a list of its classes."""
    from torchvision.models import resnet18

    network = resnet18(num_classes=2)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    torch.save(network.state_dict(), tmp_path / "t.pth")
    save_file(network.state_dict(), tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match="does not say which class is which"):
        load_teacher(f"resnet18={tmp_path / 't.safetensors'}")
    (tmp_path / "t.json").write_text('["cat", "dog"]')
    saved, pickled = (load_teacher(f"resnet18={tmp_path / file}") for file in ("t.safetensors", "t.pth"))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(saved.network(images), pickled.network(images))
    assert saved.class_names == ("cat", "dog") and saved.sha256 == pickled.sha256


def test_weights_of_other_names_are_taken_by_their_order(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network = timm.create_model("resnet10t", num_classes=2).eval()
    state = {f"_{i}.{key.rsplit('.', 1)[1]}": value for i, (key, value) in enumerate(network.state_dict().items())}
    torch.save(state, tmp_path / "t.pth")
    (tmp_path / "t.json").write_text('["cat", "dog"]')
    teacher = load_teacher(f"resnet10t={tmp_path / 't.pth'}")
    images = torch.rand(1, 3, 32, 32)
    expected = network((images - teacher.network.mean) / teacher.network.std)
    assert torch.allclose(teacher.network(images), expected, atol=1e-5)
    assert "are taken in that order" in capsys.readouterr().err
    torch.save(dict(reversed(state.items())), tmp_path / "t.pth")  # the same tensors in another order
    with pytest.raises(ValueError, match="does not fit this model"):
        load_teacher(f"resnet10t={tmp_path / 't.pth'}")


def test_the_two_cranes_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    """n02012849 is the bird, n03126707 the machine; ImageNet calls both crane."""
    wnids = ("n03126707", "n01440764")
    for wnid in wnids:
        (tmp_path / "train" / wnid).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / wnid / "0.png")

    class Counting(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.arange(1000.0).expand(len(images), 1000)

    held = load_set(str(tmp_path))
    teacher = Teacher(Counting(), "t", teachers._imagenet_names(), "")
    few = teacher.for_classes(held.class_names, held.name, held.wnids)
    assert held.wnids == ("n01440764", "n03126707")
    assert few.network(torch.zeros(1, 3, 8, 8)).tolist() == [[0.0, 517.0]]


def test_agreement_of_teacher_and_set_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for wnid in ("n01440764", "n01443537"):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "train" / wnid / "0.png")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "t.pth")
    teacher = ["--teacher", f"resnet10t={tmp_path / 't.pth'}", "--epochs", "1", "--device", "cpu"]
    main(["relabel", str(tmp_path), *teacher, "--out", str(tmp_path / "labels")])
    # two equal images of two classes: one of them is named as the set does, whatever the teacher thinks
    said = capsys.readouterr().err
    assert "the teacher resnet10t names 50.0% of the images of" in said and "little more than chance" in said


# Names


def held(names: tuple[str, ...], labels: list[int]) -> LabeledImages:
    images = torch.tensor(labels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return LabeledImages(images, torch.tensor(labels), names, "set", {}, "")


def test_names_are_matched_whatever_their_order(capsys: pytest.CaptureFixture) -> None:
    found = align_classes(held(("class_10", "class_2"), [0, 0, 1]), ("class_2", "class_10"), "t")
    assert found.labels.tolist() == [1, 1, 0] and found.class_names == ("class_2", "class_10")
    assert align_classes(held(("caf\u00e9",), [0]), ("cafe\u0301", "x"), "t").labels.tolist() == [0]
    assert align_classes(held(("Cat", "cat"), [0, 1]), ("cat", "Cat"), "t").labels.tolist() == [1, 0]
    assert align_classes(held(("crane", "crane"), [0, 1]), ("x", "crane", "crane"), "t").labels.tolist() == [1, 2]
    rded = align_classes(held(("00000", "00001"), [0, 1]), ("cat", "dog"), "t")
    assert rded.labels.tolist() == [0, 1] and rded.class_names == ("cat", "dog")
    assert "set: 00000 is taken for cat, and so on by number" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"the teacher does not know 'dog' \(1 of 2\); it knows cat, bird"):
        align_classes(held(("cat", "dog"), [0, 1]), ("cat", "bird"), "the teacher")


def test_test_images_of_other_classes_are_left_out(capsys: pytest.CaptureFixture) -> None:
    small = held(("a", "b", "c"), [2, 0])
    test = align_test(held(("c", "x", "a"), [0, 0, 1, 2]), small)
    assert test.labels.tolist() == [2, 2, 0] and test.images[:, 0, 0, 0].tolist() == [0, 0, 2]
    assert "images of 1 classes that the set does not have are left out" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"there are no test images of 'c' \(1 of 2 classes\)"):
        align_test(held(("a", "b"), [0, 1]), small)


def test_headings_keep_commas_that_are_not_imagenets() -> None:
    assert short_name("tench, Tinca tinca") == "tench" and short_name("a,b; c") == "a,b; c"
    assert len(set(keys_of(["crane", "crane", "Crane"]))) == 3


def test_a_teacher_knows_more_classes_than_the_set(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.arange(4.0).expand(len(images), 4)

    teacher = Teacher(Counting(), "t", ("a", "b", "c", "d"), "")
    assert teacher.for_classes(("d", "b"), "s").network(torch.zeros(2, 3, 1, 1)).tolist() == [[3, 1], [3, 1]]
    assert teacher.for_classes(("d", "c", "b", "a"), "s") is teacher


def test_evaluate_takes_an_imagenet_network_as_the_teacher_of_a_few_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for split in ("train", "val"):
        for number, wnid in enumerate(("n01440764", "n01443537")):
            folder = tmp_path / split / wnid
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (32, 32), (80 * number, 40 * i, 90)).save(folder / f"{i}.jpg")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "t.pth")
    teacher = ["--teacher", f"resnet10t={tmp_path / 't.pth'}", "--student", "small", "--epochs", "1", "--runs", "1"]
    out = ["--out", str(tmp_path / "r"), "--device", "cpu", "--last-alone"]
    main(["evaluate", str(tmp_path), "--test", str(tmp_path), *teacher, *out])
    said = capsys.readouterr().err
    assert "the 2 of" in said and f"6 images of 2 classes in {tmp_path} (split val)" in said
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["test"]["images"] == 6 and result["set"]["class_names"][1].startswith("goldfish")


NAMES = ("a,b; c", 'quo"ted', "caf\u00e9", "\U0001f408", "x" * 120, "7")


@pytest.mark.parametrize("name", NAMES)
def test_a_class_of_any_name_can_be_asked_for(plain_model: hieramp.Model, name: str) -> None:
    odd = replace(plain_model, class_names=(*NAMES[:3], name) if name not in NAMES[:3] else (*NAMES[:3], "d"))
    label = odd.class_names.index(name)
    for asked in (name, name.upper(), f" {name} ", unicodedata.normalize("NFD", name)):
        assert odd.label_of(asked) == label
        for text in (asked, f"{asked};0", f"0; {asked}"):
            assert label in [odd.label_of(one) for one in split_names(text, odd.class_names)]


def test_lists_of_classes() -> None:
    known = ("a,b; c", "dog", "tench, Tinca tinca", "cat")
    assert split_names("dog, cat", known) == ["dog", "cat"]
    assert split_names("a,b; c,dog", known) == ["a,b; c", "dog"]
    assert split_names("tench, Tinca tinca; 3", known) == ["tench, Tinca tinca", "3"]
    assert split_names("bird, unknown; dog", known) == ["bird, unknown", "dog"]


# Sets of some of a model's classes


@pytest.fixture(scope="module")
def some_of_imagenets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """set.zip: two classes (one is the machine called crane), drawn by a VAR of ImageNet's 1,000; test/: three."""
    root = tmp_path_factory.mktemp("some")
    drawn = build_model(replace(TINY_VAR, num_classes=1000, class_token_scales=()))
    drawn = replace(drawn, class_names=teachers._imagenet_names(), wnids=tuple(ImageNetInfo().label_names()))
    for _ in hieramp.distill(drawn, 2, root / "set.zip", classes=["n02086240", "n03126707"], batch_size=4):
        pass
    for number, wnid in enumerate(("n02012849", "n02086240", "n03126707")):  # the bird called crane comes first
        folder = root / "images" / "test" / wnid
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32), (80 * number, 9, 90)).save(folder / "0.png")
    torch.save(timm.create_model("resnet10t").state_dict(), root / "t.pth")
    return root


def test_a_set_of_some_of_a_models_classes_has_these_alone(
    some_of_imagenets: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A teacher of 1,000 classes and the students of a set of two have two outputs, as the papers' have."""
    root, wanted = some_of_imagenets, ("Shih-Tzu", "crane")
    made, epochs = str(root / "set.zip"), ["--epochs", "1", "--device", "cpu"]
    main(["relabel", made, "--teacher", f"resnet10t={root / 't.pth'}", "--out", str(tmp_path / "labels"), *epochs])
    said = "the teacher resnet10t knows 1000 classes; the 2 of set.zip are taken by name (Shih-Tzu is its class 155)"
    assert capsys.readouterr().err.count(said) == 1
    assert read_safetensors(tmp_path / "labels" / "epoch-0000.safetensors")["logits"].shape == (4, 2)
    judged = ["--test", str(root / "images"), "--student", "small", "--runs", "1", "--last-alone", *epochs]
    for number, teacher in enumerate((str(tmp_path / "labels"), f"resnet10t={root / 't.pth'}")):
        out = tmp_path / str(number)
        main(["evaluate", made, "--teacher", teacher, *judged, "--out", str(out), "--save", f"{out}.safetensors"])
        assert load_teacher(f"{out}.safetensors").class_names == wanted
        result = json.loads((out / "result.json").read_text())
        assert result["set"]["class_names"] == list(wanted) and result["test"]["images"] == 2
    evaluation = Evaluation(
        EvaluationConfig(made, str(root / "images"), f"resnet10t={root / 't.pth'}", "small", size=32)
    )
    assert evaluation.held.wnids == ("n02086240", "n03126707")
    # the machine is tested, not the bird of the same name
    assert evaluation.test.labels.tolist() == [0, 1] and evaluation.test.images[:, 0, 0, 0].tolist() == [80, 160]


def test_labels_of_all_classes_that_were_stored_before_still_serve(some_of_imagenets: Path, tmp_path: Path) -> None:
    made = str(some_of_imagenets / "set.zip")
    held, training = load_set(made), training_of(PROTOCOLS["rded"], "small", 4, 2, 32, epochs=1)
    teacher = load_teacher(f"resnet10t={some_of_imagenets / 't.pth'}")
    for _ in relabel(held, teacher.network, training, tmp_path / "labels", {"teacher": "t", "teacher_sha256": ""}):
        pass
    config = EvaluationConfig(
        made, str(some_of_imagenets / "images"), str(tmp_path / "labels"), "small", epochs=1, device="cpu"
    )
    assert len(Evaluation(config).held.class_names) == 1000


def test_a_result_of_all_outputs_is_not_gone_on_with(some_of_imagenets: Path, tmp_path: Path) -> None:
    """Versions of before trained students of as many outputs as the model has classes."""
    root = some_of_imagenets
    task = EvaluationConfig(
        str(root / "set.zip"), str(root / "images"), f"resnet10t={root / 't.pth'}", "small", device="cpu"
    )
    evaluation = Evaluation(task)
    before = evaluation.describe()
    del before["key"]["classes"]
    results.write_result(tmp_path, before)
    with pytest.raises(ValueError, match="classes None, not 2: give another --out"):
        begin(evaluation, tmp_path)


def test_a_good_teacher_of_two_classes_is_not_called_blind() -> None:
    assert not teachers.is_blind(0.8, 2) and teachers.is_blind(0.52, 2)
    assert teachers.is_blind(0.19, 10) and not teachers.is_blind(0.21, 10)
    assert teachers.is_blind(0.0019, 1000) and not teachers.is_blind(0.0021, 1000) and not teachers.is_blind(1, 1)


def test_the_second_crane_of_a_models_is_found_by_its_id(some_of_imagenets: Path) -> None:
    about = {"class_names": ["crane", "crane", "Shih-Tzu"], "wnids": ["n02012849", "n03126707", "n02086240"]}
    few = of_its_classes(load_set(str(some_of_imagenets / "set.zip")))
    assert align_to_model(few, about).labels.tolist() == [2, 2, 1, 1]
