"""The test of what saliency follows, against maps and judges whose answer is known beforehand."""

import pytest
import torch

import hieramp
from hieramp.analysis.faithfulness import (
    RIVALS,
    Pictures,
    another_of_class,
    attribution,
    centre_prior,
    delete,
    effects,
    fixed_share,
    judged,
    on_grid,
    rivals_of,
    saliency_figures,
    share_of_passes,
)

COUNT, SIDE = 40, 4


def spotted(seed: int = 0) -> tuple[Pictures, torch.Tensor]:
    """Grey pictures with a patch of bright noise in one of 4 × 4 places; and the true maps."""
    generator = torch.Generator().manual_seed(seed)
    place_N = torch.randint(0, SIDE * SIDE, (COUNT,), generator=generator)
    truth_NL = torch.full((COUNT, SIDE * SIDE), 1e-3).scatter_(1, place_N[:, None], 1.0)
    images = torch.full((COUNT, 3, 32, 32), 60, dtype=torch.uint8)
    for i, place in enumerate(place_N.tolist()):
        y, x = 8 * (place // SIDE), 8 * (place % SIDE)
        images[i, :, y : y + 8, x : x + 8] = torch.randint(0, 256, (3, 8, 8), generator=generator).byte()
    return Pictures(images, torch.ones(COUNT, dtype=torch.long), ()), truth_NL / truth_NL.sum(1, keepdim=True)


def detail_judge(images_NCHW: torch.Tensor) -> torch.Tensor:
    """Sure of class 1 as far as there is detail anywhere."""
    detail = images_NCHW.diff(dim=-1).square().mean((1, 2, 3)) * 500
    return torch.stack([torch.zeros_like(detail), detail], 1)


def test_fixed_share_of_known_maps() -> None:
    same = torch.rand(1, 9).expand(50, -1)
    assert fixed_share(same / same.sum(1, keepdim=True)) == pytest.approx(1)
    assert fixed_share(torch.full((50, 9), 1 / 9)) == 0
    one_hot = torch.eye(9).repeat(20, 1)  # every place as often: nothing in common
    assert fixed_share(one_hot) == pytest.approx(0, abs=1e-9)
    # of two patterns that no position shares, half of the variance is what they have in common
    pair = torch.zeros(2, 4)
    pair[0, 0] = pair[1, 1] = 1
    away = pair - 0.25
    assert fixed_share(pair) == pytest.approx(float(away.mean(0).square().sum() / away.square().mean(0).sum()))


def test_another_picture_is_of_the_same_class_and_another() -> None:
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    other = another_of_class(labels)
    assert torch.equal(labels[other], labels)
    assert [bool(other[i] != i) for i in range(6)] == [True, True, True, False, True, True]  # class 2 has but one


def test_the_right_map_beats_its_rivals_and_a_fixed_one_does_not() -> None:
    pictures, truth_NL = spotted()
    rivals = rivals_of(truth_NL, pictures.labels)
    found = effects(detail_judge, pictures, {"true": truth_NL, **rivals}, rho=0.25)
    for rival in RIVALS:
        for mean, error in found["true"].over(found[rival]).values():
            assert mean > 3 * error > 0, rival
    fixed_NL = centre_prior(SIDE).expand(COUNT, -1)
    blind = effects(detail_judge, pictures, {"fixed": fixed_NL, **rivals_of(fixed_NL, pictures.labels)}, rho=0.25)
    assert all(blind["fixed"].over(blind[rival])["deletion"] == (0, 0) for rival in ("another picture", "centre"))


def test_a_judges_attribution_sums_to_what_blurring_costs_and_finds_the_spot() -> None:
    pictures, truth_NL = spotted()
    attribution_NHW = attribution(detail_judge, pictures, steps=50)
    whole = pictures.images / 255
    nothing = delete(whole, torch.ones(COUNT, 1, dtype=torch.bool))
    wanted = [detail_judge(x).log_softmax(-1)[:, 1] for x in (whole, nothing)]
    assert torch.allclose(attribution_NHW.sum((1, 2)), wanted[0] - wanted[1], rtol=0.05)
    assert torch.equal(on_grid(attribution_NHW, SIDE).argmax(1), truth_NL.argmax(1))


def test_all_rankings_are_judged() -> None:
    pictures, truth_NL = spotted()
    found = judged(detail_judge, pictures, {"guidance": (truth_NL,)}, 0, 0.25, attribution(detail_judge, pictures))
    assert set(found["over"]["guidance"]) == set(RIVALS)
    assert found["means"]["attribution"]["deletion"] == pytest.approx(found["means"]["guidance"]["deletion"], rel=0.1)


def test_shares_of_passes() -> None:
    passes = (torch.tensor([0]), torch.tensor([1, 2, 3]))
    assert share_of_passes(torch.full((5, 4), 0.25), passes) == pytest.approx([0.5, 0.5])
    assert share_of_passes(torch.tensor([[0.5, 0.5, 0.0, 0.0]]), passes) == pytest.approx([1.0, 1 / 3])


def test_a_model_has_figures_of_every_scale(model: hieramp.Model, plain_model: hieramp.Model) -> None:
    torch.manual_seed(0)
    drawing = model.generate([0, 0, 1, 1], [0, 1, 2, 3])
    pictures = Pictures((drawing.images * 255).byte(), torch.tensor([0, 0, 1, 1]), drawing.tokens)
    rows = list(saliency_figures(model, {"detail": detail_judge}, pictures, 0.5))
    assert [row["side"] for row in rows] == [2, 3, 4, 6, 8]
    assert all(set(row["fixed_share"]) == {"class tokens", "guidance"} for row in rows)
    plain = next(iter(saliency_figures(plain_model, {"detail": detail_judge}, pictures, 0.5)))
    assert set(plain["fixed_share"]) == {"guidance"} and "named" not in plain
