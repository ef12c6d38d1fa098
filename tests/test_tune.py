"""The search for a schedule: what it measures, that it goes on, and what it says."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hieramp
from hieramp.amplification.settings import OFF, SCHEDULES, parse_stages
from hieramp.analysis.judged import Judged, judge
from hieramp.analysis.measure import draw_set
from hieramp.checkpoints import save_part, write_config
from hieramp.classifier import Classifier, load_classifier
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, to_json
from hieramp.evaluation.images import LabeledImages
from hieramp.generation.sampling import Sampling
from hieramp.tuning.proxies import FidProxy, JudgeProxy, StudentProxy, diversity
from hieramp.tuning.search import FIRST_SEED, Search, SearchSettings, to_params, to_stages

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def judged_folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """The tiny model with a classifier."""
    folder = tmp_path_factory.mktemp("judged") / "m"
    shutil.copytree(model_folder, folder)
    torch.manual_seed(0)
    config = ClassifierConfig(24, 4, (1, 1, 1, 1), (8, 8, 8, 8), "half")
    save_part(folder, "classifier", Classifier(config).state_dict(), torch.float32)
    write_config(folder, classifier=to_json(config))
    return folder


def tune(folder: Path, out: Path, *more: str) -> None:
    main(["tune", "--model", str(folder), "--ipc", "2", "--out", str(out), "--device", "cpu", *more])


def test_stages_and_parameters_are_the_same_thing() -> None:
    for name in ("off", "coarse", "mid", "fine", "all"):
        params = to_params(SCHEDULES[name])
        assert parse_stages(to_stages(params)) == SCHEDULES[name]
    assert to_stages(to_params(OFF)) == "coarse=off,mid=off,fine=off"
    assert parse_stages(to_stages(to_params(SCHEDULES["all"]) | {"mid_rho": 0.35, "mid_beta": -1.5})).mid == (
        0.35,
        -1.5,
    )


def test_a_search_begins_with_the_defaults_and_goes_on(
    judged_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "s"
    tune(judged_folder, out, "--trials", "3")
    first = json.loads((out / "trials.json").read_text())["trials"]
    tune(judged_folder, out, "--trials", "5")
    said = capsys.readouterr().out
    found = json.loads((out / "trials.json").read_text())["trials"]
    by_number = {row["trial"]: row for row in found}
    assert len(found) == 5 and all(by_number[row["trial"]] == row for row in first)
    assert by_number[0]["stages"] == "coarse=off,mid=off,fine=off"
    assert by_number[1]["stages"] == "coarse=50%:5,mid=50%:5,fine=50%:5"
    assert len({row["stages"] for row in found}) == 5 and found[0]["score"] == max(row["score"] for row in found)
    assert f"best: trial {found[0]['trial']}" in said and f"--stages {found[0]['stages']}" in said
    assert (out / "trials.png").is_file()
    with pytest.raises(SystemExit) as stopped:
        tune(judged_folder, out, "--trials", "5", "--guidance", "2")
    assert stopped.value.code == 2 and "a search with guidance 4.0, not 2.0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tune(judged_folder, out, "--trials", "5", "--fine", "off", "--temperature", "0.5")
    assert "unrecognized arguments: --fine" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tune(judged_folder, out, "--trials", "5", "--temperature", "0.5")
    assert "a search with temperature None, not [0.5, 0.5, 0.5]" in capsys.readouterr().err


def test_a_search_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    settings = SearchSettings("tiny", 2, "judge", Sampling(3.0), 0)
    before = {"model": "tiny", "ipc": 2, "proxy": "judge", "guidance": 3.0, "seed": 0, "details": ""}
    Search(tmp_path, settings).study.set_user_attr("settings", before)
    assert Search(tmp_path, settings).settings == settings
    Search(tmp_path, settings).study.set_user_attr("settings", before)
    with pytest.raises(ValueError, match=r"a search with top_p 0.95, not 0.5"):
        Search(tmp_path, SearchSettings("tiny", 2, "judge", Sampling(3.0, top_p=0.5), 0))


def test_a_trial_is_what_the_proxy_says_of_its_images(judged_folder: Path, tmp_path: Path) -> None:
    tune(judged_folder, tmp_path / "s", "--trials", "1")
    (row,) = json.loads((tmp_path / "s" / "trials.json").read_text())["trials"]
    drawn = draw_set(hieramp.load(judged_folder, "cpu"), 2, 50, OFF, Sampling(), FIRST_SEED)
    judged = judge(load_classifier(judged_folder), drawn.images, drawn.labels)
    assert row["score"] == pytest.approx(judged.accuracy * diversity(judged), rel=1e-5)


def test_diversity_by_hand() -> None:
    features = torch.tensor([[0.0, 0], [3, 4], [1, 1], [1, 2]])
    judged = judge_like(features, torch.tensor([0, 0, 1, 1]))
    assert diversity(judged) == pytest.approx((5 + 1) / 2)
    with pytest.raises(ValueError, match="at least two images"):
        diversity(judge_like(features[:1], torch.tensor([0])))


def judge_like(features: torch.Tensor, labels: torch.Tensor) -> Judged:
    count = len(labels)
    return Judged(torch.zeros(count, 3, 1, 1), labels, features, torch.ones(count), labels)


def test_proxies_prefer_what_is_better(judged_folder: Path) -> None:
    """Real images beat noise by FID; by students, images that show their class beat images that do not."""
    torch.manual_seed(0)
    classifier = load_classifier(judged_folder)
    labels = torch.arange(4).repeat_interleave(6)
    tints = torch.tensor([[0, 0, 120], [120, 0, 0], [0, 120, 0], [0, 0, 0]])
    real = (torch.randint(0, 100, (24, 3, 24, 24)) + tints[labels][:, :, None, None]).byte()
    noise = torch.randint(0, 256, (24, 3, 24, 24)).byte()
    fid = FidProxy(classifier, judge(classifier, real, labels).features_NF)
    assert fid(real, labels).score == pytest.approx(0, abs=1e-3) and fid(noise, labels).score < -1e-3
    validation = LabeledImages(real, labels, ("a", "b", "c", "d"), "v", {}, "")
    student = StudentProxy(classifier, validation, epochs=2)
    assert student(real, labels) == student(real, labels) and 0 <= student(noise, labels).score <= 1
    assert JudgeProxy(classifier)(real, labels).parts.keys() == {"named_right", "diversity"}
    assert replace(student, runs=2)(real, labels).parts["accuracy"] <= 1


def test_tune_misuse(
    judged_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more, said in {
        ("--proxy", "fid"): "--proxy fid needs --data",
        ("--trials", "0"): "'0' is not a whole number of at least 1",
        ("--ipc", "1"): "take --ipc 2 or more",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            tune(judged_folder, tmp_path / "x", *more)
        assert stopped.value.code == 2 and said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit) as stopped:
        tune(judged_folder, tmp_path / "y")
    assert (
        stopped.value.code == 2 and "tune needs Optuna: pip install -r requirements-tune.txt" in capsys.readouterr().err
    )
