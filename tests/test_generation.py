"""Properties of the one loop: what an image depends on, and what amplification may and may not change."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_VAR, build_model
from torch import Tensor

import hieramp
from hieramp import Amplification
from hieramp.generation import ambiguity
from hieramp.generation.ambiguity import pilot_errors, tolerances
from hieramp.generation.memory import RecentDrawings
from hieramp.generation.sampling import Sampling, _words, filter_logits, gumbel_noise, noise_keys, sample
from hieramp.var.cache import KVCache
from hieramp.var.model import VAR, ScaleLogits

ALL = Amplification((0.5, 5.0), (0.5, 5.0), (0.5, 5.0))
FINE = Amplification(fine=(0.5, 5.0))
WEAK = Amplification((0.5, 0.2), (0.5, 0.2), (0.5, 0.2), mode="attention")


def same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def rows(tokens: tuple[Tensor, ...], index: list[int]) -> tuple[Tensor, ...]:
    return tuple(t[index] for t in tokens)


class QKVParams:
    """A hook that always answers the same."""

    def __init__(self, change: tuple[Tensor, Tensor | None]) -> None:
        self.change = change

    def reads(self, block: int) -> bool:
        return True

    def __call__(self, block: int, weights_BHL: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.change


def test_shapes_and_ranges(model: hieramp.Model) -> None:
    drawing = model.generate([1, 2], [0, 1], ALL)
    assert drawing.images.shape == (2, 3, 32, 32) and drawing.images.min() >= 0 and drawing.images.max() <= 1
    for side, tokens, m in zip((1, 2, 3, 4, 6, 8), drawing.tokens, drawing.saliency, strict=True):
        assert tokens.shape == (2, side * side) and m.shape == (2, side, side)
        assert torch.allclose(m.sum((1, 2)), torch.ones(2), atol=1e-5)


def test_an_image_depends_on_its_own_seed_only(model: hieramp.Model) -> None:
    labels, seeds = [0, 1, 2, 3, 0, 1, 2, 3], [5, 6, 7, 8, 9, 10, 11, 12]
    eight = model.generate(labels, seeds, ALL)
    for i in range(3):
        assert same(model.generate([labels[i]], [seeds[i]], ALL).tokens, rows(eight.tokens, [i]))
    order = [6, 2, 4]
    three = model.generate([labels[i] for i in order], [seeds[i] for i in order], ALL)
    assert same(three.tokens, rows(eight.tokens, order))
    assert not same(model.generate([0], [1]).tokens, model.generate([0], [2]).tokens)
    assert not same(model.generate([0], [1]).tokens, model.generate([1], [1]).tokens)


@pytest.mark.parametrize(
    "neutral", [Amplification(*[(0.5, 0.0)] * 3), Amplification(*[(0.5, 1.0)] * 3, mode="attention")]
)
def test_strength_zero_is_off_bit_for_bit(model: hieramp.Model, neutral: Amplification) -> None:
    off, zero = model.generate([1, 2], [0, 1]), model.generate([1, 2], [0, 1], neutral)
    assert torch.equal(off.images, zero.images) and same(off.tokens, zero.tokens) and same(off.saliency, zero.saliency)


def test_rows_of_a_grid_are_what_they_are_alone(model: hieramp.Model) -> None:
    schedules = [None, ALL, FINE, WEAK, Amplification(mid=(0.3, -2.0)), Amplification((0.5, 5.0), blocks=(0, 1, 3))]
    grid = model.generate([1] * len(schedules), [3] * len(schedules), schedules)
    for i, schedule in enumerate(schedules):
        assert same(model.generate([1], [3], schedule).tokens, rows(grid.tokens, [i])), schedule
    assert not same(rows(grid.tokens, [0]), rows(grid.tokens, [1]))


def test_saliency_is_read_where_a_row_is_amplified(model: hieramp.Model) -> None:
    early = Amplification((0.5, 5.0), blocks=(0, 1))
    steps = list(model.steps([1, 1], [3, 3], [None, early], return_attention=True))
    for step in steps:
        per_block = step.block_saliency.mean(2)
        assert torch.allclose(step.saliency[0], per_block[0, 2]) and torch.allclose(step.saliency[1], per_block[1, 1])
    for alone, step in zip(model.generate([1], [3]).saliency, steps, strict=True):
        assert torch.allclose(alone, step.saliency[:1], atol=1e-6)


def test_rows_that_agree_so_far_are_computed_once(model: hieramp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    step = VAR.step

    def counted(*args: Any, **kwargs: Any) -> ScaleLogits:
        result = step(*args, **kwargs)
        computed.append(len(result.logits_BLV))
        return result

    monkeypatch.setattr(VAR, "step", counted)
    drawing = model.generate([1, 1, 1], [3, 3, 4], [None, FINE, None])
    assert computed == [4, 4, 4, 4, 6, 6]  # two halves of two images, of three from the first fine scale on
    assert same(rows(drawing.tokens[:4], [0]), rows(drawing.tokens[:4], [1]))


def test_amplification_leaves_earlier_scales_alone(model: hieramp.Model) -> None:
    off, fine = model.generate([1], [3]), model.generate([1], [3], FINE)
    assert same(off.tokens[:4], fine.tokens[:4]) and same(off.saliency[:5], fine.saliency[:5])
    only = model.generate([1], [3], replace(ALL, scales=(5,)))
    assert same(off.tokens[:5], only.tokens[:5])


def test_random_positions_belong_to_the_image_and_a_full_share_leaves_no_choice(model: hieramp.Model) -> None:
    labels, seeds = [0, 1, 2], [4, 5, 6]
    control = Amplification(mid=(0.5, 6.0), fine=(0.5, 6.0), where="random")
    together = model.generate(labels, seeds, control)
    for i in range(3):
        assert same(model.generate([labels[i]], [seeds[i]], control).tokens, rows(together.tokens, [i]))
    *_, last = model.steps(labels, seeds, control)
    chosen = last.chosen(control)
    assert chosen is not None and chosen.flatten(1).sum(1).tolist() == [last.side**2 // 2] * 3
    assert len({tuple(row) for row in chosen.flatten(1).tolist()}) == 3
    *_, plain = model.steps(labels, seeds, guidance=0.0)
    assert torch.equal(plain.chosen(control), chosen)  # type: ignore[arg-type]
    for where in ("random", "least"):  # what is shown is what was amplified
        control = Amplification(fine=(0.5, 6.0), scales=(5,), where=where)
        *_, last = model.steps(labels, seeds, control, guidance=0.0)
        shown = plain.chosen(control)
        assert shown is not None
        for i, row in enumerate(shown.flatten(1)):
            named = Amplification(fine=(0.5, 6.0), scales=(5,), positions={5: row.nonzero()[:, 0].tolist()})
            *_, same_positions = model.steps(labels[i : i + 1], seeds[i : i + 1], named, guidance=0.0)
            assert torch.allclose(same_positions.logits[0], last.logits[i], atol=1e-4)
            assert not torch.allclose(last.logits[i], plain.logits[i], atol=1e-2)
    everywhere = Amplification(mid=(1.0, 6.0), fine=(1.0, 6.0))
    ways = [replace(everywhere, where="least"), replace(everywhere, where="random")]
    for drawing in (model.generate(labels, seeds, way) for way in ways):
        assert same(drawing.tokens, model.generate(labels, seeds, everywhere).tokens)


def test_painted_positions_change_only_what_follows_them(model: hieramp.Model, plain_model: hieramp.Model) -> None:
    by_share = Amplification(mid=(0.5, 5.0))
    painted = Amplification(mid=(0.5, 5.0), positions={3: (0, 1, 2)})
    for drawer in (model, plain_model):
        both = list(drawer.steps([1, 1], [3, 3], [by_share, painted]))
        assert torch.equal(both[2].logits[0], both[2].logits[1])
        assert not torch.equal(both[3].logits[0], both[3].logits[1])
    steps = list(model.steps([1], [3], painted))
    assert steps[3].chosen(painted).flatten().nonzero().flatten().tolist() == [0, 1, 2]
    assert steps[2].chosen(painted).sum() == 4 and steps[5].chosen(painted) is None


def test_a_remembered_drawing_is_gone_on_from(model: hieramp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    step = VAR.step
    monkeypatch.setattr(
        VAR, "step", lambda self, state, s, *a, **k: computed.append(s) or step(self, state, s, *a, **k)
    )
    memory = RecentDrawings()

    def drawn(labels: list[int], seeds: list[int], amps: list[Amplification | None], **options: Any) -> list[int]:
        """Draw with the memory; the scales that were computed, after comparing with a drawing of its own."""
        computed.clear()
        steps = list(model.steps(labels, seeds, amps, memory=memory, **options))
        scales = list(computed)
        fresh = list(model.steps(labels, seeds, amps, **options))
        for mine, other in zip(steps, fresh, strict=True):
            assert torch.equal(mine.tokens, other.tokens) and torch.allclose(mine.image, other.image, atol=1e-5)
            assert torch.allclose(mine.saliency, other.saliency, atol=1e-6)
        return scales

    coarse = Amplification(coarse=(0.5, 5.0))
    mid_too = replace(coarse, mid=(0.5, 3.0))
    assert drawn([1, 1], [7, 7], [None, coarse]) == [0, 1, 2, 3, 4, 5]
    assert drawn([1, 1], [7, 7], [None, coarse]) == []
    assert drawn([1, 1], [7, 7], [None, mid_too]) == [2, 3, 4, 5]
    assert drawn([1, 1], [7, 7], [None, replace(mid_too, fine=(0.2, 2.0))]) == [4, 5]
    assert drawn([1, 1, 1], [7, 7, 7], [mid_too, None, coarse]) == [2, 3, 4, 5]  # another order, rows that part later
    assert drawn([1, 1], [7, 7], [None, ALL], guidance=1.0) == [0, 1, 2, 3, 4, 5]
    assert drawn([2, 1], [7, 7], [None, coarse]) == [0, 1, 2, 3, 4, 5]


def test_an_abandoned_drawing_is_gone_on_from_and_memory_is_bounded(model: hieramp.Model) -> None:
    memory = RecentDrawings()
    begun = model.steps([1, 2], [0, 0], ALL, memory=memory)
    next(begun), next(begun), next(begun)
    begun.close()
    whole = list(model.steps([1, 2], [0, 0], ALL, memory=memory))
    assert torch.equal(whole[-1].tokens, model.generate([1, 2], [0, 0], ALL).tokens[-1])
    small = RecentDrawings(max_bytes=3 * memory.num_bytes)
    for seed in range(8):
        list(model.steps([1, 2], [seed, seed], ALL, memory=small))
        assert 0 < small.num_bytes <= small.max_bytes


@pytest.mark.parametrize("read_only", [False, True])
def test_cached_equals_uncached(read_only: bool) -> None:
    """The logits of every step against one teacher-forced pass over the tokens it drew."""
    model = build_model(replace(TINY_VAR, read_only_class_tokens=read_only))
    steps = list(model.steps([1, 2], [0, 1], guidance=0, return_attention=True))
    tokens = [step.tokens for step in steps]
    with torch.no_grad():
        whole = model.var(torch.tensor([1, 2]), model.vqvae.teacher_input(tokens), watch=model.var.config.watched_block)
    for step, span in zip(steps, model.var.scales.spans, strict=True):
        assert torch.allclose(step.logits, whole.logits_BLV[:, span], atol=1e-5)
        seen = whole.weights_BHSL[:, :, step.scale, span].mean(1)
        assert torch.allclose(step.saliency.flatten(1), seen, atol=1e-5)
        assert torch.allclose(step.class_logits, whole.class_logits_BSK[:, step.scale], atol=1e-5)


def test_two_streams_are_one_sequence_under_a_mask() -> None:
    """Read-only class tokens run beside the image tokens; the plain reference has both in one sequence."""
    var = build_model(replace(TINY_VAR, read_only_class_tokens=True)).var
    torch.manual_seed(0)
    image, tokens = torch.randn(2, var.scales.num_tokens, 64), torch.randn(2, 6, 64)
    with torch.no_grad():
        modulations = var._modulations(var.class_emb(torch.tensor([1, 2])))
        one = var._one_stream(image, tokens, modulations, watch=2)
        two = var._two_streams(image, tokens, modulations, watch=2)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, two, strict=True))


def test_read_only_class_tokens_leave_the_backbone_alone(plain_model: hieramp.Model) -> None:
    watched = build_model(replace(TINY_VAR, read_only_class_tokens=True))
    state = {k: v for k, v in watched.var.state_dict().items() if k in plain_model.var.state_dict()}
    plain = build_model(plain_model.var.config)
    plain.var.load_state_dict(state)
    assert same(plain.generate([1, 2], [0, 1]).tokens, watched.generate([1, 2], [0, 1]).tokens)


def test_no_unconditional_half_without_guidance(model: hieramp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    begin = VAR.begin
    monkeypatch.setattr(
        VAR, "begin", lambda self, labels, max_rows: sizes.append(len(labels)) or begin(self, labels, max_rows)
    )
    model.generate([1, 2], [0, 1], guidance=0)
    model.generate([1, 2], [0, 1], guidance=1)
    assert sizes == [2, 4]


def test_a_model_without_class_tokens_is_amplified_through_guidance(plain_model: hieramp.Model) -> None:
    drawing = plain_model.generate([1, 2], [0, 1], ALL)
    off = plain_model.generate([1, 2], [0, 1])
    for m in drawing.saliency:
        assert torch.allclose(m.sum((1, 2)), torch.ones(2), atol=1e-5)
    assert not same(drawing.tokens, off.tokens) and torch.equal(drawing.tokens[0], off.tokens[0])
    mixed = plain_model.generate([1, 1], [0, 0], [None, ALL])
    assert same(rows(mixed.tokens, [1]), rows(drawing.tokens, [0])) and same(
        rows(mixed.tokens, [0]), rows(off.tokens, [0])
    )


def test_half_precision_draws_too(model_folder: Path) -> None:
    half = hieramp.load(model_folder, "cpu", torch.bfloat16)
    assert half.var.head.weight.dtype == torch.bfloat16
    assert torch.isfinite(half.generate([1, 2], [0, 1], [ALL, WEAK]).images).all()
    logits = next(half.steps([1], [0], guidance=0.0)).logits  # in float32: no two codes rounded into one
    assert logits.dtype == torch.float32 and not torch.equal(logits, logits.bfloat16().float())


def test_details_hold_every_block_and_head(model: hieramp.Model) -> None:
    for step in model.steps([1], [0], return_attention=True):
        side = (1, 2, 3, 4, 6, 8)[step.scale]
        assert step.block_saliency.shape == (1, 4, 2, side, side)
        assert torch.allclose(step.block_saliency[:, model.var.config.watched_block].mean(1), step.saliency, atol=1e-6)
        assert step.class_logits.shape == (1, 4)


def test_attention_mode_multiplies_the_weights() -> None:
    """γ = 2 on four image keys, against the sum done by hand on one block; the class token's key stays as it is."""
    attention = build_model().var.blocks[2].attn
    torch.manual_seed(0)
    x = torch.randn(1, 5, 64)
    cache = KVCache(TINY_VAR, 1, torch.device("cpu"), torch.float32)
    factor = torch.tensor([[2.0, 2.0, 2.0, 2.0, 1.0]])
    hook = QKVParams((torch.zeros(1, 5), factor))
    ours = attention.step(x, 0, cache, attention.qkv_params(), hook, class_token=True)
    q, k, v = attention._qkv(x)
    by_hand = ((q @ k.mT).softmax(-1) * factor) @ v
    assert torch.allclose(ours, attention._project(by_hand), atol=1e-5)


def test_logit_mode_adds_to_the_logits() -> None:
    attention = build_model().var.blocks[2].attn
    torch.manual_seed(0)
    x, bias = torch.randn(1, 5, 64), torch.tensor([[3.0, 0.0, -1.0, 0.0, 0.0]])
    cache = KVCache(TINY_VAR, 1, torch.device("cpu"), torch.float32)
    ours = attention.step(x, 0, cache, attention.qkv_params(), QKVParams((bias, None)), class_token=True)
    q, k, v = attention._qkv(x)
    by_hand = (q @ k.mT + bias).softmax(-1) @ v
    assert torch.allclose(ours, attention._project(by_hand), atol=1e-5)


def test_filters() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.3, 0.15, 0.05]]]))
    kept = lambda k, p: torch.isfinite(filter_logits(logits, k, p)).sum().item()  # noqa: E731
    assert [kept(0, 0), kept(2, 0), kept(9, 0), kept(0, 0.7), kept(0, 0.99), kept(1, 0.1)] == [4, 2, 4, 2, 4, 1]


def test_noise_is_gumbel_and_belongs_to_its_place() -> None:
    keys = noise_keys([0, 1], [7, 7], torch.device("cpu"))
    noise = gumbel_noise(keys, 3, 64, 512)
    assert abs(noise.mean() - 0.5772) < 0.01 and abs(noise.var() - torch.pi**2 / 6) < 0.03
    assert torch.equal(gumbel_noise(keys[1:], 3, 64, 512)[0], noise[1])
    assert not torch.equal(noise[0], noise[1]) and not torch.equal(gumbel_noise(keys, 2, 64, 512), noise)
    flat = noise[0].flatten()
    assert abs(torch.corrcoef(torch.stack([flat[:-1], flat[1:]]))[0, 1]) < 0.02


def test_noise_is_the_hash_that_images_were_made_with() -> None:
    """In whole numbers, word by word, as for every image so far; a tensor gives what numpy gives."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    def word(key: tuple[int, int], scale: int, position: int, code: int) -> int:
        place = mix(mix(position + (scale + 1) * 65536) ^ key[0])
        return mix(mix((place + code * 0x9E3779B9) % 2**32) ^ key[1])

    keys_B2 = noise_keys([0, 3], [7, 2**31 + 5], torch.device("cpu"))
    assert keys_B2.max() >= 2**31  # a word with the sign bit of an int32
    words = [[[word(tuple(key), 4, p, c) for c in range(70)] for p in range(600)] for key in keys_B2.tolist()]
    uniform = ((torch.tensor(words) >> 9).float() + 0.5) * 2.0**-23
    assert torch.equal(gumbel_noise(keys_B2, 4, 600, 70), -torch.log(-torch.log(uniform)))
    place, codes, key = (torch.randint(-(2**31), 2**31, shape, dtype=torch.int32) for shape in ((9, 1), (70,), ()))
    assert np.array_equal(_words(place, codes, key), _words(place.numpy(), codes.numpy(), key.numpy()))


def test_samples_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    noise = gumbel_noise(noise_keys([0], [0], torch.device("cpu")), 1, 30000, 3)
    drawn = sample(probabilities.log().expand(1, 30000, 3), noise)
    shares = torch.bincount(drawn.flatten()) / 30000
    assert torch.allclose(shares, probabilities, atol=0.01)
    cooled = probabilities**2 / (probabilities**2).sum()  # at a temperature of a half
    shares = torch.bincount(sample(probabilities.log().expand(1, 30000, 3), noise * 0.5).flatten()) / 30000
    assert torch.allclose(shares, cooled, atol=0.01)


def test_a_temperature_changes_its_own_stage_and_those_after_it(model: hieramp.Model) -> None:
    call = dict(labels=[1, 2], seeds=[3, 4], amplification=[None, ALL])
    plain = model.generate(**call)
    assert same(model.generate(**call, temperature=1).tokens, plain.tokens)
    assert same(model.generate(**call, temperature=0.5).tokens, model.generate(**call, temperature=[0.5] * 3).tokens)
    for first, temperature in ((0, (0, 1, 1)), (2, (1, 0, 1)), (4, (1, 1, 0))):  # scale 0 counts as coarse
        tokens = model.generate(**call, temperature=temperature).tokens
        assert same(tokens[:first], plain.tokens[:first]) and not torch.equal(
            tokens[first + 1], plain.tokens[first + 1]
        )
    for step in model.steps(**call, temperature=0):
        assert torch.equal(step.tokens, step.logits.argmax(-1))
    alone = model.generate([2], [4], ALL, temperature=(1, 0.5, 0.5))
    assert same(alone.tokens, rows(model.generate(**call, temperature=(1, 0.5, 0.5)).tokens, [1]))


def test_guidance_grows_by_its_power(model: hieramp.Model) -> None:
    assert [Sampling(3.0).guidance_at(scale, 4) for scale in range(4)] == [0, 1, 2, 3]
    assert [Sampling(8.0, guidance_power=0.5).guidance_at(scale, 5) for scale in (0, 1, 4)] == [0, 4, 8]
    assert [Sampling(3.0, guidance_power=0).guidance_at(scale, 4) for scale in range(4)] == [3, 3, 3, 3]
    call = dict(labels=[1, 2], seeds=[3, 4], amplification=[None, ALL])
    plain, sooner, even = ([*model.steps(**call, guidance_power=power)] for power in (1, 0.5, 0))
    assert torch.equal(plain[0].logits, sooner[0].logits) and not torch.equal(plain[0].logits, even[0].logits)
    assert same(model.generate(**call).tokens, [step.tokens for step in plain])
    first = [plain[0].tokens]  # the same for all, so that guidance alone can tell the second scale's logits apart
    second = [[*model.steps(**call, prefix_tokens=first, guidance_power=power)][1].logits for power in (1, 0.5, 0)]
    assert not torch.equal(second[0], second[1]) and not torch.equal(second[1], second[2])
    without = model.generate(**call, guidance=0)
    assert same(model.generate(**call, guidance=0, guidance_power=0).tokens, without.tokens)


@pytest.mark.parametrize("name", ["model", "plain_model"])
def test_a_model_goes_on_from_its_own_tokens_as_if_it_had_just_drawn_them(
    name: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    schedules = [None, ALL, FINE]
    whole = model.generate([1, 1, 2], [3, 3, 4], schedules)
    for count in range(7):
        again = model.generate([1, 1, 2], [3, 3, 4], schedules, prefix_tokens=whole.tokens[:count])
        assert same(again.tokens, whole.tokens) and torch.equal(again.images, whole.images), count
        assert same(again.saliency, whole.saliency)


def test_all_scales_given_are_the_reconstruction(model: hieramp.Model) -> None:
    torch.manual_seed(0)
    tokens = model.vqvae.encode(torch.rand(3, 3, 32, 32) * 2 - 1)
    drawing = model.generate([0, 1, 2], [0, 0, 0], prefix_tokens=tokens)
    assert same(drawing.tokens, tokens)
    assert torch.allclose(drawing.images, model.vqvae.to_images(model.vqvae.embed(tokens)), atol=1e-5)


def test_given_tokens_are_each_image_s_own(model: hieramp.Model) -> None:
    """Images of one label and seed share rows only where their given tokens agree, also with a memory."""
    torch.manual_seed(0)
    given = tuple(torch.randint(64, (3, side * side)) for side in (1, 2, 3))
    given[0][1] = given[0][0]  # the first two agree at scale 0 and part at scale 1
    labels, seeds, memory = [1, 1, 1], [5, 5, 5], RecentDrawings()
    for count in (0, 1, 3):
        *_, together = model.steps(labels, seeds, memory=memory, prefix_tokens=[tokens[:3] for tokens in given[:count]])
        for i in range(3):
            alone = model.generate([1], [5], prefix_tokens=[tokens[i : i + 1] for tokens in given[:count]])
            assert torch.equal(alone.tokens[-1][0], together.tokens[i])
    assert len({tuple(row) for row in together.tokens.tolist()}) == 3
    steps = list(model.steps(labels, seeds, prefix_tokens=given))
    assert [len(step.rows.result.tokens) for step in steps[:2]] == [2, 3]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (dict(labels=[1], prefix_tokens=[torch.zeros(1, 1).long()] * 7), "tokens of 7 scales are given, tiny has 6"),
        (
            dict(labels=[1], prefix_tokens=[torch.zeros(2, 1).long()]),
            r"prefix_tokens\[0\] is \(2, 1\) of torch.int64: give \(1, 1\)",
        ),
        (dict(labels=[1], prefix_tokens=[torch.zeros(1, 1)]), "of torch.float32: give .* whole numbers"),
        (
            dict(labels=[1], prefix_tokens=[torch.full((1, 1), 64)]),
            r"prefix_tokens\[0\] holds code 64; tiny has codes 0 to 63",
        ),
        (dict(labels=[1], prefix_tokens=[torch.full((1, 1), -1)]), "holds code -1"),
        (dict(labels=[]), "no labels"),
        (dict(labels=[4]), "class 4 does not exist"),
        (dict(labels=[1], seeds=[1, 2]), "counts differ"),
        (dict(labels=[1], guidance=-1), "guidance is -1"),
        (dict(labels=[1], guidance=float("nan")), "guidance is nan"),
        (dict(labels=[1], top_k=-5), "top k is -5"),
        (dict(labels=[1], top_p=1.5), "top p is 1.5"),
        (dict(labels=[1], temperature=-1), "coarse temperature is -1; it must be a number of at least 0"),
        (dict(labels=[1], guidance_power=-1), "guidance power is -1; it must be a number of at least 0"),
        (dict(labels=[1], temperature=(1, 1, float("nan"))), "fine temperature is nan"),
        (dict(labels=[1], temperature=(1, 1)), "2 values of temperature are given; give one, or three"),
        (dict(labels=[1], amplification=Amplification((0.5, 5), blocks=(4,))), "block 4 does not exist"),
        (dict(labels=[1], amplification=Amplification((0.5, 5), scales=(6,))), "scale 6 does not exist"),
    ],
)
def test_misuse_is_told_in_a_sentence(model: hieramp.Model, call: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model.generate(**call)


def test_class_names(model: hieramp.Model) -> None:
    assert model.label_of("cat") == 1 and model.label_of("CAT ") == 1 and model.label_of(3) == 3
    with pytest.raises(ValueError, match="unknown class 'cet'; the nearest are: cat"):
        model.label_of("cet")
    with pytest.raises(ValueError, match="class 17 does not exist"):
        model.label_of("17")


def test_a_name_that_looks_like_a_number_is_a_name_first(model: hieramp.Model) -> None:
    numbered = replace(model, class_names=("1", "2", "3", "²"))
    assert [numbered.label_of(name) for name in ("1", "2", "²", "0", 1)] == [0, 1, 3, 0, 1]
    with pytest.raises(ValueError, match="unknown class '³'"):
        numbered.label_of("³")
    with pytest.raises(ValueError, match="class -1 does not exist"):
        numbered.label_of(-1)


def test_a_move_keeps_the_precision() -> None:
    half = build_model().to("cpu", torch.bfloat16)
    assert half.to("cpu").var.pos_start.dtype == torch.bfloat16
    assert half.to("cpu", torch.float32).var.pos_start.dtype == torch.float32


@pytest.fixture(scope="module")
def imprecise() -> hieramp.Model:
    """A model whose tokens all have the same large offset: layer norms take it off, but float32 errs more."""
    model = build_model(replace(TINY_VAR, read_only_class_tokens=True))
    model.var.lvl_embed.weight.data += 1e4
    return model


def test_what_is_called_clear_is_the_same_in_float64(imprecise: hieramp.Model) -> None:
    """Whatever the model: how much its float32 errs is measured."""
    exact = copy.deepcopy(imprecise)
    exact.var.double(), exact.vqvae.double()
    labels, seeds = [0, 1, 2, 3] * 16, list(range(100, 164))
    steps, clear_B = list(imprecise.steps(labels, seeds, guidance=0.0)), torch.ones(64, dtype=torch.bool)
    turned_B = torch.zeros(64, dtype=torch.bool)
    for step, truth in zip(steps, exact.steps(labels, seeds, guidance=0.0), strict=True):
        clear_B &= step.is_unambiguous
        turned_B |= (step.tokens != truth.tokens).any(1)
    assert turned_B.any() and clear_B.any() and not (turned_B & clear_B).any()


@pytest.mark.parametrize("name", ["model", "plain_model", "imprecise"])
def test_tolerances_are_larger_than_the_errors_of_other_images(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    measured, seen = tolerances(model.vqvae, model.var), pilot_errors(model.vqvae, model.var, range(100, 116))
    assert 0 < seen.logit < max(measured.logit, ambiguity.LOGIT_ERROR)
    assert 0 < seen.saliency < max(measured.saliency, ambiguity.SALIENCY_ERROR)


def test_a_missing_map_is_not_taken_for_a_clear_one(model: hieramp.Model) -> None:
    """The maps of all amplified blocks are looked at, or the check fails."""
    *_, step = model.steps([1], [0], replace(ALL, blocks=(1, 2)))
    assert len(step.rows.result.ranked_maps) == 2
    fewer = step.rows.result._replace(ranked_maps=step.rows.result.ranked_maps[:1])
    with pytest.raises(ValueError, match="shorter"):
        ambiguity.is_unambiguous(model.vqvae, step.rows.settings, fewer, is_drawn=True)
