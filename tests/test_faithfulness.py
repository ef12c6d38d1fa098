"""The test of what saliency follows, against maps and judges whose answer is known beforehand."""

import pytest
import torch
from torch import nn

import hieramp
from hieramp.analysis.faithfulness import (
    RIVALS,
    Pictures,
    another_of_class,
    attribution,
    ceilings_of,
    centre_prior,
    class_activation,
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


def test_attribution_leaves_out_what_the_blurred_picture_has_too() -> None:
    """A judge of brightness alone: blurring costs it next to nothing, however bright the picture is."""

    def bright(images_NCHW: torch.Tensor) -> torch.Tensor:
        light = 5 * images_NCHW.mean((1, 2, 3))
        return torch.stack([torch.zeros_like(light), light], 1)

    pictures, _ = spotted()
    assert attribution(bright, pictures).sum((1, 2)).abs().max() < 0.05


class Pooled(nn.Module):
    """A convolution, an average over all positions, a linear layer: what CAM (arXiv 1512.04150) was made for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.relu = nn.Conv2d(3, 6, 8, stride=8), nn.ReLU(inplace=True)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 2)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.relu(self.convolution(images_BCHW))).flatten(1))


def test_a_class_activation_map_is_cam_where_the_network_pools() -> None:
    """And it sums to the logit; a transformer over patches has none."""
    network, (pictures, _) = Pooled().requires_grad_(False), spotted()
    cam_NHW = class_activation(network, network, pictures)
    images = pictures.images / 255
    features_NCHW = network.relu(network.convolution(images))
    wanted_NHW = torch.einsum("nchw,c->nhw", features_NCHW, network.fc.weight[1]) / SIDE**2
    assert cam_NHW is not None
    enlarged = nn.functional.interpolate(wanted_NHW[:, None], (32, 32), mode="bilinear")[:, 0]
    assert torch.allclose(cam_NHW, enlarged, atol=1e-6)
    assert torch.allclose(wanted_NHW.sum((1, 2)), network(images)[:, 1] - network.fc.bias[1], atol=1e-5)
    assert set(ceilings_of(network, pictures, network)) == {"attribution", "CAM"}

    patches = nn.Sequential(
        nn.Conv2d(3, 6, 8, stride=8), nn.Flatten(2), nn.LayerNorm(16), nn.Flatten(), nn.Linear(96, 2)
    )
    assert class_activation(patches, patches, pictures) is None


def test_all_rankings_are_judged() -> None:
    pictures, truth_NL = spotted()
    ceilings = ceilings_of(detail_judge, pictures)  # without its network there is no CAM
    found = judged(detail_judge, pictures, {"guidance": (truth_NL,)}, 0, 0.25, ceilings)
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
