"""What the page says of the classifier's opinion and of a sweep: the numbers of the library, of the pair shown."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CLASSES

import hieramp
from app import dose, view_requests
from app import verdicts as views
from hieramp.analysis.dose import sweep
from hieramp.analysis.opinion import occlusion, rank_correlation, verdicts


@pytest.fixture(scope="module")
def judged_model(judged_folder: Path) -> hieramp.Model:
    return hieramp.load(judged_folder, "cpu")


def test_verdicts_and_agreement_are_of_the_pair_on_screen(judged_model: hieramp.Model) -> None:
    view_request = view_requests.from_query(judged_model, {"class": "dog", "seed": "3", "count": "2"})
    classifier = views.classifier_of(judged_model)
    drawing = judged_model.generate(*view_request.batch)
    p_BK = verdicts(classifier, drawing.images)
    plain = views.opinion_view(judged_model, view_request, {"sample": 1})
    assert plain["maps"] is None
    assert [p for _, p in plain["verdicts"]] == pytest.approx(p_BK.amax(-1).tolist(), abs=1e-3)
    assert [name for name, _ in plain["verdicts"]] == [CLASSES[i] for i in p_BK.argmax(-1).tolist()]
    assert plain["asked"] == pytest.approx(p_BK[:, 2].tolist(), abs=1e-3)
    *before, last = views.occlusion_view(judged_model, view_request, {"sample": 1})
    view = last.answer
    assert view and not any(piece.answer for piece in before) and last.done == last.of
    found = occlusion(classifier, drawing.images[[1, 3]], torch.tensor([2, 2]), 4)
    assert view["maps"][3][1] == pytest.approx(found[1].tolist(), abs=1e-4)
    wanted = rank_correlation(drawing.saliency[3][3].flatten(), found[1])
    assert wanted is not None and view["agreement"][3][1] == pytest.approx(wanted, abs=0.05)
    assert view["agreement"][0] == [None, None]  # one position has no ranks


def test_a_classifier_that_is_sure_still_has_a_map(
    judged_model: hieramp.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Effects of a millionth of a nat are shown."""
    parts = views.occlusion_parts

    def tiny(*given: Any) -> Any:
        return (1e-6 * part for part in parts(*given))

    view_request = view_requests.from_query(judged_model, {"class": "dog", "seed": "3"})
    *_, last = views.occlusion_view(judged_model, view_request, {"sample": 0})
    monkeypatch.setattr(views, "occlusion_parts", tiny)
    *_, sure = views.occlusion_view(judged_model, view_request, {"sample": 0})
    for known, found in zip(last.answer["maps"], sure.answer["maps"], strict=True):
        for side in (0, 1):
            assert any(found[side]) and found[side] == pytest.approx([1e-6 * x for x in known[side]], rel=0.02)


def test_the_curves_of_the_page_are_those_of_the_sweep(judged_model: hieramp.Model) -> None:
    view_request = view_requests.from_query(judged_model, {"class": "dog"})
    classifier = views.classifier_of(judged_model)
    *_, found = sweep(judged_model, classifier, 2, "fine", "strength", view_request.settings, (0, 1), (0.0, 8.0))
    view = dose.view_of(found)
    assert len(view["points"]) == 2 and len(view["points"][0]["images"]) == 2
    assert list(view["measures"]) == ["probability", "pixels", "features", "entropy"]
    for name in view["measures"]:
        estimate = found.responses[1].estimate(name)
        assert view["points"][1]["estimates"][name] == pytest.approx(list(vars(estimate).values()), abs=1e-4)
    assert "2 of 2 doses, 2 seeds each" in dose.words_of("dog", found)
