"""What each part is trained on, batch by batch: which images, which labels, which losses, which weights how fast."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from timm.utils import ModelEmaV3
from tiny_train import PRESET
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.training import class_tokens, runs, var
from hieramp.training.augment import randomly_flipped, randomly_shifted
from hieramp.training.class_tokens import FIXED_WEIGHT, ClassTokenOptions, OwnClassTokenObjective
from hieramp.training.loop import Objective, RunSettings, _Run
from hieramp.training.recipe import MUON_RATE, Muon, Recipe, build_optimizers
from hieramp.training.tokens import Tokenizer
from hieramp.training.var import ClassTokenObjective, VARObjective
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

SEEN = replace(PRESET.var, num_classes=2, class_token_scales=tuple(range(len(PRESET.var.sides))))
OWN = replace(SEEN, read_only_class_tokens=True, class_token_attention="own")


def batch(count: int = 8) -> tuple[Tensor, Tensor]:
    """(images uint8, labels)."""
    torch.manual_seed(0)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 2


def tokenizer(shift: int = 0) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(VQVAE(PRESET.vqvae), shift)


def transformer(config: object = OWN) -> VAR:
    torch.manual_seed(0)
    return VAR(config)  # type: ignore[arg-type]


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(400, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    flipped = randomly_flipped(images)
    mirrored = [torch.equal(one, image.flip(-1)) for one, image in zip(flipped, images, strict=True)]
    same = [torch.equal(one, image) for one, image in zip(flipped, images, strict=True)]
    assert 160 < sum(mirrored) < 240 and sum(mirrored) + sum(same) == 400


def test_the_transformer_sees_mirrored_images_and_shifted_ones() -> None:
    """The same image many times over has more than one set of tokens."""
    images = batch(1)[0].expand(64, -1, -1, -1)
    torch.manual_seed(0)
    assert len(tokenizer()(images).tokens_BL.unique(dim=0)) == 2
    assert len(tokenizer(shift=2)(images).tokens_BL.unique(dim=0)) > 10


def test_what_comes_in_at_the_borders_is_the_images_reflection() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 8, 8)).float()
    for image, moved in zip(images, randomly_shifted(images, 2), strict=True):
        padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
        assert any(torch.equal(moved, padded[:, y : y + 8, x : x + 8]) for y in range(5) for x in range(5))


def share_without_class(objective: Objective, model: VAR) -> float:
    """How many rows of its batches have the null label."""
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        for _ in range(4):
            objective(*batch(500))
    return float((torch.cat(seen) == model.null_label).float().mean())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda model: VARObjective(model, tokenizer()), 0.1),
        (lambda model: ClassTokenObjective(model, tokenizer(), "kept"), 0.1),
        (lambda model: ClassTokenObjective(model, tokenizer(), "dropped"), 0.5),
        (lambda model: OwnClassTokenObjective(model, tokenizer(), ClassTokenOptions(with_backbone=True)), 0.1),
    ],
    ids=["transformer", "class kept", "class dropped", "own, with the backbone"],
)
def test_labels_are_dropped_for_guidance(make: Callable[[VAR], Objective], expected: float) -> None:
    model = transformer(OWN if make(transformer()).__class__ is OwnClassTokenObjective else SEEN)
    assert share_without_class(make(model), model) == pytest.approx(expected, abs=0.04)  # 2,000 rows: six deviations


@pytest.mark.parametrize("condition", ["dropped", "kept"])
def test_class_tokens_that_must_not_know_the_class_learn_from_rows_without_it(
    condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (images, labels) = transformer(SEEN), batch()
    given = labels.masked_fill(torch.tensor([True, False, False, True, False, False, False, True]), model.null_label)
    monkeypatch.setattr(var, "drop_labels", lambda *_: given)
    torch.manual_seed(1)
    found = ClassTokenObjective(model, tokenizer(), condition)(images, labels)["class_loss"]
    torch.manual_seed(1)
    logits_BSK = model(given, tokenizer()(images).inputs_BLC).class_logits_BSK
    rows = given == model.null_label if condition == "dropped" else torch.ones(8, dtype=torch.bool)
    losses = [F.cross_entropy(logits_BSK[row], labels[row].expand(logits_BSK.shape[1])) for row in rows.nonzero()[:, 0]]
    torch.testing.assert_close(found, torch.stack(losses).mean().detach())


def terms(**options: float) -> dict[str, Tensor]:
    """Losses of class tokens that look, with maps that are not even."""
    model = transformer()
    for token in model.cls_tokens.values():
        token.data.normal_(std=3.0)
    torch.manual_seed(1)
    return OwnClassTokenObjective(model, tokenizer(), ClassTokenOptions(**options))(*batch())  # type: ignore[arg-type]


def test_the_loss_of_class_tokens_that_look_is_the_sum_of_its_terms() -> None:
    plain = terms(same_map=1.0, left_out=0.0)
    torch.testing.assert_close(plain["loss"].detach(), plain["class_loss"])  # a share below what may be costs nothing
    fixed = terms(same_map=0.0, left_out=0.0)
    assert fixed["fixed_share"] > 0.01
    torch.testing.assert_close(fixed["loss"].detach(), fixed["class_loss"] + FIXED_WEIGHT * fixed["fixed_share"])
    narrow = terms(same_map=1.0, left_out=0.0, narrow=0.5)
    assert narrow["narrow"] > 0.01
    torch.testing.assert_close(narrow["loss"].detach(), narrow["class_loss"] + 0.5 * narrow["narrow"])
    left = terms(same_map=1.0, left_out=2.0)
    assert left["left_out"] > 0.01
    torch.testing.assert_close(left["loss"].detach(), left["class_loss"] + 2 * left["left_out"])


def test_the_penalties_are_what_they_are_called() -> None:
    one, other = torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.1, 0.7])
    assert class_tokens.share_in_common(torch.stack([one, one])) == pytest.approx(1)
    opposite = torch.stack([one, 0.5 - one])  # as far from even, the other way
    assert class_tokens.share_in_common(opposite) == pytest.approx(0, abs=1e-6)
    assert 0 < float(class_tokens.share_in_common(torch.stack([one, other]))) < 1
    turned = class_tokens.turned_round(torch.stack([one, torch.full((4,), 0.25)]))
    torch.testing.assert_close(turned[0], torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]))
    assert turned[0].argmin() == one.argmax()
    assert class_tokens.from_uniform(torch.full((4,), 0.25)) == pytest.approx(0, abs=1e-6)
    assert class_tokens.from_uniform(torch.tensor([1.0, 0, 0, 0])) == pytest.approx(torch.log(torch.tensor(4.0)))


def test_what_a_map_leaves_out_moves_the_map_alone() -> None:
    """Else values and head would unlearn what lies there."""
    objective = OwnClassTokenObjective(transformer(), tokenizer(), ClassTokenOptions())
    weights_BHL = torch.rand(8, 2, 9).softmax(-1).requires_grad_()
    values_BHLD = torch.rand(8, 2, 9, OWN.own_width // 2, requires_grad=True)
    objective._left_out(weights_BHL, values_BHLD, batch()[1]).backward()
    head = objective.model.class_head
    assert weights_BHL.grad is not None and weights_BHL.grad.abs().max() > 0
    assert values_BHLD.grad is None and head.weight.grad is None and head.bias.grad is None


@pytest.mark.parametrize("with_backbone", [False, True])
def test_a_backbone_sees_images_in_their_place_at_last(with_backbone: bool) -> None:
    shifting = tokenizer(shift=2)
    options = ClassTokenOptions(with_backbone=with_backbone)
    objective = OwnClassTokenObjective(transformer(), shifting, options, shift_until=0.9)
    objective.before_step(0.89)
    assert shifting.shift == 2
    objective.before_step(0.9)
    assert shifting.shift == (0 if with_backbone else 2)


def test_decay_falls_on_matrices_and_not_on_the_discriminator() -> None:
    module = nn.ModuleDict({"chosen": nn.Linear(4, 4), "other": nn.Linear(4, 4), "judge": nn.Linear(4, 4)})
    recipe = Recipe(4, 1, 1e-3, "muon", weight_decay=0.05)
    optimizers = build_optimizers(module, recipe, {"chosen.weight"}, {"judge.weight", "judge.bias"})
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        names[id(parameter)]: (type(optimizer).__name__, group["weight_decay"], group["base_lr"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "chosen.weight": ("Muon", 0.05, 1e-3 * MUON_RATE),
        "chosen.bias": ("AdamW", 0.0, 1e-3),
        "other.weight": ("AdamW", 0.05, 1e-3),
        "other.bias": ("AdamW", 0.0, 1e-3),
        "judge.weight": ("AdamW", 0.0, 1e-3),
        "judge.bias": ("AdamW", 0.0, 1e-3),
    }


def test_every_step_and_every_process_draws_numbers_of_its_own() -> None:
    def seed(step: int, process: int) -> int:
        at = SimpleNamespace(clock=SimpleNamespace(step=step), accelerator=SimpleNamespace(process_index=process))
        _Run._reseed(SimpleNamespace(recipe=PRESET.var_recipe, **vars(at)))  # type: ignore[arg-type]
        return torch.initial_seed()

    assert len({seed(step, process) for step in range(5) for process in range(4)}) == 20
    assert seed(3, 1) == seed(3, 1)


def test_the_average_knows_its_step(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would weigh the first weights, which mean nothing, as if the run were an old one."""
    seen: list[int] = []
    update = ModelEmaV3.update
    monkeypatch.setattr(
        ModelEmaV3, "update", lambda self, model, step: (seen.append(step), update(self, model, step=step))
    )
    preset = replace(PRESET, vqvae_recipe=replace(PRESET.vqvae_recipe, epochs=1.0))
    runs.train_vqvae(str(image_folder), preset, RunSettings(tmp_path, "vqvae"))
    assert seen == list(range(preset.vqvae_recipe.num_steps(48)))


def test_every_optimiser_keeps_its_own_rate_along_the_schedule(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[type, list[float]] = {Muon: [], torch.optim.AdamW: []}
    for kind, seen in rates.items():

        def step(self: torch.optim.Optimizer, closure: None = None, seen: list[float] = seen) -> None:
            seen.append(self.param_groups[0]["lr"])

        monkeypatch.setattr(kind, "step", step)
    recipe = replace(PRESET.vqvae_recipe, epochs=1.0)
    preset = replace(PRESET, vqvae_recipe=recipe)
    runs.train_vqvae(str(image_folder), preset, RunSettings(tmp_path, "vqvae"))
    steps = recipe.num_steps(48)
    expected = [recipe.learning_rate * recipe.rate(step / steps) for step in range(steps)]
    assert rates[torch.optim.AdamW] == pytest.approx(expected)
    assert rates[Muon] == pytest.approx([MUON_RATE * rate for rate in expected])
