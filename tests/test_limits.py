"""What limits a model: the rule on numbers done by hand, the measurement on a tiny model."""

import pytest
import torch

import hieramp
from hieramp.amplification.settings import OFF
from hieramp.analysis.autoencoder import reconstruct
from hieramp.analysis.fidelity import accuracy
from hieramp.analysis.limits import Loss, halves, losses, measure_limits, worst_scale
from hieramp.analysis.measure import as_bytes, draw_set
from hieramp.classifier import Classifier
from hieramp.commands.card import _limits
from hieramp.config import ClassifierConfig
from hieramp.data import DecodedImages
from hieramp.generation.sampling import Sampling

LIMITS = {
    "guidance": 4.0,
    "rows": [
        {"given": None, "accuracy": 0.94, "fid": 2.0},
        {"given": 3, "accuracy": 0.92, "fid": 3.0},
        {"given": 2, "accuracy": 0.91, "fid": 4.0},
        {"given": 1, "accuracy": 0.79, "fid": 7.0},
        {"given": 0, "accuracy": 0.72, "fid": 9.0},
    ],
}


def test_losses_add_up_to_what_lies_between_real_and_drawn() -> None:
    drawings = {
        "real": {"fid": 2.5},
        "guidance 2": {"accuracy": 0.60, "fid": 8.0},
        "guidance 4": {"accuracy": 0.72, "fid": 9.5},
        "guidance 6": {"accuracy": 0.83, "fid": 11.0},
        "guidance 4, top-p 0.8": {"accuracy": 0.85, "fid": 10.0},
        "guidance 4, amplified": {"accuracy": 0.99, "fid": 1.0},
    }
    found = losses(LIMITS, drawings)
    assert [loss.part for loss in found] == ["sampling", "transformer", "autoencoder"]
    assert [loss.accuracy for loss in found] == pytest.approx([0.13, 0.07, 0.02])
    assert [loss.fid for loss in found] == pytest.approx([1.5, 4.5, 1.0])
    assert sum(loss.accuracy for loss in found) == pytest.approx(0.94 - 0.72)
    assert sum(loss.fid for loss in found) == pytest.approx(9.0 - 2.0)


@pytest.mark.parametrize("drawings", [None, {}, {"guidance 4": {"accuracy": 0.72, "fid": 9.0}}])
def test_one_guidance_cannot_tell_sampling_from_the_transformer(drawings: dict | None) -> None:
    assert losses(LIMITS, drawings) == [
        Loss("transformer and sampling", pytest.approx(0.2), pytest.approx(6.0)),
        Loss("autoencoder", pytest.approx(0.02), pytest.approx(1.0)),
    ]


def test_the_worst_scale_is_the_one_whose_drawing_costs_most() -> None:
    assert worst_scale(LIMITS) == (1, pytest.approx(0.12))


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [(0.60, "is scale 0: 6.0 points."), (0.80, "No scale costs names where it is drawn instead of given.")],
)
def test_the_card_names_no_scale_that_costs_nothing(accuracy: float, said: str) -> None:
    rows = [(None, 0.7), (1, 0.66), (0, accuracy)]
    limits = {"guidance": 4.0, "images": 10, "others": 10}
    limits["rows"] = [{"given": given, "accuracy": named, "fid": 1.0} for given, named in rows]
    assert said in _limits(limits, None, None)


def test_halves_are_even_and_apart() -> None:
    labels = torch.tensor([1, 0, 1, 0, 0, 1, 1, 1, 0, 0])
    test = DecodedImages(torch.arange(10)[:, None], labels)
    real, others = halves(test, 100)
    assert real.labels.tolist() == [0, 0, 1, 1] and real.images[:, 0].tolist() == [1, 3, 0, 2]
    assert sorted(real.images[:, 0].tolist() + others.images[:, 0].tolist()) == list(range(10))
    assert halves(test, 1)[0].labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="fewer than 2 of the 2 test images"):
        halves(DecodedImages(test.images[:2], labels[:2]), 1)


def test_from_the_reconstructions_to_what_is_drawn_whole(model: hieramp.Model) -> None:
    torch.manual_seed(0)
    judge = Classifier(ClassifierConfig(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=4)).eval()
    test = DecodedImages((torch.rand(24, 3, 32, 32) * 255).byte(), torch.arange(4).repeat(6))
    real, others = halves(test, 3)
    rows = list(measure_limits(model, judge, real, others, Sampling()))
    assert [row["given"] for row in rows] == [None, 6, 5, 4, 3, 2, 1, 0]
    assert rows[0]["accuracy"] == accuracy(judge, real.images, real.labels)
    kept, _ = reconstruct(model.vqvae, real.images)
    assert rows[1]["accuracy"] == accuracy(judge, as_bytes(kept), real.labels)
    drawn = draw_set(model, 3, 50, OFF, Sampling())
    assert rows[-1]["accuracy"] == accuracy(judge, drawn.images, drawn.labels)
    assert all(row["fid"] > -1e-6 for row in rows)
