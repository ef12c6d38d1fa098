"""The inside of a token, against the drawing itself."""

from dataclasses import replace

import pytest
import torch
from conftest import SIDES, TINY_VAR, build_model
from torch import Tensor

import hieramp
from hieramp import Amplification, Settings
from hieramp.analysis import mechanism
from hieramp.errors import UserError
from hieramp.generation.sampling import filter_logits
from hieramp.var.attention import SelfAttention

OWN = {"class_token_attention": "own", "read_only_class_tokens": True, "class_token_block": 1}
KINDS = {
    "seen class tokens": TINY_VAR,
    "own class tokens": replace(TINY_VAR, **OWN),
    "four passes": replace(TINY_VAR, **OWN, last_passes=4),
    "no class tokens": replace(TINY_VAR, class_token_scales=()),
    "dot products": replace(TINY_VAR, l2_attention=False),
}
LABEL, SEED = 1, 3


@pytest.fixture(scope="module", params=KINDS)
def drawer(request: pytest.FixtureRequest) -> hieramp.Model:
    return build_model(KINDS[request.param])


def settings(strength: float = 5.0, mode: str = "logit", **more: object) -> Settings:
    return Settings.of(Amplification(*[(0.5, strength)] * 3, mode=mode), **{"guidance": 2.0, **more})  # type: ignore[arg-type]


def steps_of(model: hieramp.Model, how: Settings) -> list[hieramp.Step]:
    """The pair as everybody draws it."""
    return list(model.steps([LABEL] * 2, [SEED] * 2, [how.plain, how]))


@pytest.mark.parametrize("how", [settings(), settings(2.0, "attention"), settings(temperature=0.5, top_k=20)], ids=str)
def test_the_distribution_is_the_recorded_one_and_gives_the_code_drawn(drawer: hieramp.Model, how: Settings) -> None:
    steps = steps_of(drawer, how)
    for step in steps:
        found = mechanism.look(drawer, LABEL, SEED, how, step.scale)
        for row, side in enumerate(("baseline", "amplified")):
            drawn = found.sides[side]
            kept = filter_logits(step.logits[row], how.top_k, how.top_p)
            recorded = (kept / how.sampling.temperature_at(step.scale, drawer.var.scales)).softmax(-1)
            for position in range(step.side**2):
                torch.testing.assert_close(drawn.probabilities(position), recorded[position], atol=1e-4, rtol=1e-3)
                assert drawn.would_draw(position) == drawn.tokens_L[position] == step.tokens[row, position]


def test_temperature_zero_puts_all_on_one_code(model: hieramp.Model) -> None:
    found = mechanism.look(model, LABEL, SEED, settings(temperature=0.0), 3)
    p_V = found.sides["amplified"].probabilities(2)
    assert p_V.max() == 1 and p_V.sum() == 1 and p_V.argmax() == found.sides["amplified"].tokens_L[2]


@pytest.mark.parametrize("how", [settings(), settings(0.3, "attention")], ids=str)
@pytest.mark.parametrize("block", range(TINY_VAR.depth))
def test_the_weights_are_those_of_the_drawing(
    drawer: hieramp.Model, how: Settings, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights times the values are what the block's attention gave while the picture was drawn."""
    seen: list[tuple[Tensor, Tensor]] = []
    image_rows, fused = SelfAttention._image_rows, torch.nn.functional.scaled_dot_product_attention

    def watched(self: SelfAttention, q: Tensor, keys: Tensor, values: Tensor, change: object) -> Tensor:
        out = image_rows(self, q, keys, values, change)  # type: ignore[arg-type]
        if self.block == block:
            seen.append((values.clone(), out[:, :, : q.shape[2]]))
        return out

    def together(q: Tensor, keys: Tensor, values: Tensor, *mask: Tensor, **more: float) -> Tensor:
        """Blocks that nobody looks at take image and class tokens in one call."""
        out = fused(q, keys, values, *mask, **more)
        if mask and mask[0].dim() == 2:
            masked.append((values.clone(), out[:, :, :-1]))
        return out

    masked: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(SelfAttention, "_image_rows", watched)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", together)
    for scale, side in ((3, 4), (5, 8)):
        found = mechanism.look(drawer, LABEL, SEED, how, scale, block)
        drawn, amplified = found.sides["amplified"], 2  # its row of the batch
        for position in range(side * side):
            row = drawn.row(position)
            runs = [
                (values[amplified], out[amplified, :, position])
                for values, out in (*seen, *masked)
                if values.shape[2] == row.after.shape[1] and out.shape[2] == side * side and len(out) > amplified
            ]
            assert any(torch.allclose((row.after[:, None] @ values)[:, 0], out, atol=1e-5) for values, out in runs), (
                scale,
                position,
            )


def test_rows_sum_to_one_and_the_bias_is_on_the_chosen_keys(drawer: hieramp.Model) -> None:
    how, weak = settings(), settings(0.3, "attention")
    steps = steps_of(drawer, how)
    for scale in (1, 3, 5):
        found, scaled = (mechanism.look(drawer, LABEL, SEED, one, scale) for one in (how, weak))
        span = drawer.var.scales.spans[scale]
        chosen = steps[scale].chosen(how.amplification)
        assert chosen is not None and found.is_amplified
        for position in (0, SIDES[scale] ** 2 - 1):
            row, plain = found.sides["amplified"].row(position), found.sides["baseline"].row(position)
            for weights in (row.before, row.after, plain.after):
                torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)))
            assert torch.equal(row.chosen[span], chosen[1].flatten()) and row.chosen.sum() == chosen[1].sum()
            assert set(row.bias_K.tolist()) == {0.0, 5.0} and not plain.chosen.any()
            gain = row.after[:, row.chosen].sum(-1) - row.before[:, row.chosen].sum(-1)
            assert (gain > 0).all()
            other = scaled.sides["amplified"].row(position)
            share = other.before[:, other.chosen].sum(-1)
            torch.testing.assert_close(other.after.sum(-1), 1 - 0.7 * share)


def test_what_is_not_amplified_is_not_changed(model: hieramp.Model) -> None:
    other_block = mechanism.look(model, LABEL, SEED, settings(), 3, 0)
    assert not other_block.is_amplified and not other_block.sides["amplified"].row(0).chosen.any()
    first = mechanism.look(model, LABEL, SEED, settings(), 0)
    assert not first.is_amplified and first.moved(0, "baseline") == 0


def test_spared_differs_in_the_strength_of_one_scale(drawer: hieramp.Model) -> None:
    """It is the amplified picture, drawn with this scale left alone."""
    how = settings()
    later = mechanism.look(drawer, LABEL, SEED, how, 4)
    others = replace(how, scales=(1, 2, 3, 5))
    tokens = drawer.generate([LABEL], [SEED], others).tokens[4][0]
    if not drawer.var.passes(4):
        spared = later.sides["spared"]
        assert [spared.would_draw(position) for position in range(36)] == tokens.tolist()
    assert torch.equal(later.sides["spared"].tokens_L, later.sides["amplified"].tokens_L)
    assert max(later.moved(position, "spared") for position in range(36)) > 1e-3
    only = Settings.of(Amplification(fine=(0.5, 5.0), scales=(4,)))
    alone = mechanism.look(drawer, LABEL, SEED, only, 4)  # the first scale to be amplified: spared is the baseline
    for position in range(36):
        assert alone.moved(position, "spared") == pytest.approx(alone.moved(position, "baseline"), abs=1e-4)


def test_tokens_given_are_looked_into_without_drawing(model: hieramp.Model) -> None:
    how = settings()
    steps = steps_of(model, how)
    tokens = tuple([step.tokens[row] for step in steps] for row in (0, 1))
    found = mechanism.look(model, LABEL, SEED, how, 4, tokens=tokens)
    again = mechanism.look(model, LABEL, SEED, how, 4)
    for side in mechanism.SIDES:
        assert torch.equal(found.sides[side].filtered_LV, again.sides[side].filtered_LV)


def test_a_look_tells_after_every_scale_how_far_it_is(model: hieramp.Model) -> None:
    parts = list(mechanism.looking(model, LABEL, SEED, settings(), 3))
    assert [(part.done, part.of) for part in parts] == [(1, 30), (5, 30), (14, 30), (30, 30)]
    assert [part.found is None for part in parts] == [True, True, True, False]


def test_the_likeliest_codes_hold_both_that_were_drawn(model: hieramp.Model) -> None:
    found = mechanism.look(model, LABEL, SEED, settings(), 4)
    for position in range(36):
        codes = found.likeliest(position)
        assert len(codes) == len(set(codes)) == 10
        assert {int(found.sides[side].tokens_L[position]) for side in ("baseline", "amplified")} <= set(codes)
        p_V = found.sides["amplified"].probabilities(position)
        assert p_V[codes].tolist() == sorted(p_V[codes].tolist(), reverse=True)


def test_the_patch_of_the_code_drawn_is_cut_from_the_picture(drawer: hieramp.Model) -> None:
    steps = steps_of(drawer, settings())
    for scale in (1, 3, 5):
        found = mechanism.look(drawer, LABEL, SEED, settings(), scale)
        for position in (0, SIDES[scale] ** 2 - 1):
            drawn = int(found.sides["amplified"].tokens_L[position])
            patch, other, without = found.patches(position, [drawn, (drawn + 1) % 64])
            left, top, wide = found.box(position)
            cut = steps[scale].image[1, :, top : top + wide, left : left + wide]
            torch.testing.assert_close(patch, cut, atol=1e-4, rtol=1e-3)
            assert not torch.allclose(other, patch, atol=1e-4)
            cut = found.added(position).without[:, top : top + wide, left : left + wide]
            torch.testing.assert_close(without, cut, atol=1e-4, rtol=1e-3)


def test_what_the_codes_added_adds_up(model: hieramp.Model) -> None:
    """f_hat is a sum over positions: taking every code away one by one takes the scale away."""
    found = mechanism.look(model, LABEL, SEED, settings(), 5)
    drawn, quantize = found.sides["amplified"], model.vqvae.quantize
    codes = quantize.embedding(drawn.tokens_L[None])
    whole = quantize.spread(5, codes) - quantize.spread(5, torch.zeros_like(codes))
    parts = torch.zeros_like(whole)
    for position in range(64):
        without = codes.clone()
        without[0, position] = 0
        parts += quantize.spread(5, codes) - quantize.spread(5, without)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-3)
    added = found.added(9)
    torch.testing.assert_close(added.image, steps_of(model, settings())[5].image[1], atol=1e-4, rtol=1e-3)
    far = (added.image - added.without).abs().amax(0)
    assert added.rms > 0 and far[2:10, 2:10].max() > far[24:, 24:].max()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"scale": 6}, "scale 6 does not exist"),
        ({"block": 4}, "block 4 does not exist"),
        ({"label": 9}, "label 9 does not exist"),
    ],
)
def test_what_is_not_there_is_named(model: hieramp.Model, given: dict[str, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        mechanism.look(model, **{"label": LABEL, "seed": SEED, "settings": settings(), "scale": 3, **given})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="position 16 does not exist: scale 3 has positions 0 to 15"):
        mechanism.look(model, LABEL, SEED, settings(), 3).likeliest(16)
