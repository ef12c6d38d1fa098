"""The command line as a person uses it: results, and one clear sentence for every misuse."""

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hieramp
from hieramp.commands import COMMANDS
from hieramp.commands.main import build_parser, main
from hieramp.data import what_is_missing
from hieramp.figures import read_settings


def test_generate_draws_two_labelled_rows(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "cat.png"
    main(
        [
            "generate",
            "--class",
            "cat",
            "--count",
            "3",
            "--seed",
            "7",
            "--out",
            str(out),
            "--model",
            str(model_folder),
            "--stages",
            "coarse=50%:5,mid=off,fine=30%:2",
            "--guidance",
            "3",
            "--strip",
            "--json",
            "--device",
            "cpu",
        ]
    )
    printed = json.loads(capsys.readouterr().out)
    settings = read_settings(out)
    assert settings == printed["settings"]
    assert settings["seeds"] == [7, 8, 9] and settings["class"] == "cat" and settings["guidance"] == 3.0
    assert settings["stages"] == {"coarse": [0.5, 5.0], "mid": None, "fine": [0.3, 2.0]}
    assert printed["seconds"]["draw"] > 0 and printed["files"] == [str(out), str(tmp_path / "cat-steps.png")]
    with Image.open(out) as sheet, Image.open(tmp_path / "cat-steps.png") as strip:
        assert sheet.width > 3 * 128 and sheet.height > 2 * 128 and strip.width > 6 * 128


def test_the_same_settings_make_the_same_file(model_folder: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        main(["generate", "--class", "1", "--count", "2", "--out", str(tmp_path / name), "--model", str(model_folder)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("more", [[], ["--strip"]])
def test_generate_lets_go_of_each_scale(
    more: list[str], model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step holds the logits and noise of its scale: thirty megabytes an image of a large model."""
    drawn, steps = [], hieramp.Model.steps

    def watched(*args: Any, **options: Any) -> Iterator[hieramp.Step]:
        for step in steps(*args, **options):
            drawn.append(weakref.ref(step))
            yield step
            del step
            assert sum(kept() is not None for kept in drawn) <= 1

    monkeypatch.setattr(hieramp.Model, "steps", watched)
    out = str(tmp_path / "x.png")
    main(["generate", "--class", "cat", "--count", "2", "--out", out, "--model", str(model_folder), *more])
    assert len(drawn) == 6


def test_saliency_shows_every_scale(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["saliency", "--class", "frog", "--out", str(tmp_path / "s.png"), "--model", str(model_folder)])
    assert "at 6 scales" in capsys.readouterr().out
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 7 * 128


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--class", "cta"], "unknown class 'cta'; the nearest are: cat"),
        (["--class", "cat", "--stages", "coarse=0%:5"], "coarse rho is 0"),
        (["--class", "cat", "--stages", "nonsense"], "cannot read stage 'nonsense'"),
        (["--class", "cat", "--out", "x.jpg"], "must end in .png"),
        (["--class", "cat", "--out", "nowhere/x.png"], "the folder nowhere does not exist"),
        (["--class", "cat", "--count", "1000"], "--count is 1000"),
        (["--class", "cat", "--blocks", "9"], "block 9 does not exist"),
        (["--class", "cat", "--guidance", "-2"], "guidance is -2"),
        (["--class", "cat", "--guidance-power", "-2"], "guidance power is -2"),
        (["--class", "cat", "--temperature", "-2"], "coarse temperature is -2"),
        (["--class", "cat", "--temperature", "fine=warm"], "'fine=warm' is no temperature"),
        (["--class", "cat", "--temperature", "last=1"], "'last=1' is no temperature: give a number, or coarse=1"),
        (["--class", "cat", "--model", "nope"], "there is no model 'nope'"),
        (["--class", "cat", "--device", "tpu7"], "device 'tpu7'"),
        (["--class", "cat", "--var-checkpoint", "none.pth"], "none.pth does not exist"),
    ],
)
def test_misuse(
    arguments: list[str],
    said: str,
    model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(model_folder)]
    with pytest.raises(SystemExit) as stopped:
        main(["generate", *arguments])
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and said in err and err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "-5m"], "'-5m' is not a time over 0"),
        (["--budget=-5m"], "'-5m' is not a time over 0"),
        (["--budget"], "expected one argument"),
        (["--budget", "0m"], "'0m' is not a time over 0"),
        (["--budget", "soon"], "'soon' is not a time"),
        (["--batch-size", "0"], "'0' is not a whole number of at least 1"),
        (["--learning-rate", "0"], "'0' is not a number over 0"),
        (["--learning-rate", "fast"], "'fast' is not a number over 0"),
        (["--preset", "huge"], "invalid choice: 'huge'"),
        (["--data", "nowhere/at/all"], "nowhere/at/all does not exist"),
        (["--resume"], "nothing to resume"),
        (["--shift", "2"], "--shift moves the images that var and class-tokens learn from; classifier takes none"),
        (["--depth", "9"], "--depth is the number of blocks of var; classifier takes none"),
        (["--depth", "0"], "'0' is not a whole number of at least 1"),
        (["--shift", "-1"], "'-1' is not a whole number"),
    ],
)
def test_training_misuse(
    arguments: list[str], said: str, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = [
        "train",
        "classifier",
        "--preset",
        "cifar10-small",
        "--data",
        str(image_folder),
        "--out",
        str(tmp_path / "m"),
    ]
    with pytest.raises(SystemExit) as stopped:
        main([*base, *arguments])
    err = capsys.readouterr().err
    *told, last = err.splitlines()  # of the images, once a process
    assert stopped.value.code == 2 and said in last and not [line for line in told if " images of " not in line]
    assert not (tmp_path / "m").exists()


def test_a_folder_that_is_a_file(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "train",
                "vqvae",
                "--preset",
                "cifar10-small",
                "--data",
                str(image_folder),
                "--out",
                str(tmp_path / "file"),
            ]
        )
    assert stopped.value.code == 2 and "is a file: give a folder" in capsys.readouterr().err


def test_help_needs_no_model_and_no_library_that_takes_seconds_to_load() -> None:
    asked = "import runpy, sys; sys.argv = ['hieramp', '--help']\ntry: runpy.run_module('hieramp', run_name='__main__')"
    loaded = "finally: print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    shown = subprocess.run([sys.executable, "-c", f"{asked}\n{loaded}"], capture_output=True, text=True, check=True)
    *text, last = shown.stdout.splitlines()
    assert all(any(line.split()[:1] == [command] for line in text) for command in COMMANDS)
    assert last.startswith("loaded") and " torch " in last
    assert not {"timm", "torchvision", "accelerate", "sympy"} & set(last.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_listed_as_it_describes_itself(command: str) -> None:
    """Its own parser and the outline that stands for it say the same."""
    (listed,) = (action.choices for action in build_parser([])._actions if isinstance(action.choices, dict))
    (whole,) = (action.choices for action in build_parser([command])._actions if isinstance(action.choices, dict))
    assert list(listed) == list(whole) == list(COMMANDS)
    assert whole[command].get_default("run") is not None and listed[command].get_default("run") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train vqvae --data nowhere", "nowhere does not exist here: a data set of the Hub is given as OWNER/NAME"),
        ("train vqvae --data ./nowhere", "./nowhere does not exist"),
        ("measure --data tests/nowhere", "tests/nowhere does not exist"),
        ("evaluate nowhere.zip", "nowhere.zip does not exist"),
        ("evaluate README.md --test ../nowhere", "../nowhere does not exist"),
        ("relabel nowhere", "nowhere does not exist"),
        ("recover nowhere.pt", "nowhere.pt does not exist"),
        ("distill --method random-real --data /a/nowhere", "/a/nowhere does not exist"),
        ("analyse nowhere.zip", "nowhere.zip does not exist"),
        ("compare --data ./nowhere", "./nowhere does not exist"),
        ("tune --data ./nowhere", "./nowhere does not exist"),
    ],
)
def test_images_that_are_not_there_are_told_before_all_else(
    line: str, said: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not first that a preset is missing, then an output folder, then a teacher."""
    monkeypatch.chdir(Path(__file__).parent.parent)
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and said in printed and printed.count("\n") == 1


def test_ids_of_the_hub_are_not_taken_for_missing_folders() -> None:
    assert not any(map(what_is_missing, ("uoft-cs/cifar10", "hfds/mnist", "imagenette", "cifar100", "tests")))


def test_recover_takes_the_diffusion_transformer_that_ships(capsys: pytest.CaptureFixture) -> None:
    assert build_parser().parse_args(["recover", "README.md", "--out", "x.zip"]).model == "cifar10-dit"
    with pytest.raises(SystemExit):
        main(["recover", "--help"])
    assert "(default: cifar10-dit)" in " ".join(capsys.readouterr().out.split())
