"""Distilled sets: the same bytes however they are made, nothing lost, nothing half-written."""

import gc
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import CLASSES
from PIL import Image

import hieramp
from hieramp.checkpoints import load_part, save_part, write_config
from hieramp.classifier import Classifier, load_classifier
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, to_json
from hieramp.data import open_source
from hieramp.distillation import assemble, maker, plan
from hieramp.distillation import distill as planning
from hieramp.distillation.distill import distill
from hieramp.distillation.estimate import estimate
from hieramp.distillation.real import collect
from hieramp.errors import UserError
from hieramp.generation import ambiguity
from hieramp.generation.captured import CudaGraphCache
from hieramp.generation.sampling import Sampling, filter_logits, gumbel_noise, noise_keys, sample
from hieramp.imageset.reader import open_set
from hieramp.imageset.verify import problems

Make = Callable[..., bytes]


def run(*args: object, **kwargs: object) -> hieramp.Progress:
    *_, last = distill(*args, **kwargs)  # type: ignore[arg-type]
    assert last.finished and last.done == last.total
    return last


@pytest.fixture(scope="module")
def judged(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder with a classifier of random weights."""
    folder = tmp_path_factory.mktemp("judged") / "tiny"
    shutil.copytree(model_folder, folder)
    torch.manual_seed(0)
    config = ClassifierConfig(num_classes=len(CLASSES), layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    save_part(folder, "classifier", Classifier(config).state_dict())
    write_config(folder, classifier=to_json(config))
    return folder


@pytest.fixture(scope="module")
def loaded(judged: Path) -> hieramp.Model:
    return hieramp.load(judged, "cpu")


@pytest.fixture(scope="module")
def reference(loaded: hieramp.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "set.zip"
    run(loaded, 5, out, soft_labels=True)
    return out


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_same_bytes_at_any_batch_size(loaded: hieramp.Model, reference: Path, tmp_path: Path, batch_size: int) -> None:
    run(loaded, 5, tmp_path / "set.zip", soft_labels=True, batch_size=batch_size)
    assert (tmp_path / "set.zip").read_bytes() == reference.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_same_bytes_on_several_threads(loaded: hieramp.Model, reference: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    maker._single_threads.cache_clear()
    torch.set_num_threads(3)
    try:
        run(loaded, 5, tmp_path / "s.zip", batch_size=7, soft_labels=True)
        begun_after = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
    finally:
        torch.set_num_threads(before)
        maker._single_threads.cache_clear()
    assert (tmp_path / "s.zip").read_bytes() == reference.read_bytes()
    assert begun_after == 3  # the workers' one thread is theirs alone


def test_same_bytes_where_every_image_is_in_doubt(
    loaded: hieramp.Model, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn again in float64, every token is what float32 had drawn."""
    monkeypatch.setattr(ambiguity, "LOGIT_ERROR", 1e3)
    run(loaded, 5, tmp_path / "set.zip", soft_labels=True)
    assert (tmp_path / "set.zip").read_bytes() == reference.read_bytes()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_doubt_is_what_a_disturbance_can_turn(
    loaded: hieramp.Model, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits disturbed by less than the tolerance change no token that was called clear, and some that were not."""
    tolerance = 0.05
    monkeypatch.setattr(ambiguity, "LOGIT_ERROR", tolerance)
    labels, seeds = [0, 1, 2, 3] * 8, list(range(32))
    steps = list(loaded.steps(labels, seeds, guidance=0.0, top_k=20, top_p=0.9, temperature=temperature))
    generator = torch.Generator().manual_seed(0)
    turned = {True: 0, False: 0}
    for step in steps:
        noise = gumbel_noise(noise_keys(labels, seeds, torch.device("cpu")), step.scale, *step.logits.shape[1:])
        noise *= temperature
        for _ in range(20):
            error = (torch.rand(step.logits.shape, generator=generator) - 0.5) * tolerance
            again = sample(filter_logits(step.logits + error, 20, 0.9), noise)
            for clear, changed in zip(
                step.is_unambiguous.tolist(), (again != step.tokens).any(1).tolist(), strict=True
            ):
                turned[clear] += changed
    assert turned[True] == 0 and turned[False] > 10


def test_temperature_and_the_power_of_guidance_are_settings_of_a_set(
    loaded: hieramp.Model, reference: Path, tmp_path: Path
) -> None:
    for name, batch_size in (("a.zip", 5), ("b.zip", 2)):
        run(loaded, 2, tmp_path / name, temperature=(1, 1, 0.5), guidance_power=0, batch_size=batch_size)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with hieramp.open_set(tmp_path / "a.zip") as cooled, hieramp.open_set(reference) as plain:
        assert cooled.settings["temperature"] == [1, 1, 0.5] and cooled.settings["guidance_power"] == 0
        assert not {"temperature", "guidance_power"} & plain.settings.keys()
    with pytest.raises(ValueError, match="temperature"):
        next(iter(distill(loaded, 2, tmp_path / "a.zip", temperature=0.7)))
    with pytest.raises(ValueError, match="guidance_power"):
        next(iter(distill(loaded, 2, tmp_path / "a.zip", temperature=(1, 1, 0.5))))


def test_of_the_candidates_the_surest_is_kept(
    loaded: hieramp.Model, reference: Path, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image k of three candidates is one of the images 3k to 3k + 2 of a plain set, as they are there."""
    run(loaded, 6, tmp_path / "plain.zip", soft_labels=True)
    first = tmp_path / "first.zip"
    run(loaded, 2, first, soft_labels=True, candidates=3)
    with hieramp.open_set(tmp_path / "plain.zip") as plain, hieramp.open_set(first) as chosen:
        plain_labels, chosen_labels = plain.soft_labels(), chosen.soft_labels()
        assert plain_labels is not None and chosen_labels is not None
        sure_N = plain_labels.float().log_softmax(-1).gather(1, torch.tensor(plain.labels)[:, None])[:, 0]
        best_N = sure_N.view(-1, 3).argmax(1) + 3 * torch.arange(len(sure_N) // 3)
        assert [plain.seeds[i] for i in best_N] == list(chosen.seeds) and len(set(best_N % 3)) > 1
        assert [plain.manifest["images"][i]["sha256"] for i in best_N] == [
            row["sha256"] for row in chosen.manifest["images"]
        ]
        assert torch.equal(plain_labels[best_N], chosen_labels)
    stopped = iter(distill(loaded, 2, tmp_path / "again.zip", soft_labels=True, candidates=3, batch_size=4))
    while next(stopped).done < 4:
        pass
    stopped.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="candidates was 3, now 2"):
        run(loaded, 2, tmp_path / "again.zip", soft_labels=True, candidates=2)
    monkeypatch.setattr(ambiguity, "LOGIT_ERROR", 1e3)  # from here on every candidate is drawn twice
    run(loaded, 2, tmp_path / "again.zip", soft_labels=True, candidates=3, batch_size=7)
    assert (tmp_path / "again.zip").read_bytes() == first.read_bytes()
    run(loaded, 1, tmp_path / "hard.zip", candidates=2, classes=[1])
    with hieramp.open_set(tmp_path / "hard.zip") as hard:
        assert hard.soft_labels() is None and not list(problems(hard))


def test_the_contact_sheet_shows_the_first_images_of_each_class_in_order(
    loaded: hieramp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[str, list[bytes]]] = []
    monkeypatch.setattr(assemble, "contact_sheet", lambda rows: shown.extend(rows) or b"<svg/>")
    run(loaded, 3, tmp_path / "set.zip", classes=[2, 1])
    with hieramp.open_set(tmp_path / "set.zip") as made:
        pictures = [made.image(index) for index in range(6)]
        assert [name for name, _ in shown] == [made.class_names[label] for label in (1, 2)]
    for picture, png in zip(pictures, [png for _, pngs in shown for png in pngs], strict=True):
        assert Image.open(io.BytesIO(png)).tobytes() == picture.tobytes()


def test_half_precision_keeps_its_batches(loaded: hieramp.Model, judged: Path, tmp_path: Path) -> None:
    half = hieramp.load(judged, "cpu", torch.bfloat16)
    run(half, 3, tmp_path / "whole.zip", batch_size=4)
    stopped = iter(distill(half, 3, tmp_path / "set.zip", batch_size=4))
    while next(stopped).done < 4:
        pass
    stopped.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="batch_size was 4, now 5"):
        run(half, 3, tmp_path / "set.zip", batch_size=5)
    run(half, 3, tmp_path / "set.zip", batch_size=4)
    assert (tmp_path / "set.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_killed_twenty_times(judged: Path, tmp_path: Path) -> None:
    """A real process, SIGKILL at random moments; what then finishes is byte for byte an undisturbed run's."""
    model, seed = hieramp.load(judged, "cpu"), int.from_bytes(os.urandom(4), "little")
    said = interrupted(judged, tmp_path / "set.zip", 20, seed)
    assert said["killed"] >= 5, f"too few were still at work: {said} with seed {seed}"
    run(model, 30, tmp_path / "set.zip", batch_size=11, soft_labels=True)
    run(model, 30, tmp_path / "whole.zip", batch_size=32, soft_labels=True)
    assert (tmp_path / "set.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes(), f"seed {seed}"


def test_disk_full(judged: Path, tmp_path: Path) -> None:
    """The batch in flight is lost, a sentence says what to do, and the same line goes on afterwards."""
    said = interrupted(judged, tmp_path / "set.zip", 1, 0, 12_000)["said"]
    assert "kept in" in said and "run the same line again" in said and "set.zip" in said
    assert not (tmp_path / "set.zip").exists() and not list(tmp_path.rglob("*.writing"))
    model = hieramp.load(judged, "cpu")
    run(model, 30, tmp_path / "set.zip", soft_labels=True)
    with hieramp.open_set(tmp_path / "set.zip") as image_set:
        assert not list(problems(image_set))


def interrupted(folder: Path, out: Path, count: int, seed: int, *limit: int) -> dict:
    script = Path(__file__).parent / "interrupted.py"
    command = [sys.executable, str(script), *map(str, (folder, out, count, seed, *limit))]
    path = {**os.environ, "PYTHONPATH": str(script.parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=path, check=True)
    return json.loads(done.stdout)


def test_closing_and_going_on(loaded: hieramp.Model, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "set.zip"
    going = iter(distill(loaded, 5, out, soft_labels=True, batch_size=4))
    seen = [next(going), next(going)]
    going.close()  # type: ignore[attr-defined]
    assert seen[0].done == 0 and 0 < seen[1].done < seen[1].total and not out.exists()
    first = next(iter(distill(loaded, 5, out, soft_labels=True)))
    assert first.done >= seen[1].done
    run(loaded, 5, out, soft_labels=True, batch_size=7)
    assert out.read_bytes() == reference.read_bytes()


def test_a_truncated_batch_is_made_again(loaded: hieramp.Model, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "set.zip"
    going = iter(distill(loaded, 5, out, soft_labels=True, batch_size=5))
    while next(going).done < 10:
        pass
    going.close()  # type: ignore[attr-defined]
    batches = sorted((tmp_path / "set.zip.part").glob("*.batch"))
    batches[0].write_bytes(batches[0].read_bytes()[:-200])
    batches[1].write_bytes(b"no zip at all")
    run(loaded, 5, out, soft_labels=True)
    assert out.read_bytes() == reference.read_bytes()


def test_other_settings_in_the_same_place_are_refused(loaded: hieramp.Model, tmp_path: Path) -> None:
    out = tmp_path / "set.zip"
    going = iter(distill(loaded, 4, out, guidance=3.0))
    next(going)
    with pytest.raises(ValueError, match="another run is writing"):
        run(loaded, 4, out, guidance=3.0)
    going.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"settings.guidance was 3.0, now 2.0"):
        run(loaded, 4, out, guidance=2.0)
    assert run(loaded, 4, out, guidance=3.0).images_per_second > 0
    with pytest.raises(ValueError, match=r"a finished set .*settings.seed was 0, now 1"):
        run(loaded, 4, out, guidance=3.0, seed=1)
    before = out.stat().st_mtime_ns
    assert run(loaded, 4, out, guidance=3.0).images_per_second == 0  # there already
    assert out.stat().st_mtime_ns == before
    (tmp_path / "mine.zip").write_text("a letter")
    with pytest.raises(ValueError, match="in the way"):
        run(loaded, 4, tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "a letter"


def test_an_upgrade_stops_no_set(
    loaded: hieramp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A set that was begun by other versions goes on and says so; one that is finished is there."""
    out, versions = tmp_path / "set.zip", plan.versions()
    going = iter(distill(loaded, 3, out, batch_size=4))
    while next(going).done < 4:
        pass
    going.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(plan, "versions", lambda: {**versions, "torch": "9.0"})
    run(loaded, 3, out)
    (said,) = caplog.messages
    assert f"begun by other versions (torch was '{versions['torch']}', now '9.0')" in said
    with hieramp.open_set(out) as image_set:
        assert image_set.manifest["versions"]["torch"] == "9.0"
    monkeypatch.setattr(plan, "versions", lambda: {**versions, "torch": "10.0"})
    caplog.clear()
    assert run(loaded, 3, out).images_per_second == 0 and not caplog.messages


def test_a_set_is_made_by_running_it(loaded: hieramp.Model, tmp_path: Path) -> None:
    planned = distill(loaded, 1, tmp_path / "set.zip", classes=["cat"])
    assert not list(tmp_path.iterdir())
    assert planned.run() == tmp_path / "set.zip" and (tmp_path / "set.zip").is_file()
    assert [progress.finished for progress in planned] == [True]


def test_an_estimate_draws_as_the_set_would(
    loaded: hieramp.Model, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawers: list[maker.Drawer] = []

    def watched(*args: Any) -> maker.Drawer:
        drawers.append(maker.Drawer(*args))
        return drawers[-1]

    monkeypatch.setattr(planning, "Drawer", watched)
    amplified = hieramp.Settings(mid=(0.3, 2.0), blocks=(0, 1, 2), guidance=2.0)
    one = estimate(loaded, 10, amplified, candidates=3)
    assert estimate(loaded, 10, amplified, candidates=3) == one and len(drawers) == 1  # measured once
    assert (drawers[0].amplification, drawers[0].sampling) == (amplified.amplification, amplified.sampling)
    assert drawers[0].candidates == 3 and drawers[0].classifier is not None
    estimate(loaded, 10, hieramp.Settings())
    assert drawers[1].amplification.is_off and drawers[1].classifier is None


def test_seeds_and_settings_decide(loaded: hieramp.Model, tmp_path: Path) -> None:
    """Image k of a class is what `generate` draws from seed k; another seed of the set shares no image."""
    run(loaded, 3, tmp_path / "a.zip", classes=[CLASSES[2], CLASSES[0]], size=48)
    run(loaded, 3, tmp_path / "b.zip", classes=[2, 0], size=48, seed=1)
    with hieramp.open_set(tmp_path / "a.zip") as a, hieramp.open_set(tmp_path / "b.zip") as b:
        assert a.labels == (0, 0, 0, 2, 2, 2) and a.seeds == (0, 1, 2) * 2 and b.seeds[0] == 1_000_000
        assert a.file_names[3] == "train/00002/00000.png" and a.class_names == CLASSES
        assert not {a.image(i).tobytes() for i in range(6)} & {b.image(i).tobytes() for i in range(6)}
        drawn = loaded.generate([2], [1], hieramp.SCHEDULES["all"]).images[0]
        picture = Image.fromarray(drawn.mul(255).round().byte().permute(1, 2, 0).numpy())
        assert np.array_equal(np.asarray(a.image(4)), np.asarray(picture.resize((48, 48), Image.Resampling.LANCZOS)))


def test_soft_labels_are_the_classifiers(loaded: hieramp.Model, reference: Path, judged: Path) -> None:
    judge = load_classifier(judged)
    with hieramp.open_set(reference) as image_set:
        logits = image_set.soft_labels()
        assert logits is not None and logits.shape == (20, 4)
        for index in (0, 7, 19):
            pixels = torch.from_numpy(np.array(image_set.image(index))).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                assert torch.allclose(logits[index], judge(pixels)[0], atol=2e-3)


def test_soft_labels_of_another_class_order_are_put_into_the_models(
    loaded: hieramp.Model, reference: Path, judged: Path, tmp_path: Path
) -> None:
    """The same classifier, whose last layer and names were permuted alike."""
    shutil.copytree(judged, tmp_path / "other")
    state, order = load_part(judged, "classifier"), [2, 0, 3, 1]
    for name in ("network.fc.weight", "network.fc.bias"):
        state[name] = state[name][order]
    save_part(tmp_path / "other", "classifier", state)
    write_config(tmp_path / "other", class_names=[CLASSES[label] for label in order])
    run(loaded, 5, tmp_path / "ordered.zip", soft_labels=True, classifier=tmp_path / "other")
    with hieramp.open_set(tmp_path / "ordered.zip") as ours, hieramp.open_set(reference) as theirs:
        assert torch.equal(ours.soft_labels(), theirs.soft_labels())
    write_config(tmp_path / "other", class_names=["airplane", "dog", "bird", "frog"])
    with pytest.raises(ValueError, match="other does not know 'cat'; it knows airplane, dog, bird, frog"):
        run(loaded, 1, tmp_path / "set.zip", soft_labels=True, classifier=tmp_path / "other")
    assert not list(tmp_path.glob("set.zip*"))


@pytest.mark.parametrize("format", ["folder", "webdataset"])
def test_every_format_holds_the_same_images(
    loaded: hieramp.Model, reference: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / "set"
    run(loaded, 5, out, soft_labels=True, format=format)
    with hieramp.open_set(out) as ours, hieramp.open_set(reference) as zipped:
        assert not list(problems(ours))
        assert [ours.image(i).tobytes() for i in range(20)] == [zipped.image(i).tobytes() for i in range(20)]
        assert ours.labels == zipped.labels


def test_webdataset_reads_its_shards(loaded: hieramp.Model, reference: Path, tmp_path: Path) -> None:
    import webdataset

    run(loaded, 5, tmp_path / "set", format="webdataset")
    shards = sorted(map(str, (tmp_path / "set").glob("*.tar")))
    rows = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "cls"))
    with hieramp.open_set(reference) as image_set:
        assert [label for _, label in rows] == list(image_set.labels)
        assert rows[9][0].tobytes() == image_set.image(9).tobytes()


def test_datasets_loads_the_zip_and_the_folder(reference: Path, tmp_path: Path) -> None:
    import datasets

    shutil.unpack_archive(reference, tmp_path / "unzipped")
    cache = str(tmp_path / "cache")
    for place in ({"data_files": str(reference)}, {"data_dir": str(tmp_path / "unzipped")}):
        rows = datasets.load_dataset("imagefolder", split="train", cache_dir=cache, **place)
        with hieramp.open_set(reference) as image_set:
            assert len(rows) == 20 and tuple(rows["label"]) == image_set.labels
            assert rows["class_name"][5] == "cat" and tuple(rows["seed"]) == image_set.seeds
            assert rows[6]["image"].convert("RGB").tobytes() == image_set.image(6).tobytes()


def test_torchvision_and_timm_read_the_folder(reference: Path, tmp_path: Path) -> None:
    from timm.data import create_dataset
    from torchvision.datasets import ImageFolder

    shutil.unpack_archive(reference, tmp_path)
    with hieramp.open_set(reference) as image_set:
        for rows in (ImageFolder(tmp_path / "train"), create_dataset("", root=str(tmp_path / "train"))):
            assert tuple(label for _, label in rows) == image_set.labels
            assert rows[8][0].convert("RGB").tobytes() == image_set.image(8).tobytes()


def test_class_names_never_name_a_file(loaded: hieramp.Model, tmp_path: Path) -> None:
    names = ("../../etc/passwd", "/absolute", 'a,b\n"c"', "..")
    odd = replace(loaded, class_names=names, folder=None)
    run(odd, 1, tmp_path / "set.zip")
    with hieramp.open_set(tmp_path / "set.zip") as image_set:
        assert not list(problems(image_set)) and image_set.class_names == names
        assert {name.split("/")[1] for name in image_set.file_names} == {f"{i:05d}" for i in range(4)}
    listed = replace(loaded, wnids=("n01440764", "n01443537", "n01484850", "n01491361"), folder=None)
    run(listed, 1, tmp_path / "wnid.zip")
    with hieramp.open_set(tmp_path / "wnid.zip") as image_set:
        assert image_set.file_names[1] == "train/n01443537/00000.png"


def test_too_little_memory_halves_the_batch(
    loaded: hieramp.Model, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = hieramp.Model.steps, []

    def small(self: hieramp.Model, labels: list[int], *rest: object, **options: object) -> object:
        sizes.append(len(labels))
        if len(labels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, labels, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(hieramp.Model, "steps", small)
    run(loaded, 5, tmp_path / "set.zip", soft_labels=True, batch_size=16)
    assert max(sizes) == 10 and sizes[-1] <= 3
    assert (tmp_path / "set.zip").read_bytes() == reference.read_bytes()
    monkeypatch.setattr(hieramp.Model, "steps", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(MemoryError, match="batch of 1 does not fit"):
        run(loaded, 1, tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ipc": 0}, "ipc is 0"),
        ({"candidates": 0}, "candidates is 0"),
        ({"candidates": 65}, "candidates is 65"),
        ({"ipc": 20000, "candidates": 60}, "ipc times candidates is 1200000"),
        ({"classes": [4]}, "class 4 does not exist"),
        ({"classes": ["dgo"]}, "unknown class 'dgo'"),
        ({"classes": []}, "name at least one"),
        ({"classes": [1, 1]}, "only once"),
        ({"size": 0}, "size is 0"),
        ({"size": 99999}, "size is 99999"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": -2}, "batch_size is -2"),
        ({"format": "rar"}, "format is 'rar'"),
        ({"engine": "steam"}, "engine is 'steam'"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"out": "set.tar"}, "must end in .zip"),
        ({"out": "no/such/folder/set.zip"}, "does not exist"),
    ],
)
def test_bad_settings_are_refused_at_once(loaded: hieramp.Model, tmp_path: Path, settings: dict, said: str) -> None:
    out = tmp_path / settings.pop("out", "set.zip")
    with pytest.raises(ValueError, match=said):
        run(loaded, settings.pop("ipc", 1), out, **settings)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(loaded: hieramp.Model, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="run the same line again"):
        run(loaded, 1, "/sys/set.zip")  # not even root may
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        run(loaded, 1, tmp_path / "file" / "set.zip")


def test_estimate_tells_time_and_size(loaded: hieramp.Model, reference: Path) -> None:
    one, many = estimate(loaded, 20, soft_labels=True), estimate(loaded, 200, soft_labels=True)
    assert 0 < one.seconds < 60 and many.seconds == pytest.approx(10 * one.seconds)
    with hieramp.open_set(reference) as image_set:
        images = sum(row["bytes"] for row in image_set.manifest["images"])
    assert images < one.bytes < images + 20 * 2000


def test_command_makes_and_verifies(
    judged: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set.zip"
    main(["distill", "--ipc", "5", "--out", str(out), "--soft-labels", "--model", str(judged), "--device", "cpu"])
    assert "20 images" in capsys.readouterr().out and out.read_bytes() == reference.read_bytes()
    main(["verify", str(out)])
    assert "20 images of 4 classes" in capsys.readouterr().out
    two = tmp_path / "two.zip"
    main(f"distill --ipc 1 --out {two} --classes frog,1 --stages off --model {judged} --device cpu".split())
    with hieramp.open_set(two) as image_set:
        assert image_set.labels == (1, 3) and image_set.settings["stages"]["coarse"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--classes wolf", "unknown class 'wolf'"),
        ("--data .", "--data and --factor belong to"),
        ("--method rded", "name their folder with --data"),
        ("--method rded --data . --candidates 2", "takes neither --engine ray nor --candidates"),
        ("--soft-labels --classifier nowhere", "nowhere is not a model folder"),
    ],
)
def test_misuse_is_one_sentence(
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(f"distill --ipc 1 --out {tmp_path / 'set.zip'} --model {judged} --device cpu {more}".split())
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_random_real_images(image_folder: Path, tmp_path: Path) -> None:
    source = open_source(str(image_folder))
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        *_, last = collect("random-real", source, 6, tmp_path / f"{name}.zip", seed=seed, batch_size=ord(name) % 5 + 1)
        assert last.finished
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert (tmp_path / "a.zip").read_bytes() != (tmp_path / "c.zip").read_bytes()
    with hieramp.open_set(tmp_path / "a.zip") as image_set:
        assert not list(problems(image_set)) and image_set.class_names == ("blue", "red")
        folders = [image_folder / "train" / name for name in ("blue", "red")]
        real = [{Image.open(file).convert("RGB").tobytes() for file in folder.iterdir()} for folder in folders]
        images = [image_set.image(i).tobytes() for i in range(12)]
        assert len(set(images)) == 12
        assert all(image in real[label] for image, label in zip(images, image_set.labels, strict=True))
    with pytest.raises(ValueError, match=r"has 24 images of blue, the set takes 25: lower --ipc"):
        list(collect("random-real", source, 25, tmp_path / "d.zip"))


class Brightest(Classifier):
    """Is the surer of "blue" the more blue there is, of "red" likewise."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        means = images_BCHW.mean((2, 3))
        return torch.stack([means[:, 2], means[:, 0]], 1) * 10


@pytest.mark.parametrize("factor", [1, 2])
def test_rded_takes_the_surest_crops(image_folder: Path, tmp_path: Path, factor: int) -> None:
    judge = Brightest(ClassifierConfig(num_classes=2, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)))
    source = open_source(str(image_folder))
    for method in ("rded", "random-real"):
        *_, last = collect(
            method, source, 3, tmp_path / f"{method}.zip", factor=factor, classifier=judge,
            classifier_classes=("blue", "red"), size=32,
        )  # fmt: skip
        assert last.finished
    with hieramp.open_set(tmp_path / "rded.zip") as best, hieramp.open_set(tmp_path / "random-real.zip") as at_random:
        assert not list(problems(best)) and best.settings["factor"] == factor
        for label, channel in ((0, 2), (1, 0)):
            chosen, others = (
                np.mean([np.asarray(s.image(i))[..., channel].mean() for i in range(6) if s.labels[i] == label])
                for s in (best, at_random)
            )
            assert chosen > others + 3
    list(collect("random-real", source, 1, tmp_path / "x.zip", classifier=judge, classifier_classes=("red", "blue")))
    with hieramp.open_set(tmp_path / "x.zip") as image_set:
        assert image_set.class_names == ("red", "blue")
        assert np.asarray(image_set.image(0)).mean((0, 1)).argmax() == 0  # label 0 is red
    with pytest.raises(ValueError, match="'cat' is not among the images"):
        list(collect("rded", source, 1, tmp_path / "y.zip", classifier=judge, classifier_classes=("cat", "blue")))


def test_ray_makes_the_same_set_though_a_worker_dies(
    loaded: hieramp.Model, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers; the first of them takes its own life over its first batch."""
    from hieramp.distillation import ray_engine

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    marker = tmp_path / "died"

    class Mortal(ray_engine._Worker):
        def make(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            if not marker.exists():
                marker.write_text("")
                os._exit(1)
            return super().make(request)

    monkeypatch.setattr(ray_engine, "_Worker", Mortal)
    run(loaded, 5, tmp_path / "set.zip", soft_labels=True, batch_size=4, engine="ray", workers=2)
    assert marker.exists()
    assert (tmp_path / "set.zip").read_bytes() == reference.read_bytes()
    run(loaded, 2, tmp_path / "chosen.zip", candidates=3)
    run(loaded, 2, tmp_path / "ray.zip", candidates=3, engine="ray", workers=2, batch_size=6)
    assert (tmp_path / "ray.zip").read_bytes() == (tmp_path / "chosen.zip").read_bytes()


# What a set depends on, and what it does not


def test_an_upgrade_costs_no_set(
    loaded: hieramp.Model,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, later = tmp_path / "set.zip", {**plan.versions(), "torch": "99.0", "python": "4.0.0"}
    going = iter(distill(loaded, 5, out, soft_labels=True, batch_size=6))
    next(going), next(going)
    going.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(plan, "versions", lambda: later)
    run(loaded, 5, out, soft_labels=True)
    assert "set.zip.part was begun by other versions (python was" in caplog.text
    with open_set(out) as found, open_set(reference) as expected:
        assert [row["sha256"] for row in found.manifest["images"]] == [
            row["sha256"] for row in expected.manifest["images"]
        ]
        assert found.manifest["versions"] == later
    caplog.clear()
    monkeypatch.undo()
    assert run(loaded, 5, out, soft_labels=True).images_per_second == 0 and not caplog.records  # it is there


def test_a_folder_of_the_users_is_left_alone(loaded: hieramp.Model, reference: Path, tmp_path: Path) -> None:
    mine = tmp_path / "set.zip.part" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(UserError, match=r"set\.zip\.part is in the way: it holds mine\.txt"):
        run(loaded, 1, tmp_path / "set.zip")
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]
    shutil.copy(reference, tmp_path / "set.zip")
    run(loaded, 5, tmp_path / "set.zip", soft_labels=True)  # finished, and nothing to tidy up
    assert mine.read_text() == "precious"


def test_damaged_settings_are_told(loaded: hieramp.Model, tmp_path: Path) -> None:
    part = tmp_path / "set.zip.part"
    part.mkdir()
    for text in ("[]", "null", "{", "[" * 100_000):
        (part / "settings.json").write_text(text)
        with pytest.raises(UserError, match=r"settings\.json is damaged: remove .* to begin anew"):
            run(loaded, 1, tmp_path / "set.zip")


def test_the_float64_copy_is_one_for_all(loaded: hieramp.Model) -> None:
    model = replace(loaded, captured=CudaGraphCache())
    doubled = maker.in_float64(model)
    assert doubled is maker.in_float64(model) and doubled is not maker.in_float64(replace(loaded))
    assert doubled.var.pos_start.dtype == torch.float64 and doubled.captured is None and model.captured is not None
    known = len(maker._DOUBLED)
    del model
    gc.collect()
    assert len(maker._DOUBLED) < known  # it goes with its model


def test_the_first_callers_share_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Slow(ThreadPoolExecutor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            time.sleep(0.1)
            super().__init__(*args, **kwargs)

    maker._single_threads.cache_clear()
    monkeypatch.setattr(maker, "ThreadPoolExecutor", Slow)
    try:
        with ThreadPoolExecutor(4) as callers:
            found = list(callers.map(lambda i: maker.parallel_map([lambda: i]), range(4)))
    finally:
        maker._single_threads.cache_clear()
    assert found == [[0], [1], [2], [3]] and len(made) == 1


class Watching(Classifier):
    """Notes whether TF32 was allowed whenever it was asked."""

    seen: ClassVar[list[bool]] = []

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        time.sleep(0.002)
        Watching.seen.append(torch.backends.cudnn.allow_tf32)
        return super().forward(images_BCHW)


@pytest.mark.parametrize("allowed", [True, False])
def test_soft_labels_never_see_tf32(
    allowed: bool, loaded: hieramp.Model, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch is the whole process's, and drawing, which turns it about too, goes on beside the classifier."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    Watching.seen.clear()
    classifier = Watching(load_classifier(judged).config)
    drawers = [maker.Drawer(loaded, hieramp.OFF, Sampling(), 32, classifier) for _ in range(2)]
    requests = [maker.BatchRequest(tuple(plan.Item(i, i % 4, i, "") for i in range(n, n + 3))) for n in range(0, 12, 3)]
    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda pair: pair[0].make(pair[1])(), zip(drawers * 2, requests)))
    assert Watching.seen and not any(Watching.seen)
    assert torch.backends.cudnn.allow_tf32 == allowed


def test_rded_takes_an_imagenet_network_and_spreads_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The classifier of real sets is any teacher; picture k of n has the crops of ranks k, k + n, k + 2n, …"""
    import timm

    for number, wnid in enumerate(("n01440764", "n01443537")):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (16, 16), (30 * i, 90 * number, 40)).save(tmp_path / "train" / wnid / f"{i}.png")
    network = timm.create_model("resnet10t")
    torch.save(network.state_dict(), tmp_path / "t.pth")
    line = ["distill", "--method", "rded", "--data", str(tmp_path), "--classifier", f"resnet10t={tmp_path / 't.pth'}"]
    main([*line, "--ipc", "2", "--size", "16", "--factor", "2", "--device", "cpu", "--out", str(tmp_path / "s.zip")])
    assert "the 2 of" in capsys.readouterr().err
    with hieramp.open_set(tmp_path / "s.zip") as made:
        assert not list(problems(made)) and made.image_size == 16 and made.settings["mosaic"] == 2
        assert made.class_names[1].startswith("goldfish")
    source = open_source(str(tmp_path / "train"))
    judge = Brightest(ClassifierConfig(num_classes=2, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)))
    common = {"classifier": judge, "size": 16, "factor": 2}
    list(collect("rded", source, 2, tmp_path / "reds.zip", **common))  # class 1 is the surer the redder a crop is
    with hieramp.open_set(tmp_path / "reds.zip") as made:
        reds = [np.asarray(made.image(k))[::8, ::8, 0].ravel() for k, label in enumerate(made.labels) if label == 1]
    ranked = sorted((int(red) for picture in reds for red in picture), reverse=True)
    assert [sorted(map(int, picture), reverse=True) for picture in reds] == [ranked[0::2], ranked[1::2]]
    assert len(set(ranked)) == 8
