"""The maths of amplification, with numbers a person can do by hand."""

import math

import pytest
import torch

from hieramp import SCHEDULES, Amplification, parse_stages
from hieramp.amplification.saliency import (
    BatchAmplification,
    chosen_positions,
    class_token_saliency,
    guidance_saliency,
    num_salient,
    salient_positions,
)
from hieramp.amplification.settings import ScaleStrength, Where
from hieramp.scales import OFFICIAL_SIDES, Scales

CPU = torch.device("cpu")


def test_saliency_is_the_mean_over_heads() -> None:
    weights = torch.tensor([[[0.2, 0.8], [0.6, 0.4]]])
    assert torch.allclose(class_token_saliency(weights), torch.tensor([[0.4, 0.6]]))


@pytest.mark.parametrize(
    ("rho", "positions", "expected"),
    [(0.5, 4, 2), (0.5, 9, 4), (0.29, 100, 29), (0.3, 16, 4), (0.01, 4, 1), (1.0, 9, 9)],
)
def test_share_is_floored_and_at_least_one(rho: float, positions: int, expected: int) -> None:
    assert num_salient(rho, positions) == expected


def test_positions_of_rows_with_different_counts_and_ties() -> None:
    m = torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]])
    chosen = salient_positions(m, torch.tensor([1, 2]))
    assert chosen.tolist() == [[False, True, False, False], [True, True, False, False]]


def test_rows_keep_their_own_strength_and_mode() -> None:
    rows = BatchAmplification(
        [ScaleStrength(0.5, 3.0), None, ScaleStrength(0.5, 0.5)], ["logit", "logit", "attention"], 2, CPU
    )
    change = rows.key_bias(torch.tensor([[0.7, 0.3]] * 3))
    assert change.bias_BK.tolist() == [[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert change.factor_BK is not None and change.factor_BK.tolist() == [[1.0, 1.0], [1.0, 1.0], [0.5, 1.0]]


def test_guidance_saliency_lies_where_the_class_matters() -> None:
    conditional, unconditional = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    conditional[0, 1, 0] = math.log(3)  # (3/4, 1/4) against (1/2, 1/2); the first position agrees
    m = guidance_saliency(conditional, unconditional)
    assert torch.allclose(m, torch.tensor([[0.0, 1.0]]), atol=1e-6)
    assert torch.allclose(guidance_saliency(unconditional, unconditional), torch.tensor([[0.5, 0.5]]))


def test_guidance_saliency_is_the_divergence_from_the_unconditional_half() -> None:
    """KL(conditional ‖ unconditional): what the class makes likely counts, more than what it rules out."""
    conditional, unconditional = (
        torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]).log(),
        torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]).log(),
    )
    expected = torch.tensor([0.9 * math.log(1.8) + 0.1 * math.log(0.2), 0.5 * math.log(5 / 9) + 0.5 * math.log(5)])
    assert torch.allclose(guidance_saliency(conditional, unconditional)[0], expected / expected.sum(), atol=1e-5)


def test_stages_of_the_official_scales_and_of_others() -> None:
    assert Scales(OFFICIAL_SIDES).stages == {"coarse": (1, 2, 3), "mid": (4, 5, 6), "fine": (7, 8, 9)}
    assert Scales((1, 2, 3, 4, 6, 8)).stages == {"coarse": (1,), "mid": (2, 3), "fine": (4, 5)}
    assert Scales((1, 2)).stages == {"coarse": (), "mid": (), "fine": (1,)}
    assert Scales(OFFICIAL_SIDES).stage_of(0) is None and Scales(OFFICIAL_SIDES).num_tokens == 680


def test_stages_are_read_from_text() -> None:
    amp = parse_stages("coarse=50%:5,mid=off,fine=0.3:2")
    assert (amp.coarse, amp.mid, amp.fine) == ((0.5, 5.0), None, (0.3, 2.0))
    assert parse_stages("off").is_off and parse_stages("all", "attention").mode == "attention"
    assert parse_stages("weak-mid") == SCHEDULES["weak-mid"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rough=50%:5", "cannot read stage 'rough=50%:5'"),
        ("coarse=0%:5", "coarse rho is 0"),
        ("coarse=101%:5", "coarse rho is 1.01"),
        ("coarse=50%", "cannot read '50%'"),
        ("coarse=50%:nan", "coarse strength is nan"),
        ("coarse=nan%:5", "coarse rho is nan"),
        ("coarse=50%:5,coarse=50%:5", "cannot read stage"),
    ],
)
def test_stages_that_make_no_sense(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        parse_stages(text)


def test_neutral_strength_is_off() -> None:
    scales = Scales(OFFICIAL_SIDES)
    assert Amplification(coarse=(0.5, 0.0)).at(1, scales) is None
    assert Amplification(coarse=(0.5, 1.0), mode="attention").at(1, scales) is None
    assert Amplification(coarse=(0.5, 1.0)).at(1, scales) == ScaleStrength(0.5, 1.0)
    assert Amplification(coarse=(0.5, 1.0), scales=(2,)).at(1, scales) is None
    assert all(amp.at(0, scales) is None for amp in SCHEDULES.values())


def test_positions_named_by_hand_replace_the_top_share_of_their_row_only() -> None:
    rows = BatchAmplification([ScaleStrength(0.5, 3.0, (1, 2)), ScaleStrength(0.25, 2.0)], ["logit"] * 2, 4, CPU)
    change = rows.key_bias(torch.tensor([[0.7, 0.1, 0.1, 0.1]] * 2))
    assert change.bias_BK.tolist() == [[0.0, 3.0, 3.0, 0.0], [2.0, 0.0, 0.0, 0.0]]


def test_chosen_positions_are_the_top_share_or_those_named() -> None:
    m = torch.tensor([[[0.1, 0.4], [0.3, 0.2]]])
    assert chosen_positions(m, ScaleStrength(0.5, 5.0)).tolist() == [[[False, True], [True, False]]]
    assert chosen_positions(m, ScaleStrength(0.5, 5.0, (0,))).tolist() == [[[True, False], [False, False]]]


def test_controls_choose_the_least_salient_or_random_positions() -> None:
    m = torch.tensor([[0.1, 0.4, 0.3, 0.2]] * 3)
    kinds: list[Where] = ["salient", "least", "random"]
    rows = BatchAmplification([ScaleStrength(0.5, 3.0, where=where) for where in kinds], ["logit"] * 3, 4, CPU)
    chance = torch.tensor([[0.0, 2.0, -1.0, 1.0]] * 3)
    expected = [[0.0, 3.0, 3.0, 0.0], [3.0, 0.0, 0.0, 3.0], [0.0, 3.0, 0.0, 3.0]]
    assert rows.key_bias(m, chance).bias_BK.tolist() == expected
    for row, where in zip(expected, kinds, strict=True):
        alone = chosen_positions(m[:1].view(1, 2, 2), ScaleStrength(0.5, 3.0, where=where), chance[:1])
        assert alone.flatten().tolist() == [x > 0 for x in row]
    near = torch.tensor([[0.1, 0.3, 0.3 * (1 - 1e-6), 0.3 * (1 - 2e-6)]] * 3)  # too near to tell
    assert rows.is_unambiguous(near, 1e-5).tolist() == [False, False, True]
    assert rows.is_unambiguous(m, 1e-5).all()


def test_named_positions_are_kept_in_order_and_checked() -> None:
    scales = Scales((1, 2, 3, 4, 6, 8))
    amp = Amplification(mid=(0.5, 5.0), positions={3: [5, 1, 5], 2: []})
    assert amp.positions == ((3, (1, 5)),)
    assert amp == Amplification(mid=(0.5, 5.0), positions=((3, (1, 5)),))
    assert amp.at(3, scales) == ScaleStrength(0.5, 5.0, (1, 5)) and amp.at(2, scales) == ScaleStrength(0.5, 5.0)
    assert amp.at(4, scales) is None  # a stage that is off stays off
    for positions, said in [({3: [16]}, "position 16 does not exist: scale 3 has positions 0 to 15"), ({9: [0]}, "9")]:
        with pytest.raises(ValueError, match=said):
            Amplification(mid=(0.5, 5.0), positions=positions).check(scales, depth=4)
