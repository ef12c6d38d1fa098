"""The verdict on a set, and its pictures as they are drawn."""

import io
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image

import hieramp
from app import distill_requests, set_pictures, verdict_tab, view_requests
from app.distill_tab import mine
from app.jobs import Job
from app.set_verdict import judge_set
from app.visitor_limits import VisitorLimits
from hieramp.commands.main import main
from hieramp.errors import UserError


def test_copies_of_real_images_are_called_so(model: hieramp.Model, image_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "copies.zip"
    main(["distill", "--method", "random-real", "--ipc", "3", "--data", str(image_folder), "--out", str(path)])
    *_, found = judge_set(path, None, model.vqvae, str(image_folder))
    assert found.is_finished and (found.images, found.classes, found.real_images) == (6, 2, 48)
    assert found.nearest == 0 and found.share_close == 1 and found.nearest_of_test > 0
    assert found.students is None and found.agreement is None  # there is no classifier
    words = dict(verdict_tab.in_words(found))
    assert "100% are nearer than 99 % of test images are: look for copies." in words["Nearest real image"]
    assert set(words) == {"Tokens", "Tokens of random real", "Nearest real image"}


def test_a_set_of_other_classes_than_the_data_is_one_sentence(
    model: hieramp.Model, image_folder: Path, tmp_path: Path
) -> None:
    path = hieramp.distill(model, 2, tmp_path / "set.zip", classes=[1, 2]).run()
    *_, found = judge_set(path, None, model.vqvae, None)
    assert found.is_finished and "--data" in dict(verdict_tab.in_words(found))["Nearest real image, student"]
    with pytest.raises(UserError, match="the classes of"):
        list(judge_set(path, None, model.vqvae, str(image_folder)))


def test_pictures_are_those_drawn_so_far_and_open_as_they_were_drawn(model: hieramp.Model, tmp_path: Path) -> None:
    asked = distill_requests.read_distill_request(
        model,
        VisitorLimits(),
        view_requests.defaults(model) | {"classes": ["cat", "dog"], "ipc": 3, "set_seed": 2, "mid_strength": 2.0},
    )
    job = Job("id", tmp_path, asked)
    assert set_pictures.pictures(job, []) == ([], False)
    how = {"classes": list(asked.labels), "seed": 2, "batch_size": 2}
    making = iter(hieramp.distill(model, 3, job.path, asked.settings, **how))
    while not set_pictures.pictures(job, [])[0]:
        next(making)
    first, has_more = set_pictures.pictures(job, [])
    assert [one[:4] for one in first[:2]] == [[0, 0, 0, 2_000_000], [1, 0, 1, 2_000_001]] and not has_more
    *_, _ = making
    rest, _ = set_pictures.pictures(job, [one[0] for one in first])
    assert sorted(one[0] for one in [*first, *rest]) == list(range(6))
    with hieramp.open_set(job.path) as held:
        for index, row, column, seed, source in [*first, *rest]:
            assert (held.labels[index], held.seeds[index]) == (asked.labels[row], seed) and column == index % 3
            with Image.open(io.BytesIO(b64decode(source.split(",")[1]))) as picture:
                assert picture.tobytes() == held.image(index).tobytes()
    name, query = set_pictures.frame(model, job)["rows"][1]
    asked_again = view_requests.from_query(
        model, dict(part.split("=") for part in f"{query}&seed=2000001"[1:].split("&"))
    )
    assert name == "dog" and asked_again == view_requests.ViewRequest(2, (2_000_001,), asked.settings)


@pytest.mark.parametrize("remembered", [None, "", {"ids": [3], "shown": 4}, []])
def test_what_a_browser_remembers_may_be_anything(remembered: object) -> None:
    assert mine(remembered) == ([], "")
    assert mine("abc") == (["abc"], "abc")  # as the version before kept it
