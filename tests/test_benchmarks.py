"""Benchmarks that look into a drawing, and the steps that the one of training takes."""

import pytest
import torch
from tiny_train import PRESET

import hieramp
from benchmarks import denormals, phases, precision, training
from benchmarks.measuring import in_turns, paired_ratio
from hieramp import SCHEDULES
from hieramp.generation import loop


def test_the_shares_of_all_phases_are_the_whole(model: hieramp.Model) -> None:
    guide = loop.guide
    shares = phases.phases_of(lambda: model.generate([0, 1], [0, 1], SCHEDULES["all"]), cuda=False)
    assert loop.guide is guide
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


def test_a_paired_ratio_does_not_see_the_machine_drift() -> None:
    drift = [1.0 + i / 10 for i in range(41)]
    seconds = [1.04 * d for d in drift]
    assert paired_ratio(seconds, drift) == pytest.approx((1.04, 1.04, 1.04))
    # the interval of a median: of 10 ratios the 2nd and the 9th (97.9 %), and all there are where they are few
    ten = [float(i) for i in (3, 1, 2, 5, 4, 8, 10, 7, 6, 9)]
    assert paired_ratio(ten, [1.0] * 10) == (5.5, 2.0, 9.0)
    assert paired_ratio(ten[:3], [1.0] * 3) == (2.0, 1.0, 3.0)


def test_the_true_ratio_lies_in_its_interval() -> None:
    """95 times of a hundred or more; the interval of 21 rounds is the 6th to the 16th, 97.3 %."""
    noise = torch.randn(400, 21, generator=torch.Generator().manual_seed(0)).exp()
    intervals = [paired_ratio(row.tolist(), [1.0] * 21) for row in noise]
    held = sum(ratio.low <= 1.0 <= ratio.high for ratio in intervals) / len(intervals)
    assert 0.95 <= held < 1


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


def test_runs_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    seconds = in_turns({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=2)
    assert "".join(order) == "baabba" and seconds == {"a": [3.0, 6.0], "b": [4.0, 5.0]}


def test_denormals_are_flushed_in_one_run_of_two_and_are_there_afterwards() -> None:
    seen: list[float] = []
    runs = denormals.both_ways(lambda: seen.append(float(torch.tensor(1e-39) * 0.5)))
    assert all(run() >= 0 for run in runs.values())
    assert seen[0] > 0 and seen[1] == 0 and float(torch.tensor(1e-39) * 0.5) > 0
