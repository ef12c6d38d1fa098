"""Class tokens with projections of their own: what they see, what they leave alone, that they find the object."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SIDES, TINY_VAR, build_model

import hieramp
from hieramp import official
from hieramp.analysis.faithfulness import Pictures, maps_of
from hieramp.checkpoints import fingerprint, load_part, load_strictly, read_config, save_part
from hieramp.commands.main import main
from hieramp.config import VARConfig, from_json, to_json
from hieramp.errors import UserError
from hieramp.training.class_tokens import ClassTokenOptions, OwnClassTokenObjective
from hieramp.training.tokens import Tokenizer
from hieramp.training.var import only_class_tokens
from hieramp.var.class_tokens import class_token_sizes, is_class_token, neighbourhood
from hieramp.var.model import VAR

OWN = replace(TINY_VAR, read_only_class_tokens=True, class_token_attention="own", class_token_block=1)
ALL = hieramp.Amplification(*[(0.5, 5.0)] * 3)


def own_model(**sizes: object) -> hieramp.Model:
    """With class tokens that look: their queries are large enough for maps that differ."""
    model = build_model(replace(OWN, **sizes))
    for token in model.var.cls_tokens.values():
        token.data.normal_(std=3.0, generator=torch.Generator().manual_seed(0))
    return model


def without_class_tokens(model: hieramp.Model) -> hieramp.Model:
    sizes = {"class_token_scales": (), "class_token_attention": "shared", "class_token_block": None}
    plain = build_model(replace(model.var.config, **sizes))
    plain.var.load_state_dict({k: v for k, v in model.var.state_dict().items() if not is_class_token(k)})
    return plain


@pytest.mark.parametrize("passes", [1, 4])
@pytest.mark.parametrize("guidance", [0.0, 4.0])
def test_pictures_without_amplification_are_those_of_before(guidance: float, passes: int) -> None:
    model = own_model(last_passes=passes)
    before = without_class_tokens(model).generate([0, 1, 2], [0, 1, 2], guidance=guidance)
    neutral = hieramp.Amplification(*[(0.5, 0.0)] * 3)
    for amplification in (None, neutral):
        assert torch.equal(model.generate([0, 1, 2], [0, 1, 2], amplification, guidance=guidance).images, before.images)
    *_, last = model.steps([0, 1, 2], [0, 1, 2], guidance=guidance, return_attention=True)
    assert torch.equal(last.image, before.images)


@pytest.mark.parametrize("passes", [1, 4])
def test_a_drawing_has_the_maps_of_one_pass_over_its_tokens(passes: int) -> None:
    """Step by step with the cache, and in one pass with the label hidden: the same maps and the same answers."""
    model = own_model(last_passes=passes)
    for guidance in (0.0, 4.0):
        steps = list(model.steps([1, 2], [0, 1], guidance=guidance, return_attention=True))
        tokens = tuple(step.tokens for step in steps)
        maps = maps_of(model, Pictures(steps[-1].image, torch.tensor([1, 2]), tokens)).by_family["class tokens"]
        with torch.no_grad():
            inputs = model.vqvae.teacher_input(list(tokens))
            answers = model.var.answer(model.var.read_all(model.var.watched_input(inputs)))
        for step, m_BL in zip(steps, maps, strict=True):
            assert torch.allclose(step.saliency.flatten(1), m_BL, atol=1e-5)
            assert torch.allclose(step.class_logits, answers[:, step.scale], atol=1e-4)
        assert maps[-1].std() > 1e-3


def test_maps_do_not_know_the_class() -> None:
    """Given the same tokens, another class has the same maps."""
    model = own_model()
    given = model.generate([0], [0]).tokens
    cat, dog = (model.generate([label], [0], prefix_tokens=given).saliency for label in (1, 2))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(cat, dog, strict=True))


def test_both_halves_are_amplified_by_the_unconditional_halfs_map() -> None:
    model = own_model()
    for step in model.steps([1, 2], [0, 1], ALL):
        for m_BL in step.rows.result.ranked_maps:
            assert torch.equal(m_BL[:2], m_BL[2:])
            assert torch.allclose(m_BL[:2], step.saliency.flatten(1))


@pytest.mark.parametrize("block", [0, 1, 3])
def test_any_block_is_amplified_by_the_map_of_the_watched_one(block: int) -> None:
    """Also one below it: the map is then what it would be with nothing amplified."""
    model = own_model()
    off, on = (model.generate([1, 2], [0, 1], amplification) for amplification in (None, replace(ALL, blocks=(block,))))
    assert torch.equal(on.saliency[1], off.saliency[1])
    assert any(not torch.equal(a, b) for a, b in zip(on.tokens, off.tokens, strict=True))


def test_they_draw_in_double_precision_and_in_half() -> None:
    model = own_model()
    for dtype in (torch.float64, torch.bfloat16):
        drawing = model.to("cpu", dtype).generate([1, 2], [0, 1], ALL)
        assert torch.isfinite(drawing.images).all() and torch.isfinite(drawing.saliency[-1]).all()


def test_neighbours_are_averaged_within_a_map() -> None:
    weights = neighbourhood(4)
    assert torch.allclose(weights.sum(1), torch.ones(16))
    spot = torch.zeros(16)
    spot[5] = 1  # row 1, column 1
    wanted = torch.tensor([[1.0, 2, 1, 0], [2, 4, 2, 0], [1, 2, 1, 0], [0, 0, 0, 0]]) / 16
    assert torch.allclose((weights @ spot).view(4, 4)[1:, 1:], wanted[1:, 1:])
    assert torch.equal(neighbourhood(3), torch.eye(9))


def test_calibrated_they_see_tokens_of_mean_0_and_spread_1() -> None:
    """At each scale by itself, whatever its image tokens have in common."""
    attention, width = own_model().var.class_attention, TINY_VAR.width
    common = torch.arange(len(attention.scale_L) * width).view(-1, width).sin()  # of each position
    image_NLC = 3 * common + torch.randn(200, *common.shape, generator=torch.Generator().manual_seed(0))
    attention.calibrate(image_NLC)
    seen: list[torch.Tensor] = []
    attention.key.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    attention(torch.zeros(1, OWN.own_width), image_NLC)
    for part in seen[0].split([side * side for side in SIDES], 1):
        assert torch.allclose(part.mean((0, 1)), torch.zeros(width), atol=1e-3)
        assert torch.allclose(part.std((0, 1)), torch.ones(width), atol=1e-2)


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny model, with class tokens of their own in a file beside the folder."""
    shutil.copytree(model_folder, tmp_path / "model")
    tokens = {key: value for key, value in own_model().var.state_dict().items() if is_class_token(key)}
    save_part(tmp_path, "looking", tokens)
    return tmp_path / "model"


def test_the_file_tells_what_kind_they_are(folder: Path) -> None:
    file = folder.parent / "looking.safetensors"
    loaded = hieramp.load(folder, "cpu", class_tokens=file).var
    assert loaded.config == replace(OWN, class_token_width=TINY_VAR.width)
    state = loaded.state_dict()
    assert class_token_sizes(state)["class_token_block"] == 1
    assert hieramp.load(folder, "cpu").var.config.class_token_attention == "shared"
    assert fingerprint(load_part(folder, "var")) == fingerprint({k: state[k] for k in load_part(folder, "var")})


def test_they_load_on_official_checkpoints() -> None:
    """As of `var` with its own class tokens in one state dict."""
    state = build_model(replace(OWN, num_heads=1)).var.state_dict()
    sizes = official._var_config(state, SIDES)
    assert sizes == replace(OWN, num_heads=1, class_token_width=64)
    load_strictly(VAR(sizes), state, "the checkpoint")


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ValueError, match="only read"):
        replace(OWN, read_only_class_tokens=False)
    with pytest.raises(ValueError, match="class_token_block is 4: there are blocks 0 to 3"):
        replace(OWN, class_token_block=4)
    with pytest.raises(ValueError, match="class_token_width is 15: give a multiple of the 2 heads"):
        replace(OWN, class_token_width=15)
    with pytest.raises(ValueError, match="give shared or own"):
        replace(OWN, class_token_attention="mine")
    old = {k: v for k, v in to_json(TINY_VAR).items() if not k.startswith("class_token_") or k.endswith("scales")}
    assert from_json(VARConfig, old) == TINY_VAR


def planted(count: int, generator: torch.Generator) -> tuple[Pictures, torch.Tensor]:
    """Token maps of noise with an object, 4 × 4 of the finest 8 × 8 positions, somewhere: its code is its class.

    Returns them, and where the object lies on the finest scale, (N, 64) bool.
    """
    labels = torch.randint(0, 4, (count,), generator=generator)
    top, left = (torch.randint(0, 5, (count, 1, 1), generator=generator) for _ in range(2))
    tokens = []
    for side in SIDES:
        at = (torch.arange(side) + 0.5) * 8 / side
        rows, columns = at[:, None], at[None]
        inside_NHW = (rows > top) & (rows < top + 4) & (columns > left) & (columns < left + 4)
        noise_NHW = torch.randint(4, 64, inside_NHW.shape, generator=generator)
        tokens.append(torch.where(inside_NHW, labels[:, None, None], noise_NHW).flatten(1))
    return Pictures(torch.zeros(count, 3, 32, 32, dtype=torch.uint8), labels, tuple(tokens)), inside_NHW.flatten(1)


def overlap(model: hieramp.Model, pictures: Pictures, truth_NL: torch.Tensor) -> float:
    """Mean intersection over union of the object and as many of the most salient positions of the finest scale."""
    m_NL = maps_of(model, pictures).by_family["class tokens"][-1]
    found_NL = torch.zeros_like(truth_NL).scatter_(1, m_NL.topk(int(truth_NL[0].sum())).indices, True)
    return float(((found_NL & truth_NL).sum(1) / (found_NL | truth_NL).sum(1)).mean())


def test_they_find_a_planted_object() -> None:
    """What differs between classes is in one place, and its place tells nothing: the right map is known exactly."""
    generator = torch.Generator().manual_seed(0)
    model = build_model(replace(OWN, class_token_block=0))  # where nothing has been mixed at random yet
    only_class_tokens(model.var)
    pictures, _ = planted(400, generator)
    with torch.no_grad():
        inputs = model.vqvae.teacher_input(list(pictures.tokens))
        image_NLC = torch.cat([model.var.watched_input(part) for part in inputs.split(100)])
    model.var.class_attention.calibrate(image_NLC)
    objective = OwnClassTokenObjective(model.var, Tokenizer(model.vqvae), ClassTokenOptions())
    unseen, truth_NL = planted(100, generator)
    before = overlap(model, unseen, truth_NL)
    optimizer = torch.optim.AdamW([p for p in model.var.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(100):
        rows = torch.randint(0, 400, (32,), generator=generator)
        objective.looking(image_NLC[rows], pictures.labels[rows])["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert before < 0.35 and overlap(model, unseen, truth_NL) > 0.5


TRAIN = ["train", "--preset", "tiny"]


def test_training_makes_a_small_file_and_leaves_the_backbone(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import tiny_train

    assert tiny_train.PRESET.var.depth == 2
    common = ["--data", str(image_folder), "--out", str(tmp_path)]
    for part in ("vqvae", "var"):
        main([*TRAIN, part, *common])
    before = load_part(tmp_path, "var")
    main([*TRAIN, "class-tokens", *common, "--watch-block", "1", "--token-width", "16", "--shift", "2"])
    about = read_config(tmp_path)["class_tokens"]
    assert (about["attention"], about["block"], about["width"], about["read_only"]) == ("own", 1, 16, True)
    assert fingerprint(load_part(tmp_path, "var")) == fingerprint(before)
    assert (tmp_path / "class_tokens-dropped.safetensors").stat().st_size < 20_000
    loaded = hieramp.load(tmp_path, "cpu")
    assert loaded.var.config.own_class_tokens and loaded.var.class_attention.mean_SC.abs().max() > 0
    tokens = load_part(tmp_path, "class_tokens-dropped")
    main([*TRAIN, "class-tokens", *common, "--watch-block", "1", "--token-width", "16", "--with-backbone"])
    assert "trained on another" not in caplog.text  # they were written anew with it
    assert fingerprint(load_part(tmp_path, "var")) != fingerprint(before)
    assert fingerprint(load_part(tmp_path, "class_tokens-dropped")) != fingerprint(tokens)
    assert torch.isfinite(hieramp.load(tmp_path, "cpu").generate([0, 1], [0, 0], ALL).images).all()


def test_an_official_model_gets_class_tokens_from_images_of_some_of_its_classes(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny one in its place, with two of its classes in the images; its own files are not touched."""
    import tiny_train

    from hieramp import loading

    assert tiny_train.PRESET
    official = replace(build_model(replace(TINY_VAR, class_token_scales=())), name="var-d16")
    official.class_names = ("blue", "cat", "red", "ship")
    monkeypatch.setattr(loading, "_load_official", lambda *_: official)
    tokens, common = tmp_path / "tokens", ["--data", str(image_folder), "--out", str(tmp_path / "tokens")]
    main([*TRAIN, "class-tokens", "--model", "var-d16", *common, "--watch-block", "1"])
    assert not list(tokens.glob("var*")) and not list(tokens.glob("vqvae*"))
    assert read_config(tokens)["class_tokens"]["of"] == "var-d16"
    plain = hieramp.load("var-d16", "cpu")
    assert not plain.has_class_tokens
    for wanted in (tokens, tokens / "class_tokens-dropped.safetensors"):
        ours = hieramp.load("var-d16", "cpu", class_tokens=wanted)
        assert ours.var.config.own_class_tokens and ours.var.class_head.out_features == 4
        assert torch.equal(ours.generate([1, 2], [0, 1]).images, plain.generate([1, 2], [0, 1]).images)
        assert not torch.equal(ours.generate([1], [0], ALL).images, plain.generate([1], [0]).images)
    with pytest.raises(UserError, match="var-d16 brings no class tokens of its own: give a class_tokens-"):
        hieramp.load("var-d16", "cpu", class_tokens="dropped")
    official.class_names = ("blue", "cat", "dog", "ship")
    with pytest.raises(SystemExit):
        main([*TRAIN, "class-tokens", "--model", "var-d16", *common, "--watch-block", "1"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--read-only"], "--read-only is for class tokens that share the blocks' projections"),
        (["--condition", "kept"], "--condition kept is for class tokens that share"),
        (["--watch-block", "9"], "class_token_block is 9: there are blocks 0 to 3"),
    ],
)
def test_bad_settings_are_told(
    folder: Path, image_folder: Path, given: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import tiny_train

    assert tiny_train.PRESET
    data = image_folder.parent / "four"
    for name in ("airplane", "cat", "dog", "frog"):
        if not (data / name).is_dir():
            shutil.copytree(image_folder / "train" / "red", data / name)
    with pytest.raises(SystemExit) as stopped:
        main([*TRAIN, "class-tokens", "--data", str(data), "--out", str(folder), *given])
    assert stopped.value.code == 2 and told in capsys.readouterr().err


def test_a_new_model_says_what_kind_it_has() -> None:
    state = VAR(OWN).state_dict()
    assert {key for key in state if key.startswith("cls_attn.1.")} == {
        f"cls_attn.1.{name}" for name in ("key.weight", "value.weight", "value.bias", "mean_SC", "spread_SC")
    }
    assert not any("cls_attn" in key for key in VAR(TINY_VAR).state_dict())
