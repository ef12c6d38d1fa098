"""The trainings: from an image set to the parts of a model folder."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from hieramp.amplification.settings import OFF
from hieramp.checkpoints import (
    DIT_TOKEN,
    built,
    class_token_part,
    class_token_variants,
    has_other_base,
    has_part,
    load_part,
    load_strictly,
    parts_on,
    read_config,
    record_bases,
    save_part,
    write_config,
)
from hieramp.class_names import ids_of, keys_of_both
from hieramp.classifier import Classifier
from hieramp.config import DiTClassTokenConfig, DiTConfig, VARConfig, VQVAEConfig, from_json, to_json
from hieramp.data import DataSource, DataSpec, decode, described_classes, open_source
from hieramp.devices import autocast_bf16_if_fast, resolve_device, supports_fast_bf16
from hieramp.diffusion.class_token import DiTClassToken
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import LatentBasis, VQLatents, basis_of, fit_basis, hash_of
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.generation.loop import Request, draw
from hieramp.generation.model import Model
from hieramp.generation.sampling import Sampling
from hieramp.perceptual import Distance
from hieramp.training.class_tokens import ClassTokenOptions, OwnClassTokenObjective
from hieramp.training.classifier import ClassifierObjective
from hieramp.training.dit import DiTObjective
from hieramp.training.dit_class_token import DiTClassTokenObjective
from hieramp.training.loop import Objective, Outcome, RunSettings, train
from hieramp.training.minimax import NAME as MINIMAX
from hieramp.training.minimax import MinimaxObjective, MinimaxOptions, folded
from hieramp.training.presets import Preset
from hieramp.training.recipe import Recipe
from hieramp.training.tokens import Tokenizer
from hieramp.training.var import ClassTokenObjective, VARObjective, only_class_tokens
from hieramp.training.vqvae import DecoderObjective, LookOptions, VQVAEObjective, reconstruction_sheet
from hieramp.var.class_tokens import class_token_sizes, is_class_token
from hieramp.var.growth import grown
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

SHEET_IMAGES = 10
DECODER = ("decoder.", "post_quant_conv.")  # names of the weights that come after the tokens
FITTED_IMAGES = 1024  # that the basis of the latents is fitted to
CALIBRATION_IMAGES = 400
DIT_CALIBRATION_IMAGES = 100  # at every span of t
CALIBRATION_NUMBERS = 2**28  # no more images than have so many numbers, a GB


def load_vqvae(folder: Path) -> VQVAE:
    """The VQ-VAE of a model folder, in evaluation mode.

    Raises:
        UserError: the folder has none, or its weights do not fit its config.
    """
    config = _config_with(folder, "vqvae")
    sizes = from_json(VQVAEConfig, config["vqvae"])
    return built(lambda: VQVAE(sizes), load_part(folder, "vqvae"), str(folder / "vqvae.safetensors")).eval()


def _config_with(folder: Path, part: str) -> dict:
    config = read_config(folder) if folder.is_dir() else {}
    if part not in config:
        raise UserError(f"{folder} has no {part} yet: run python -m hieramp train {part} --out {folder} first")
    return config


def train_vqvae(
    data: str | DataSpec,
    preset: Preset,
    settings: RunSettings,
    look: LookOptions | None = None,
    distance: Distance | None = None,
) -> Outcome:
    """Images to vqvae.safetensors; `distance` is the perceptual one that `look` asks for."""
    source = open_source(data)
    objective = VQVAEObjective(VQVAE(preset.vqvae), look or preset.look, distance)
    sheet = decode(source, preset.vqvae.image_size, limit=SHEET_IMAGES).images
    if settings.warm_start:
        load_strictly(objective.model, load_vqvae(settings.warm_start).state_dict(), str(settings.warm_start))
        objective.codebook.keep(preset.vqvae_recipe.batch_size)

    def write(model: Module, outcome: Outcome) -> None:
        save_part(settings.folder, "vqvae", model.state_dict())
        _write_about(settings, source, outcome, preset.vqvae_recipe, vqvae=to_json(preset.vqvae))

    def sample(model: VQVAE) -> Image.Image:
        return reconstruction_sheet(model, sheet)

    return train(objective, source, preset.vqvae.image_size, preset.vqvae_recipe, settings, sample, write)


def train_decoder(
    data: str | DataSpec,
    preset: Preset,
    settings: RunSettings,
    look: LookOptions | None = None,
    distance: Distance | None = None,
) -> Outcome:
    """Images and the folder's VQ-VAE to one whose decoder alone is another: every token, and what was trained on
    them, stays as it is.

    Raises:
        UserError: the folder has no VQ-VAE.
    """
    source = open_source(data)
    vqvae = load_vqvae(settings.folder)
    before = hash_of(vqvae)
    objective = DecoderObjective(vqvae, look or preset.look, distance)
    sheet = decode(source, vqvae.config.image_size, limit=SHEET_IMAGES).images

    def write(model: Module, outcome: Outcome) -> None:
        save_decoder(settings.folder, model.state_dict(), before)
        _write_about(settings, source, outcome, preset.vqvae_recipe)

    def sample(model: VQVAE) -> Image.Image:
        return reconstruction_sheet(model, sheet)

    return train(objective, source, vqvae.config.image_size, preset.vqvae_recipe, settings, sample, write)


def save_decoder(folder: Path, state: dict[str, Tensor], before: Tensor) -> None:
    """Write a VQ-VAE that differs in its decoder from the one that the folder has, whose hash is `before`.

    What stands on that one stands on this one: the transformer's fingerprint of it, and the latents of a diffusion
    transformer. Encoder, codes and φ are written as they were, to the bit.
    """
    kept = {key: value for key, value in load_part(folder, "vqvae").items() if not key.startswith(DECODER)}
    new = kept | {key: value for key, value in state.items() if key.startswith(DECODER)}
    standing = [part for part in parts_on(folder, "vqvae") if not has_other_base(folder, part)]
    save_part(folder, "vqvae", new)
    record_bases(folder, standing, anew=True)
    if has_part(folder, "latents"):
        latents = load_part(folder, "latents")
        if torch.equal(latents["vqvae"].cpu(), before):
            latents["vqvae"] = hash_of(load_vqvae(folder))
            save_part(folder, "latents", latents, torch.float32)


def train_var(data: str | DataSpec, preset: Preset, settings: RunSettings) -> Outcome:
    """Images and the folder's VQ-VAE to var.safetensors; a warm start may begin from a transformer of fewer blocks."""
    source = open_source(data)
    vqvae = load_vqvae(settings.folder)
    config = replace(preset.var, num_classes=len(source.class_names))
    _check_fits(vqvae.config, config, settings.folder)
    var = VAR(config)
    var.initialize()
    if settings.warm_start:
        _config_with(settings.warm_start, "var")
        load_strictly(var, grown(load_part(settings.warm_start, "var"), config), str(settings.warm_start))

    def write(model: Module, outcome: Outcome) -> None:
        save_part(settings.folder, "var", model.state_dict())
        _write_about(settings, source, outcome, preset.var_recipe, var=to_json(config))

    recipe = preset.var_recipe
    objective = VARObjective(var, Tokenizer(vqvae, recipe.shift), recipe.shift_until)
    return train(objective, source, vqvae.config.image_size, recipe, settings, _class_sheet(vqvae), write)


def train_class_tokens(
    data: str | DataSpec,
    preset: Preset,
    settings: RunSettings,
    options: ClassTokenOptions,
    base: Model | None = None,
) -> Outcome:
    """The folder's VQ-VAE and VAR to class_tokens-….safetensors, a small file; with the backbone, var as well.

    With `base`, they are another model's, an official checkpoint's for one: the folder gets the class tokens alone, for
    `hieramp.load(base.name, class_tokens=folder)`. The images may then be of some of the model's classes.

    They become the folder's default; those of the other condition stay beside them, unless the backbone changed.
    A warm start begins from another model's tokens of the same kind and condition, where it has some.

    Raises:
        UserError: the folder has no VQ-VAE or VAR, the data has other classes, the VAR has no such block, or the class
            tokens to begin from are of another kind.
    """
    source = open_source(data)
    if base is None:
        vqvae = load_vqvae(settings.folder)
        plain = from_json(VARConfig, _config_with(settings.folder, "var")["var"])
        _check_classes(source, plain.num_classes, settings.folder)
        backbone = load_part(settings.folder, "var")
    else:
        if options.with_backbone:
            raise UserError(f"--with-backbone would change {base.name} itself: train in its folder, without --model")
        vqvae, source = base.vqvae, source.among(base.class_ids)
        plain = replace(base.var.config, class_token_scales=(), read_only_class_tokens=False)
        plain = replace(plain, class_token_attention="shared", class_token_block=None, class_token_width=None)
        backbone = {key: value for key, value in base.var.state_dict().items() if not is_class_token(key)}
    config = _with_class_tokens(plain, options)
    var, condition = VAR(config), options.condition
    first = {key: value for key, value in var.state_dict().items() if is_class_token(key)}
    if settings.warm_start and condition in class_token_variants(settings.warm_start):
        first = load_part(settings.warm_start, class_token_part(settings.warm_start, condition))
        _check_same_kind(class_token_sizes(first), config, settings.warm_start)
    load_strictly(var, first | backbone, f"the VAR in {settings.folder if base is None else base.name}")
    if not options.with_backbone:
        only_class_tokens(var)
    tokenizer = Tokenizer(vqvae, preset.class_token_recipe.shift)
    objective: Objective = ClassTokenObjective(var, tokenizer, condition, with_backbone=options.with_backbone)
    if config.own_class_tokens:
        objective = OwnClassTokenObjective(var, tokenizer, options, preset.class_token_recipe.shift_until)
        if not settings.resume:
            _calibrate(var, tokenizer, source, settings)

    def write(model: Module, outcome: Outcome) -> None:
        tokens, rest = _split(model.state_dict())
        about: dict[str, Any] = {"condition": condition, "with_backbone": options.with_backbone}
        about |= {} if base is None else {"of": base.name}
        about |= {"read_only": config.read_only_class_tokens, "attention": config.class_token_attention}
        if config.own_class_tokens:
            about |= {"block": config.watched_block, "width": config.own_width}
            about |= {name: getattr(options, name) for name in ("same_map", "left_out", "narrow")}
        if options.with_backbone:
            save_part(settings.folder, "var", rest, followed_by=[f"class_tokens-{condition}"])
        known = (settings.folder / "config.json").is_file()
        variants = class_token_variants(settings.folder) if known and not options.with_backbone else {}
        save_part(settings.folder, f"class_tokens-{condition}", tokens)
        entries: dict[str, dict[str, Any]] = {
            "class_tokens": about,
            "class_token_variants": variants | {condition: about},
        }
        _write_about(settings, source, outcome, preset.class_token_recipe, **entries)

    return train(
        objective, source, vqvae.config.image_size, preset.class_token_recipe, settings, _class_sheet(vqvae), write
    )


def train_dit_class_token(
    data: str | DataSpec, preset: Preset, settings: RunSettings, options: ClassTokenOptions
) -> Outcome:
    """The folder's DiT, VQ-VAE and basis to dit_class_token.safetensors, a small file: maps for `map_from`.

    Raises:
        UserError: the folder has no DiT, the data has other classes, or something is asked for that only class tokens
            of a VAR have.
    """
    if options.attention != "own" or options.with_backbone or settings.warm_start:
        raise UserError(
            "the class token of a DiT has projections of its own and begins anew: leave out --attention shared, "
            "--with-backbone and --warm-start"
        )
    folder = settings.folder
    vqvae = load_vqvae(folder)
    sizes = from_json(DiTConfig, _config_with(folder, "dit")["dit"])
    source = open_source(data).reordered(ids_of(read_config(folder)))
    dit, basis = DiT(sizes), basis_of(load_part(folder, "latents"))
    load_strictly(dit, load_part(folder, "dit"), f"the DiT in {folder}")
    basis.check_belongs(vqvae, f"the DiT in {folder}")
    block = (2 * sizes.depth - 1) // 3 if options.watch_block is None else options.watch_block
    if block >= sizes.depth:
        raise UserError(f"watch block is {block}: the DiT in {folder} has blocks 0 to {sizes.depth - 1}")
    config = DiTClassTokenConfig(sizes.width, options.width or sizes.width, sizes.num_heads, sizes.num_classes, block)
    size, recipe = vqvae.config.image_size, preset.class_token_recipe
    objective = DiTClassTokenObjective(DiTClassToken(config), dit, vqvae, basis, options)
    if not settings.resume:
        objective.calibrate(decode(source, size, limit=DIT_CALIBRATION_IMAGES).images)

    def write(model: Module, outcome: Outcome) -> None:
        save_part(folder, DIT_TOKEN, model.state_dict(), torch.float32)
        told = {name: getattr(options, name) for name in ("same_map", "left_out", "narrow")}
        _write_about(settings, source, outcome, recipe, told, **{DIT_TOKEN: to_json(config)})

    return train(objective, source, size, recipe, settings, None, write)


def _with_class_tokens(plain: VARConfig, options: ClassTokenOptions) -> VARConfig:
    config = replace(plain, class_token_scales=tuple(range(len(plain.scales))))
    if options.attention == "shared":
        return replace(config, read_only_class_tokens=options.read_only)
    return replace(
        config,
        read_only_class_tokens=True,
        class_token_attention="own",
        class_token_block=(2 * config.depth - 1) // 3 if options.watch_block is None else options.watch_block,
        class_token_width=options.width or config.width,
    )


def _check_same_kind(sizes: dict[str, Any], config: VARConfig, folder: Path) -> None:
    for name in ("class_token_attention", "class_token_block", "class_token_width"):
        if name in sizes or config.own_class_tokens:
            theirs, ours = sizes.get(name, "shared"), getattr(config, name)
            if theirs != ours:
                raise UserError(
                    f"{name} of the class tokens in {folder} is {theirs}, here it is {ours}: leave out --warm-start"
                )


@torch.no_grad()
def _calibrate(var: VAR, tokenizer: Tokenizer, source: DataSource, settings: RunSettings) -> None:
    """Show class tokens of their own what image tokens look like on average, before they learn."""
    on_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    device = torch.device("cpu" if on_cpu else "cuda")
    per_image = var.config.width * var.scales.num_tokens
    count = max(50, min(CALIBRATION_IMAGES, CALIBRATION_NUMBERS // per_image))
    images = decode(source, tokenizer.vqvae.config.image_size, limit=count).images
    var.to(device)
    with autocast_bf16_if_fast(device):
        parts = [var.watched_input(tokenizer(part.to(device)).inputs_BLC).float() for part in images.split(50)]
    var.class_attention.calibrate(torch.cat(parts))


def train_classifier(data: str | DataSpec, preset: Preset, settings: RunSettings) -> Outcome:
    """Images to classifier.safetensors."""
    source = open_source(data)
    config = replace(preset.classifier, num_classes=len(source.class_names))
    classifier = Classifier(config).to(memory_format=torch.channels_last)
    if settings.warm_start:
        _config_with(settings.warm_start, "classifier")
        load_strictly(classifier, load_part(settings.warm_start, "classifier"), str(settings.warm_start))

    def write(model: Module, outcome: Outcome) -> None:
        save_part(settings.folder, "classifier", model.state_dict())
        _write_about(settings, source, outcome, preset.classifier_recipe, classifier=to_json(config))

    objective = ClassifierObjective(classifier)
    return train(objective, source, config.image_size, preset.classifier_recipe, settings, None, write)


def train_dit(
    data: str | DataSpec, preset: Preset, settings: RunSettings, minimax: MinimaxOptions | None = None
) -> Outcome:
    """Images and the folder's VQ-VAE to dit.safetensors, and latents.safetensors: the basis that it was trained in.

    With `minimax` the DiT of the warm start is fine-tuned, its VQ-VAE and classifier copied where the folder has none.
    """
    source = open_source(data)
    if minimax:
        _copy_rest(settings)
    vqvae = load_vqvae(settings.folder)
    size = vqvae.config.image_size
    if settings.warm_start:
        before = from_json(DiTConfig, _config_with(settings.warm_start, "dit")["dit"])
        basis = basis_of(load_part(settings.warm_start, "latents"))
        basis.check_belongs(vqvae, f"the DiT in {settings.warm_start}")
    else:
        basis = fit_basis(vqvae, decode(source, size, limit=FITTED_IMAGES).images)
    config = replace(
        preset.dit,
        side=vqvae.config.sides[-1],
        channels=basis.num_components,
        num_classes=len(source.class_names),
    )
    dit = DiT(config)
    dit.initialize()
    if settings.warm_start:
        if replace(before, dropout=config.dropout) != config:
            raise UserError(f"the DiT in {settings.warm_start} has other sizes ({before}) than this one ({config})")
        load_strictly(dit, load_part(settings.warm_start, "dit"), str(settings.warm_start))
    recipe = preset.dit_recipe
    objective = MinimaxObjective(dit, vqvae, basis, minimax) if minimax else DiTObjective(dit, vqvae, basis)

    def write(model: Module, outcome: Outcome) -> None:
        save_part(settings.folder, "latents", basis.state_dict(), torch.float32)
        save_part(settings.folder, "dit", folded(model).state_dict())
        told = {"objective": MINIMAX, **asdict(minimax)} if minimax else {}
        _write_about(settings, source, outcome, recipe, told, dit=to_json(config))

    sample = _diffusion_sheet(vqvae, basis, source.class_names)
    return train(objective, source, size, recipe, settings, sample, write)


def _copy_rest(settings: RunSettings) -> None:
    """What a fine-tuned DiT needs beside it, from the warm start to a folder that has no VQ-VAE.

    Raises:
        UserError: there is no warm start, or it is the folder itself.
    """
    before, folder = settings.warm_start, settings.folder
    if before is None:
        raise UserError("minimax fine-tunes a trained DiT: name its model with --warm-start")
    if before.resolve() == folder.resolve():
        raise UserError(f"--out and --warm-start are both {folder}: the fine-tuned DiT needs a folder of its own")
    if "vqvae" in (read_config(folder) if (folder / "config.json").is_file() else {}):
        return
    known = _config_with(before, "vqvae")
    for part in [part for part in ("vqvae", "classifier") if part in known]:
        save_part(folder, part, load_part(before, part))
    kept = {name: known[name] for name in ("vqvae", "classifier", "class_names", "wnids") if name in known}
    write_config(folder, **kept)


def _write_about(
    settings: RunSettings,
    source: DataSource,
    outcome: Outcome,
    recipe: Recipe,
    told: dict[str, Any] | None = None,
    **sizes: dict[str, Any],
) -> None:
    """Put a part's sizes into config.json, and how it was trained, by the runs that it was begun from too."""
    known = read_config(settings.folder) if (settings.folder / "config.json").exists() else {}
    device = resolve_device(settings.device)
    cpu = f"{os.cpu_count()} CPU cores{', bfloat16' if supports_fast_bf16(device) else ''}"
    trained: dict[str, Any] = {
        "steps": outcome.steps,
        "seconds": round(outcome.seconds),
        "batch_size": recipe.batch_size,
        "seed": recipe.seed,
        "images": len(source),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "torch": torch.__version__,
        **(told or {}),
    }
    before = _runs_before(known, settings)
    if before:
        trained["before"] = before
    parts = known.get("trained", {}) | {settings.part: trained}
    write_config(settings.folder, **sizes, **described_classes(source.class_names), trained=parts)


def _runs_before(known: dict[str, Any], settings: RunSettings) -> list[dict[str, Any]]:
    """The runs behind the weights that this one was begun from, oldest first."""
    if settings.warm_start is None:
        return known.get("trained", {}).get(settings.part, {}).get("before", []) if settings.resume else []
    earlier = read_config(settings.warm_start).get("trained", {}).get(settings.part)
    return [*earlier.pop("before", []), earlier] if earlier else []


def _split(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tokens = {key: value for key, value in state.items() if is_class_token(key)}
    return tokens, {key: value for key, value in state.items() if key not in tokens}


def _check_fits(vqvae: VQVAEConfig, var: VARConfig, folder: Path) -> None:
    for name in ("sides", "num_codes", "code_dim"):
        ours, theirs = getattr(var, name), getattr(vqvae, name)
        if ours != theirs:
            raise UserError(
                f"{name} of the VQ-VAE in {folder} is {theirs}, of this preset {ours}: use one preset for both"
            )


def _check_classes(source: DataSource, num_classes: int, folder: Path) -> None:
    found = len(source.class_names)
    if found != num_classes:
        raise UserError(f"{source.name} has {found} classes, the VAR in {folder} {num_classes}: give its own data")
    ours, theirs = keys_of_both(source.class_names, ids_of(read_config(folder)))
    if sorted(ours) != sorted(theirs):
        odd = next(name for name, key in zip(source.class_names, ours) if key not in theirs)
        raise UserError(
            f"{source.name} has a class {odd!r}, which the VAR in {folder} does not know: give its own data"
        )


def _class_sheet(vqvae: VQVAE, per_class: int = 4) -> Callable[[VAR], Image.Image]:
    """Draws a row of samples for each of the first ten classes."""

    def sample(var: VAR) -> Image.Image:
        num_classes = min(10, var.config.num_classes)
        labels = tuple(label for label in range(num_classes) for _ in range(per_class))
        request = Request(labels, tuple(range(per_class)) * num_classes, (OFF,) * len(labels), Sampling())
        *_, last = draw(vqvae, var, request)
        return to_pil_image(make_grid(last.image.cpu(), nrow=per_class, padding=1))

    return sample


def _diffusion_sheet(
    vqvae: VQVAE, basis: LatentBasis, class_names: tuple[str, ...], per_class: int = 4
) -> Callable[[DiT], Image.Image]:
    """The same of a diffusion transformer, in few steps."""

    def sample(dit: DiT) -> Image.Image:
        labels = [label for label in range(min(10, len(class_names))) for _ in range(per_class)]
        seeds = list(range(per_class)) * (len(labels) // per_class)
        model = DiffusionModel(VQLatents(vqvae.to(dit.device), basis), dit.eval(), class_names)
        images = model.generate(labels, seeds, steps=12).images
        return to_pil_image(make_grid(images.cpu(), nrow=per_class, padding=1))

    return sample
