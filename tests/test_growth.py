"""A larger transformer begun from a smaller one: it foretells the same, and all of it can learn."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY_VAR, build_model

from hieramp import Amplification, Drawing
from hieramp.config import VARConfig
from hieramp.var.growth import grown
from hieramp.var.model import VAR

ALL = Amplification((0.5, 5.0), (0.5, 5.0), (0.5, 5.0))
LABELS, SEEDS = [0, 1, 2, 3, 1], [5, 6, 7, 8, 9]
READ_ONLY = replace(TINY_VAR, read_only_class_tokens=True)


def same_tokens(a: Drawing, b: Drawing) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tokens, b.tokens, strict=True))


def test_weights_of_one_pass_begin_a_model_of_four() -> None:
    one, four = build_model(READ_ONLY), build_model(replace(READ_ONLY, last_passes=4))
    four.var.load_state_dict(grown(one.var.state_dict(), four.var.config))
    before, after = one.generate(LABELS, SEEDS, ALL), four.generate(LABELS, SEEDS, ALL)
    assert same_tokens(before, after)  # no weight yet on what is known


@pytest.mark.parametrize(
    "config", [READ_ONLY, replace(TINY_VAR, shared_adaln=True), replace(TINY_VAR, l2_attention=False)]
)
@pytest.mark.parametrize("depth", [5, 6, 7, 8, 14])
def test_a_shallow_model_begins_a_deeper_one(config: VARConfig, depth: int) -> None:
    shallow, deep = build_model(config), build_model(replace(config, depth=depth))
    deep.var.load_state_dict(grown(shallow.var.state_dict(), deep.var.config))
    before, after = shallow.generate(LABELS, SEEDS), deep.generate(LABELS, SEEDS)
    assert same_tokens(before, after)


def marked(depth: int) -> dict[str, torch.Tensor]:
    """Block i holds i + 1 where it reads and where it writes."""
    return {f"blocks.{i}.{name}": torch.tensor(i + 1) for i in range(depth) for name in ("attn.q", "ffn.fc2.bias")}


@pytest.mark.parametrize(
    ("had", "reads", "writes"),
    [
        (6, [1, 2, 2, 3, 4, 4, 5, 6, 6], [1, 2, 0, 3, 4, 0, 5, 6, 0]),
        (4, [1, 2, 3, 4, 4], [1, 2, 3, 4, 0]),
        (2, [1, 1, 1, 2, 2, 2], [1, 0, 0, 2, 0, 0]),
        (3, [1, 2, 2, 3, 3], [1, 2, 0, 3, 0]),
    ],
)
def test_copies_are_spread_evenly_and_silent(had: int, reads: list[int], writes: list[int]) -> None:
    state = grown(marked(had), replace(TINY_VAR, depth=len(reads)))
    assert [int(state[f"blocks.{i}.attn.q"]) for i in range(len(reads))] == reads
    assert [int(state[f"blocks.{i}.ffn.fc2.bias"]) for i in range(len(reads))] == writes


def test_every_new_block_learns_from_the_first_step() -> None:
    shallow, deep = build_model(READ_ONLY), build_model(replace(READ_ONLY, depth=8))
    deep.var.load_state_dict(grown(shallow.var.state_dict(), deep.var.config))
    tokens = shallow.generate(LABELS, SEEDS).tokens
    inputs = deep.vqvae.teacher_input(list(tokens))
    deep.var(torch.tensor(LABELS), inputs).logits_BLV.logsumexp(-1).sum().backward()
    assert all(block.attn.proj.weight.grad.abs().max() > 0 for block in deep.var.blocks)
    assert all(block.ffn.fc2.weight.grad.abs().max() > 0 for block in deep.var.blocks)


def test_what_fits_or_is_foreign_stays_as_it_is() -> None:
    four = VAR(replace(TINY_VAR, last_passes=4))
    state = four.state_dict()
    same = grown(state, four.config)
    assert list(same) == list(state) and all(torch.equal(same[key], state[key]) for key in state)
    narrow = {**state, "word_embed.weight": torch.zeros(64, 5)}
    assert grown(narrow, four.config)["word_embed.weight"].shape == (64, 5)  # left to be refused
    assert set(grown(marked(4), replace(TINY_VAR, depth=3))) == set(marked(4))  # so is a deeper one
    assert grown({}, TINY_VAR) == {}
