"""Dose and response: the numbers behind the curves."""

import pytest
import torch
from conftest import CLASSES

import hieramp
from hieramp import Amplification, Settings
from hieramp.analysis.dose import doses_of, in_words, rows_of, sweep, t_interval, t_quantile
from hieramp.classifier import Classifier
from hieramp.config import ClassifierConfig
from hieramp.errors import UserError
from hieramp.generation.sampling import filter_logits

HOW = Settings.of(Amplification(mid=(0.5, 5.0)))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(32, len(CLASSES), (1, 1, 1, 1), (8, 8, 8, 8), "half")).eval()


def test_t_has_its_tabulated_quantiles() -> None:
    for freedom, wanted in ((1, 12.706), (2, 4.303), (7, 2.365), (30, 2.042)):
        assert t_quantile(freedom) == pytest.approx(wanted, abs=2e-3)
    found = t_interval([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.high - found.mean) == (2.5, pytest.approx(3.182 * 1.29099 / 2, abs=1e-3))


def test_every_dose_is_the_drawing_that_its_settings_give(model: hieramp.Model, classifier: Classifier) -> None:
    *_, found = sweep(model, classifier, 1, "mid", "strength", HOW, (0, 1, 2), (0.0, 3.0, 8.0))
    assert found.is_finished and [r.dose for r in found.responses] == [0, 3, 8]
    nothing, some = found.responses[0], found.responses[1]
    assert torch.equal(nothing.images, found.plain.images)
    for measure in ("pixels", "features"):
        assert nothing.estimate(measure).high < 1e-6
    assert nothing.change(found.plain, "probability").mean == pytest.approx(0, abs=1e-6)
    how = Settings.of(HOW, Amplification(mid=(0.5, 3.0)))
    steps = list(model.steps([1] * 3, [0, 1, 2], how))
    assert torch.allclose(some.images, steps[-1].image, atol=1e-5)
    with torch.no_grad():
        wanted = classifier(steps[-1].image).softmax(-1)[:, 1]
    assert some.values["probability"] == pytest.approx(wanted.tolist(), abs=1e-5)
    log_p = [filter_logits(steps[s].logits, how.top_k, how.top_p).log_softmax(-1) for s in (2, 3)]
    entropy = torch.cat([-(x.exp() * x.clamp_min(-1e4)).sum(-1) for x in log_p], 1).mean(1)
    assert some.values["entropy"] == pytest.approx(entropy.tolist(), abs=1e-4)
    distance = (steps[-1].image - found.plain.images).square().mean((1, 2, 3)).sqrt()
    assert some.values["pixels"] == pytest.approx(distance.tolist(), abs=1e-5) and max(some.values["pixels"]) > 0


def test_it_tells_how_far_it_is_and_what_it_found(model: hieramp.Model, classifier: Classifier) -> None:
    found = list(sweep(model, classifier, 1, "fine", "rho", HOW, (4, 5), (0.1, 1.0)))
    assert [len(one.responses) for one in found] == [0, 1, 2]
    rows = rows_of(found[-1])
    assert rows[0] == ["stage", "knob", "dose", "seed", "probability", "pixels", "features", "entropy"]
    assert len(rows) == 1 + 3 * 2
    assert rows[1][2] == "" and rows[-1][2] == "1" and rows[-1][3] == 5
    assert "Student's t, n = 2 seeds" in in_words(found[-1])
    assert max(found[-1].responses[1].values["pixels"]) > 0  # fine was off: ρ is swept at a β that acts


def test_doses_and_what_is_refused(model: hieramp.Model, classifier: Classifier) -> None:
    assert doses_of(HOW, "strength") == (0, 1, 2, 3, 4, 5, 6, 7, 8) and doses_of(HOW, "rho")[-1] == 1
    for given, sentence in (
        (("top", "strength", (0, 1)), "stage is 'top'"),
        (("mid", "alpha", (0, 1)), "the knob is 'alpha'"),
        (("mid", "rho", (0,)), "take at least 2"),
    ):
        stage, knob, seeds = given
        with pytest.raises(UserError, match=sentence):
            next(sweep(model, classifier, 1, stage, knob, HOW, seeds))  # type: ignore[arg-type]
