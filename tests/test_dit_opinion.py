"""A second opinion on a diffusion transformer, its dose and response: the classifier that it takes, and its numbers."""

import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judged_dit import judged_dit

import hieramp
from app import computing, verdicts, view_requests
from app.distill_requests import has_classifier, read_distill_request
from app.saved_files import saving
from app.visitor_limits import VisitorLimits
from hieramp.analysis.dose import sweep
from hieramp.analysis.opinion import occlusion, rank_correlation
from hieramp.analysis.opinion import verdicts as verdicts_of
from hieramp.classifier import load_classifier
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.imageset.reader import open_set
from hieramp.settings import Settings


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return judged_dit(tmp_path_factory.mktemp("judged"))


def occlusion_of(dit: DiffusionModel, view_request: view_requests.ViewRequest, sample: int = 0) -> dict[str, Any]:
    *_, last = verdicts.occlusion_view(dit, view_request, {"sample": sample})
    assert last.answer is not None
    return last.answer


def saved(dit: DiffusionModel, view_request: view_requests.ViewRequest, asked: dict[str, Any]) -> bytes:
    *_, last = saving(dit, view_request, asked)
    assert last.answer is not None
    return last.answer["bytes"]


def order_of(dit: DiffusionModel, **values: Any) -> view_requests.ViewRequest:
    return view_requests.read_request(dit, view_requests.defaults(dit) | {"steps": 4} | values)


def test_a_classifier_that_is_taken_from_beside_is_put_into_the_order_of_the_models_classes(
    dit: DiffusionModel, tmp_path: Path
) -> None:
    assert dit.folder is not None
    beside = load_classifier(dit.folder.parent / "judge")  # its classes are d, b, c, a
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = beside(images), load_classifier(dit.folder)(images)
    assert torch.equal(ours, theirs[:, [3, 1, 2, 0]]) and not torch.equal(ours, theirs)
    # the same classifier gives a set its soft labels
    path = tmp_path / "set.zip"
    hieramp.distill(dit, 1, path, Settings.of(dit.defaults, steps=2), soft_labels=True).run()
    with open_set(path) as made:
        stored = made.soft_labels()
        pictures = [torch.tensor(np.asarray(made.image(i))).permute(2, 0, 1) / 255 for i in range(4)]
    with torch.no_grad():
        assert stored is not None
        torch.testing.assert_close(stored, load_classifier(dit.folder)(torch.stack(pictures)), atol=1e-2, rtol=0)


def test_one_of_other_classes_is_none(tmp_path: Path) -> None:
    other = judged_dit(tmp_path, ("a", "b", "c", "horse"))
    assert other.folder is not None and not has_classifier(other)
    with pytest.raises(UserError, match=r"the classifier in .*judge does not know 'd'"):
        load_classifier(other.folder)
    asked = view_requests.defaults(other) | {"classes": "a", "ipc": 1, "set_seed": 0, "soft_labels": True}
    with pytest.raises(UserError, match="tiny-dit has none"):
        read_distill_request(other, VisitorLimits(), asked)
    shutil.rmtree(tmp_path / "judge")
    assert not has_classifier(other)


def test_verdicts_and_agreement_are_of_the_pair_on_screen(dit: DiffusionModel) -> None:
    assert has_classifier(dit)
    view_request, classifier = order_of(dit, class_name="b", seed=3, count=2), verdicts.classifier_of(dit)
    steps = list(dit.steps(*view_request.batch, maps=True))
    images = steps[-1].image
    view = occlusion_of(dit, view_request, 1)
    p_BK = verdicts_of(classifier, images)
    assert view["asked"] == pytest.approx(p_BK[:, 1].tolist(), abs=1e-3)
    assert [name for name, _ in view["verdicts"]] == ["abcd"[i] for i in p_BK.argmax(-1).tolist()]
    found = occlusion(classifier, images[[1, 3]], torch.tensor([1, 1]), 8)
    assert len(view["maps"]) == len(steps) == 4
    for step, maps, agreement in zip(steps, view["maps"], view["agreement"], strict=True):
        assert maps[1] == pytest.approx(found[1].tolist(), abs=1e-4)
        # M of this very step, which is another one at each
        for row, value in zip((1, 3), agreement, strict=True):
            wanted = rank_correlation(step.saliency[row].flatten(), found[(row - 1) // 2])
            assert wanted is not None and value == pytest.approx(wanted, abs=0.02)
    assert len({tuple(pair) for pair in view["agreement"]}) > 1


def test_who_asks_about_the_pair_on_screen_does_not_draw_it_again(
    dit: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, view_request = computing.Served(dit), order_of(dit, seed=11)
    *_, first = computing.grow(served, view_request)
    fresh = occlusion_of(dit, view_request)
    monkeypatch.setattr(DiffusionModel, "steps", lambda *_, **__: pytest.fail("it is drawn again"))
    *_, last = computing.study(served, "occlusion", view_request, {"sample": 0})
    assert last.answer == fresh
    *_, again = computing.grow(served, view_request)
    assert again == first
    served.growth.max_bytes = 1
    monkeypatch.undo()
    list(computing.grow(served, order_of(dit, seed=12)))
    assert served.growth.num_bytes == 0  # what is too large is not kept


def test_the_occlusion_map_is_saved_as_it_is_seen(dit: DiffusionModel) -> None:
    view_request = order_of(dit, seed=3)
    view = occlusion_of(dit, view_request)
    for occluded in (False, True):
        asked = {"what": "maps", "scale": 2, "overlay": 0.5, "occlusion": occluded}
        with zipfile.ZipFile(io.BytesIO(saved(dit, view_request, asked))) as archive:
            arrays = np.load(io.BytesIO(archive.read("maps.npz")))
            about = archive.read("about.json").decode()
        assert ("occlusion_2" in arrays) is occluded and "the map M" in about and "class token" not in about
    assert arrays["occlusion_2"][1].ravel().tolist() == pytest.approx(view["maps"][2][1], abs=1e-4)
    figures = [saved(dit, view_request, {"what": "figure", "overlay": 0.5, "occlusion": on}) for on in (False, True)]
    assert figures[0] != figures[1]


def test_a_dose_is_the_drawing_that_its_settings_give(dit: DiffusionModel) -> None:
    how, classifier = Settings.of(dit.defaults, steps=4), verdicts.classifier_of(dit)
    *_, found = sweep(dit, classifier, 1, "mid", "strength", how, (0, 1, 2), (0.0, 4.0))
    assert list(found.measures) == ["probability", "pixels", "features", "codes"]  # no tokens are drawn: no entropy
    nothing, some = found.responses
    assert torch.equal(nothing.images, found.plain.images) and nothing.estimate("features").high < 1e-6
    drawn = dit.generate([1] * 3, [0, 1, 2], Settings.of(how, mid=(0.5, 4.0)))
    assert torch.equal(some.images, drawn.images)
    assert some.values["probability"] == pytest.approx(verdicts_of(classifier, drawn.images)[:, 1].tolist(), abs=1e-5)
    distance = (drawn.images - found.plain.images).square().mean((1, 2, 3)).sqrt()
    assert some.values["pixels"] == pytest.approx(distance.tolist(), abs=1e-5) and min(some.values["pixels"]) > 0
    per_scale = dit.latents.vqvae.encode(drawn.images * 2 - 1)  # type: ignore[attr-defined]
    codes = [len({code for tokens in per_scale for code in tokens[i].flatten().tolist()}) for i in range(3)]
    assert some.values["codes"] == pytest.approx(codes) and len(set(codes)) > 1
    *_, by_share = sweep(dit, classifier, 1, "mid", "rho", how, (0, 1), (0.5, 1.0))
    wanted = dit.generate([1] * 2, [0, 1], Settings.of(how, mid=(1.0, 1.0))).images  # mid was off: at its default α
    assert torch.equal(by_share.responses[1].images, wanted)


def test_a_stage_without_a_step_to_amplify_is_refused(dit: DiffusionModel) -> None:
    classifier = verdicts.classifier_of(dit)
    for stage, steps in (("coarse", 4), ("mid", 2)):  # the first step is coarse, and there is no map before it
        with pytest.raises(UserError, match=f"in {steps} steps there is none of the stage {stage}"):
            next(sweep(dit, classifier, 1, stage, "strength", Settings.of(dit.defaults, steps=steps), (0, 1)))


def test_one_of_its_own_goes_before(dit: DiffusionModel, tmp_path: Path) -> None:
    assert dit.folder is not None
    folder = tmp_path / "alone"
    shutil.copytree(dit.folder, folder)
    assert not has_classifier(replace(dit, folder=folder))
    shutil.copy(dit.folder.parent / "judge" / "classifier.safetensors", folder)
    assert has_classifier(replace(dit, folder=folder))  # in its own order, which is the folder's
    with torch.no_grad():
        images = torch.rand(1, 3, 32, 32)
        assert torch.equal(load_classifier(folder)(images), load_classifier(dit.folder.parent / "judge")(images))


def test_the_verdict_on_a_set_counts_the_tokens_that_its_pictures_encode_to(
    dit: DiffusionModel, tmp_path: Path
) -> None:
    path = tmp_path / "set.zip"
    hieramp.distill(dit, 2, path, Settings.of(dit.defaults, steps=2)).run()
    asked = read_distill_request(dit, VisitorLimits(), view_requests.defaults(dit) | {"ipc": 2, "set_seed": 0})
    *_, found = computing.study(computing.Served(dit), "verdict", asked, path, None)
    assert found.agreement is not None and found.tokens["fine"][1] > found.tokens["coarse"][1] > 0
