"""Benchmarks that look into a drawing, and the steps that the one of training takes."""

import pytest
import torch
from tiny_train import PRESET

import hieramp
from benchmarks import phases, precision, training
from hieramp import SCHEDULES
from hieramp.generation import scale


def test_the_shares_of_all_phases_are_the_whole(model: hieramp.Model) -> None:
    guide = scale.guide
    shares = phases.phases_of(lambda: model.generate([0, 1], [0, 1], SCHEDULES["all"]), cuda=False)
    assert scale.guide is guide
    assert abs(sum(shares.values()) - 1) < 1e-9 and all(share >= 0 for share in shares.values())
    per_phase = {phase: sum(s for (p, _), s in shares.items() if p == phase) for phase, _ in shares}
    assert set(per_phase) == {phases.LOOP, *(phase for phase, _, _ in phases.PHASES)}
    assert max(per_phase, key=per_phase.__getitem__) == "transformer"
    assert shares["decoder", "convolutions"] > 0 and shares["transformer", "matrix products"] > 0
    lines = phases.table({2: shares}).splitlines()
    assert len(lines) == 2 + len(per_phase) and lines[2].startswith("| 2 | transformer | ")


def test_kinds_of_operation() -> None:
    names = {
        "aten::addmm": "matrix products",
        "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
        "aten::mkldnn_convolution": "convolutions",
        "sm90_xmma_gemm_f32f32": "matrix products",
        "aten::sort": "sorting",
        "aten::mul": phases.REST,
    }
    assert {name: phases.kind_of(name) for name in names} == names


def test_what_parts_early_goes_on_apart() -> None:
    first, second = torch.tensor([[1], [2], [3]]), torch.tensor([[1, 1], [2, 2], [3, 3]])
    apart = torch.tensor([[1], [2], [9]]), torch.tensor([[1, 1], [2, 7], [9, 9]])
    (one, among, together), last = precision.differences([first, second], apart)
    assert (one, among, together) == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert last == pytest.approx((3 / 6, 1 / 4, 1 / 3))


def test_training_steps_train_in_both_precisions() -> None:
    parts = training.objectives(PRESET)
    assert list(parts) == ["vqvae", "var", "classifier"]
    for objective, recipe in parts.values():
        before = {name: p.clone() for name, p in objective.named_parameters() if p.requires_grad}
        stepper = training.Stepper(objective, recipe, PRESET.vqvae.image_size, torch.device("cpu"))
        assert all(stepper.step(dtype) > 0 for dtype in training.PRECISIONS.values())
        after = dict(objective.named_parameters())
        assert any(not torch.equal(before[name], after[name]) for name in before)
