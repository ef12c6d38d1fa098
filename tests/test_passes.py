"""A last scale drawn in several passes: their order, what each of them knows, and what stays as it was."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SIDES, TINY_VAR, build_model
from torch import Tensor

import hieramp
from hieramp import Amplification
from hieramp.analysis.autoencoder import predicted
from hieramp.config import VARConfig, from_json, to_json
from hieramp.generation.memory import RecentDrawings
from hieramp.training.tokens import TokenBatch
from hieramp.training.var import mean_of, part_known
from hieramp.var.model import VAR
from hieramp.var.passes import append_known_tokens, pass_of_position

ALL = Amplification((0.5, 5.0), (0.5, 5.0), (0.5, 5.0))
FINE = Amplification(fine=(0.5, 5.0))
WEAK = Amplification((0.5, 0.2), (0.5, 0.2), (0.5, 0.2), mode="attention")
LABELS, SEEDS = [0, 1, 2, 3, 1], [5, 6, 7, 8, 9]
KINDS = {
    "read-only": {"read_only_class_tokens": True},
    "tokens that are seen": {},
    "no tokens": {"class_token_scales": ()},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> hieramp.Model:
    return build_model(replace(TINY_VAR, last_passes=4, **KINDS[request.param]))


@pytest.fixture(scope="module")
def patient() -> hieramp.Model:
    """Draws its last scale in four passes."""
    return build_model(replace(TINY_VAR, last_passes=4, read_only_class_tokens=True))


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("side", [2, 5, 8, 16])
@pytest.mark.parametrize("passes", [2, 4])
def test_no_pass_draws_two_neighbours(side: int, passes: int) -> None:
    order = torch.tensor(pass_of_position(side, passes)).view(side, side)
    assert set(order.flatten().tolist()) == set(range(passes))
    assert (order[:, 1:] != order[:, :-1]).all() and (order[1:] != order[:-1]).all()
    if passes == 4:
        assert (order[1:, 1:] != order[:-1, :-1]).all() and (order[1:, :-1] != order[:-1, 1:]).all()
    assert pass_of_position(side, 1) == [0] * side**2


@pytest.mark.parametrize("passes", [2, 4])
def test_a_token_is_drawn_from_what_is_foretold_of_it(passes: int) -> None:
    """The passes of a drawing, over the cache, against whole sequences that know as much."""
    for changes in KINDS.values():
        model = build_model(replace(TINY_VAR, last_passes=passes, **changes))
        steps = list(model.steps(LABELS, SEEDS, guidance=0))
        whole = predicted(model, [step.tokens for step in steps], torch.tensor(LABELS))
        for step, span in zip(steps, model.var.scales.spans, strict=True):
            assert torch.allclose(step.logits, whole[:, span], atol=1e-5)
        at_once = model.var(torch.tensor(LABELS), model.vqvae.teacher_input([step.tokens for step in steps]))
        assert not torch.allclose(steps[-1].logits, at_once.logits_BLV[:, model.var.scales.spans[-1]], atol=1e-2)


def test_a_later_pass_knows_the_tokens_before_it_and_no_others(patient: hieramp.Model) -> None:
    *_, last = patient.steps(LABELS, SEEDS, guidance=0)
    tokens = list(patient.generate(LABELS, SEEDS, guidance=0).tokens)
    pass_N = patient.var.pass_N
    for number in range(4):
        changed = tokens[-1].clone()
        changed[:, pass_N == number] = (changed[:, pass_N == number] + 1) % 64
        *_, other = patient.steps(LABELS, SEEDS, guidance=0, prefix_tokens=[*tokens[:-1], changed])
        differs_N = (other.logits - last.logits).abs().amax((0, 2)) > 1e-4
        assert torch.equal(differs_N, pass_N > number)


def test_an_image_depends_on_its_own_seed_only(kind: hieramp.Model) -> None:
    mixed = [None, ALL, WEAK, FINE, replace(ALL, where="random")]
    together = kind.generate(LABELS, SEEDS, mixed)
    for i in range(len(LABELS)):
        alone = kind.generate([LABELS[i]], [SEEDS[i]], mixed[i])
        assert same(alone.tokens, tuple(t[i : i + 1] for t in together.tokens))
    order = [3, 0, 4]
    some = kind.generate([LABELS[i] for i in order], [SEEDS[i] for i in order], [mixed[i] for i in order])
    assert same(some.tokens, tuple(t[order] for t in together.tokens))


def test_strength_zero_is_off_bit_for_bit(kind: hieramp.Model) -> None:
    neutral = Amplification((0.5, 0.0), (0.5, 0.0), (0.5, 0.0))
    off, zero = kind.generate(LABELS, SEEDS), kind.generate(LABELS, SEEDS, neutral)
    assert same(off.tokens, zero.tokens) and torch.equal(off.images, zero.images)


def test_what_the_first_pass_finds_salient_is_amplified_in_all(kind: hieramp.Model) -> None:
    """The map is the one of before; the boost reaches the tokens of every pass."""
    last_only = Amplification(fine=(0.5, 30.0), scales=(5,))
    plain = list(kind.steps(LABELS, SEEDS, guidance=2.0))
    amplified = list(kind.steps(LABELS, SEEDS, last_only, guidance=2.0))
    assert same(tuple(s.tokens for s in plain[:-1]), tuple(s.tokens for s in amplified[:-1]))
    assert torch.equal(plain[-1].saliency, amplified[-1].saliency)
    given = [step.tokens for step in plain]  # the same tokens known: what differs is the boost
    *_, off = kind.steps(LABELS, SEEDS, None, guidance=2.0, prefix_tokens=given)
    *_, on = kind.steps(LABELS, SEEDS, last_only, guidance=2.0, prefix_tokens=given)
    changed_N = (off.logits - on.logits).abs().amax((0, 2))
    assert all(changed_N[kind.var.pass_N == number].max() > 1e-3 for number in range(4))


def test_given_and_remembered_tokens_are_gone_on_from(kind: hieramp.Model) -> None:
    whole = kind.generate(LABELS, SEEDS, ALL)
    for count in (3, 5, 6):
        assert same(kind.generate(LABELS, SEEDS, ALL, prefix_tokens=whole.tokens[:count]).tokens, whole.tokens)
    memory = RecentDrawings()
    list(kind.steps(LABELS, SEEDS, memory=memory))
    *_, last = kind.steps(LABELS, SEEDS, FINE, memory=memory)
    assert torch.equal(last.tokens, kind.generate(LABELS, SEEDS, FINE).tokens[-1])


def test_details_and_doubt_hold_for_all_positions(patient: hieramp.Model) -> None:
    *_, last = patient.steps(LABELS, SEEDS, ALL, return_attention=True)
    assert last.logits.shape == (5, 64, 64) and last.block_saliency is not None
    assert last.block_saliency.shape == (5, 4, 2, 8, 8) and last.class_logits is not None
    assert last.clear.shape == (5,) and last.clear.all()


def test_double_precision_draws_the_same(patient: hieramp.Model) -> None:
    """What a set falls back on where rounding could turn a token."""
    double = copy.deepcopy(patient)
    double.vqvae.double()
    double.var.double()
    assert same(double.generate(LABELS, SEEDS, ALL).tokens, patient.generate(LABELS, SEEDS, ALL).tokens)


def test_half_precision_draws_too(patient: hieramp.Model) -> None:
    half = build_model(patient.var.config).to("cpu", torch.bfloat16)
    assert half.generate(LABELS, SEEDS, ALL).images.isfinite().all()


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_training_asks_for_the_open_tokens_alone(passes: int) -> None:
    var = VAR(replace(TINY_VAR, last_passes=passes))
    torch.manual_seed(0)
    tokens_BL, length = torch.randint(64, (64, 130)), 64
    batch = TokenBatch(tokens_BL, torch.randn(64, 129, 8), torch.randn(64, length, 8))
    inputs, open_BL = part_known(var, batch)
    loss_BL = torch.rand(64, 130)
    if open_BL is None:
        assert passes == 1 and inputs is batch.inputs_BLC and mean_of(loss_BL, None) == loss_BL.mean()
        return
    shares = open_BL[:, -length:].float().mean(1)
    assert set(shares.tolist()) == {1 - number / passes for number in range(passes)} and open_BL[:, :-length].all()
    marks, codes = inputs[:, -length:, -1].bool(), inputs[:, -length:, 8:16]
    assert torch.equal(marks, ~open_BL[:, -length:]) and not inputs[:, :-length, 8:].any()
    assert torch.equal(codes[marks], batch.codes_BNC[marks]) and not codes[~marks].any()
    elsewhere = torch.where(open_BL, loss_BL, 1e3)
    assert torch.equal(mean_of(elsewhere, open_BL), mean_of(loss_BL, open_BL))
    assert torch.isclose(mean_of(loss_BL, open_BL), loss_BL[open_BL].mean())


def test_knowing_nothing_is_the_input_of_before(patient: hieramp.Model) -> None:
    tokens = patient.generate(LABELS, SEEDS).tokens
    inputs, codes = patient.vqvae.teacher_input(tokens), patient.vqvae.quantize.unit_codes(tokens[-1])
    told = append_known_tokens(inputs, codes, torch.zeros(5, 64, dtype=torch.bool))
    labels = torch.tensor(LABELS)
    assert torch.equal(patient.var(labels, told).logits_BLV, patient.var(labels, inputs).logits_BLV)


def test_a_config_of_before_draws_in_one_pass_and_a_wrong_one_is_refused(model_folder: Path) -> None:
    values = to_json(TINY_VAR)
    values.pop("last_passes")
    assert from_json(VARConfig, values) == TINY_VAR
    with pytest.raises(ValueError, match="last_passes is 3"):
        from_json(VARConfig, {**values, "last_passes": 3})
    with pytest.raises(ValueError, match="depth"):
        from_json(VARConfig, {k: v for k, v in values.items() if k != "depth"})
    assert "last_passes" in json.loads((model_folder / "config.json").read_text())["var"]


def test_the_decoder_in_half_precision_gives_nearly_the_same_picture() -> None:
    model = build_model()
    f_hat = model.vqvae.embed([torch.randint(0, 64, (2, side * side)) for side in SIDES])
    single = model.vqvae.to_images(f_hat)
    model.vqvae.set_decoder(torch.bfloat16)
    half = model.vqvae.to_images(f_hat)
    assert half.dtype == torch.float32 and not torch.equal(half, single)
    assert (half - single).abs().max() < 0.02
    assert model.vqvae.encoder.conv_in.weight.dtype == torch.float32
