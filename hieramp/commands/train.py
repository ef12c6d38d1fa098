"""python -m hieramp train: from a folder of images to a model folder."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import hieramp
from hieramp.checkpoints import CONDITIONS, DIT_TOKEN, model_folder, read_config
from hieramp.commands import COMMANDS
from hieramp.commands import arguments as shared
from hieramp.commands.data_arguments import add_data_arguments, data_spec, place
from hieramp.commands.looks import load_perceptual
from hieramp.errors import UserError
from hieramp.training import minimax, runs
from hieramp.training.class_tokens import ClassTokenOptions
from hieramp.training.loop import Outcome, RunSettings, progress_of
from hieramp.training.presets import MIN_STEPS, PRESETS
from hieramp.training.vqvae import LookOptions

# of the budget of `train all`: the transformer decides most of what the pictures look like (docs/training.md)
SHARES = {"vqvae": 0.2, "var": 0.62, "class-tokens": 0.06, "classifier": 0.12}
SHAPES = {  # of the maps of class tokens with projections of their own
    "same_map": "share of the maps' variance that may be one pattern of positions; more is penalised",
    "left_out": "weight of the penalty on naming the class from what the map leaves out",
    "narrow": "weight of the penalty on narrow maps; below 0 on wide ones",
}
LOOKS = ("perceptual", "perceptual_weight", "adversarial", "adversarial_from")
LOOKING = ("vqvae", "decoder")  # the parts that have losses of how a picture looks
FREE_BYTES = 200_000_000  # less than this on the disk is not enough to begin with


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("train", help=COMMANDS["train"])
    parser.add_argument("part", choices=("all", *SHARES, "decoder", "dit"), help="all: those that a VAR needs, in turn")
    parser.add_argument(
        "--data", type=place, required=True, help="folder of class folders, a .tar of one, or a data set id"
    )
    add_data_arguments(parser)
    parser.add_argument("--preset", required=True, choices=PRESETS, help="sizes and recipe")
    parser.add_argument("--out", required=True, type=Path, help="model folder; the parts before this one are read here")
    parser.add_argument("--budget", type=shared.duration, help="time to train in all, like 20m: the schedule follows")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--warm-start", type=model_folder, metavar="MODEL", help="begin from another model's weights")
    parser.add_argument("--batch-size", type=shared.positive, help="over all devices (default: the preset's)")
    parser.add_argument("--learning-rate", type=shared.positive_number, help="at its highest (default: the preset's)")
    parser.add_argument("--seed", type=shared.whole_number, default=0)
    parser.add_argument("--device", help="cpu to leave a GPU unused")
    parser.add_argument(
        "--no-cuda-graphs", action="store_true", help="launch every operation of var, class-tokens and dit by itself"
    )
    parser.add_argument(
        "--shift",
        type=shared.whole_number,
        help="var, class-tokens: move images at random by up to so many pixels (default: the preset's)",
    )
    parser.add_argument(
        "--min-crop",
        type=shared.share,
        metavar="SHARE",
        help="random parts of images, of at least this share of their area, resized; 1: whole ones (default: the "
        "preset's)",
    )
    parser.add_argument(
        "--shift-until",
        type=shared.share,
        metavar="SHARE",
        help="of the run, from where on images are whole and stay in place (default: 0.8; a long run needs less rest)",
    )
    parser.add_argument(
        "--depth",
        type=shared.positive,
        help="var: blocks of the transformer (default: the preset's, or those of --warm-start if it has more)",
    )
    _add_look(parser.add_argument_group("vqvae, decoder"))
    tokens = parser.add_argument_group("class-tokens")
    tokens.add_argument(
        "--model",
        help="the model whose transformer they look at, an official one like var-d16 too; --out then gets the class "
        "tokens alone (default: the folder of --out)",
    )
    tokens.add_argument(
        "--kind",
        choices=("var", "dit"),
        help="what they look at (default: the VAR of --out, or its DiT where it has none)",
    )
    tokens.add_argument("--with-backbone", action="store_true", help="train the transformer as well")
    tokens.add_argument(
        "--attention",
        choices=("own", "shared"),
        default="own",
        help="projections of their own, read at one block (default), or the blocks' own, as in the paper",
    )
    own, defaults = parser.add_argument_group("class-tokens with --attention own"), ClassTokenOptions()
    own.add_argument(
        "--watch-block", type=shared.whole_number, help="the block where they look (default: two thirds up)"
    )
    own.add_argument(
        "--token-width", type=shared.positive, help="of their keys and values (default: the transformer's)"
    )
    for name, what in SHAPES.items():
        own.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            default=getattr(defaults, name),
            metavar="NUMBER",
            help=f"{what} (default: %(default)s)",
        )
    paper = parser.add_argument_group("class-tokens with --attention shared")
    paper.add_argument("--condition", choices=CONDITIONS, help="of the class, for L_cls (default: dropped)")
    paper.add_argument("--read-only", action="store_true", help="image tokens may not look at the class tokens")
    dit = parser.add_argument_group("dit with --objective minimax: fine-tune it for small sets (arXiv 2311.15529)")
    dit.add_argument("--objective", choices=("velocity", minimax.NAME), default="velocity", help="(default: velocity)")
    weights = minimax.MinimaxOptions()
    for name in ("representative", "diverse"):
        how: dict[str, Any] = {"type": float, "metavar": "WEIGHT", "default": getattr(weights, name)}
        dit.add_argument(f"--{name}-weight", help="of this term (default: %(default)s)", **how)
    dit.add_argument(
        "--memory", type=shared.positive, default=weights.memory, help="latents kept of a class (default: %(default)s)"
    )
    dit.add_argument("--whole", action="store_true", help="train all weights, not biases, norms, labels and scales")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    _check_disk(args.out)
    args.data = data_spec(args, args.out, args.warm_start)
    given = [f"--{name.replace('_', '-')}" for name in LOOKS if getattr(args, name) is not None]
    if given and args.part not in ("all", *LOOKING):
        raise UserError(f"{given[0]} is for vqvae and decoder; {args.part} draws no pixels: leave it out")
    _look(args, LookOptions())
    if args.model is not None and args.part != "class-tokens":
        raise UserError(f"--model is for class-tokens; {args.part} is trained in --out: leave it out")
    if args.kind is not None and args.part != "class-tokens":
        raise UserError(
            f"--kind is for class-tokens, which look at a VAR or a DiT; {args.part} takes none: leave it out"
        )
    if args.kind == "dit" and args.model is not None:
        raise UserError("--model names a VAR; the class token of a DiT is trained in its own folder, --out")
    if args.objective != "velocity" and args.part != "dit":
        raise UserError(f"--objective {args.objective} is of dit, not of {args.part}: leave it out")
    _class_token_options(args)  # what cannot be is told before hours of training
    for part, name, share in _plan(args):
        budget, resume = args.budget, args.resume
        if args.part == "all":
            progress = progress_of(args.out, name) if resume else None
            if progress is not None and progress >= 1:
                continue
            budget = budget and budget * share
            resume = progress is not None
        if _train(args, part, name, budget, resume).interrupted:
            break


def _plan(args: argparse.Namespace) -> list[tuple[str, str, float]]:
    """What to train in turn: the part, the name of its run, its share of the budget of `train all`."""
    if args.part != "all" and args.part not in SHARES:
        return [(args.part, args.part, 1.0)]
    tokens = DIT_TOKEN if _is_of_dit(args) else f"class_tokens-{args.condition or 'dropped'}"
    name_of = {part: part for part in SHARES} | {"class-tokens": tokens}
    return [(part, name_of[part], SHARES[part]) for part in (SHARES if args.part == "all" else [args.part])]


def _train(args: argparse.Namespace, part: str, name: str, budget: float | None, resume: bool) -> Outcome:
    preset = PRESETS[args.preset]
    settings = RunSettings(
        args.out, name, budget, resume, args.warm_start, args.device, cuda_graphs=not args.no_cuda_graphs
    )
    recipe_name = {"class-tokens": "class_token_recipe", "decoder": "vqvae_recipe"}.get(part, f"{part}_recipe")
    fine_tuned = minimax.RECIPE if args.objective == minimax.NAME else None
    recipe: Any = replace(fine_tuned or getattr(preset, recipe_name), seed=args.seed)
    if args.batch_size:
        recipe = replace(recipe, batch_size=args.batch_size)
    if args.learning_rate:
        recipe = replace(recipe, learning_rate=args.learning_rate)
    for option in ("shift_until", "min_crop"):
        if getattr(args, option) is not None:
            recipe = replace(recipe, **{option: getattr(args, option)})
    if recipe.min_crop <= 0:
        raise UserError("--min-crop is 0: give a share of the area above 0, such as 0.5; 1 leaves images whole")
    if args.shift is not None:
        recipe = replace(recipe, shift=_shift(args, preset.vqvae.image_size))
    preset = replace(preset, **{recipe_name: recipe})
    if part == "var" or args.depth:
        preset = replace(preset, var=replace(preset.var, depth=_depth(args, preset.var.depth)))
    torch.manual_seed(args.seed)  # of the starting weights
    if part == "class-tokens":
        if _is_of_dit(args):
            outcome = runs.train_dit_class_token(args.data, preset, settings, _class_token_options(args))
            _report(args, name, outcome)
            return outcome
        base = hieramp.load(args.model, "cpu", kind="var") if args.model else None
        outcome = runs.train_class_tokens(args.data, preset, settings, _class_token_options(args), base)
    elif part in LOOKING:
        train_part = {"vqvae": runs.train_vqvae, "decoder": runs.train_decoder}[part]
        look = _look(args, preset.look)
        distance = load_perceptual(look.perceptual) if look.perceptual else None
        outcome = train_part(args.data, preset, settings, look, distance)
    elif fine_tuned is not None:
        options = minimax.MinimaxOptions(args.representative_weight, args.diverse_weight, args.memory, args.whole)
        outcome = runs.train_dit(args.data, preset, settings, options)
    else:
        train = {
            "var": runs.train_var,
            "classifier": runs.train_classifier,
            "dit": runs.train_dit,
        }[part]
        outcome = train(args.data, preset, settings)
    _report(args, name, outcome)
    return outcome


def _is_of_dit(args: argparse.Namespace) -> bool:
    """Whether class tokens are for the diffusion transformer of --out: where it has no VAR, or --kind says so."""
    if args.part != "class-tokens" or args.model is not None or args.kind == "var":
        return False
    config = read_config(args.out) if (args.out / "config.json").is_file() else {}
    return args.kind == "dit" or ("dit" in config and "var" not in config)


def _class_token_options(args: argparse.Namespace) -> ClassTokenOptions:
    if args.attention == "own" and (args.read_only or args.condition == "kept"):
        given = "--read-only" if args.read_only else "--condition kept"
        raise UserError(
            f"{given} is for class tokens that share the blocks' projections: add --attention shared, or leave it out"
        )
    return ClassTokenOptions(
        attention=args.attention,
        with_backbone=args.with_backbone,
        watch_block=args.watch_block,
        width=args.token_width,
        condition=args.condition or "dropped",
        read_only=args.read_only,
        **{name: getattr(args, name) for name in SHAPES},
    )


def _add_look(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--perceptual",
        metavar="NETWORK",
        help="compare images in a network's features too: a model with a classifier, NAME=FILE or timm/NAME for timm's "
        "NAME, lpips, or none (default: the preset's)",
    )
    group.add_argument(
        "--perceptual-weight", type=float, metavar="NUMBER", help="of that, where the pixels have 1 (default: 1)"
    )
    group.add_argument(
        "--adversarial", type=float, metavar="NUMBER", help="weight of a patch discriminator, like 0.1; 0: none"
    )
    group.add_argument(
        "--adversarial-from", type=float, metavar="SHARE", help="of the run, from where on it takes part (default: 0.3)"
    )


def _look(args: argparse.Namespace, usual: LookOptions) -> LookOptions:
    """What was said of the reconstructions' look, the rest as the preset has it."""
    said = {name: getattr(args, name) for name in LOOKS if getattr(args, name) is not None}
    if said.get("perceptual") == "none":
        said["perceptual"] = None
    return replace(usual, **said)


def _shift(args: argparse.Namespace, image_size: int) -> int:
    if args.part not in ("all", "var", "class-tokens"):
        raise UserError(
            f"--shift moves the images that var and class-tokens learn from; {args.part} takes none: leave it out"
        )
    if args.shift >= image_size:
        raise UserError(f"--shift is {args.shift}, but the images have {image_size} pixels a side: give fewer")
    return args.shift


def _depth(args: argparse.Namespace, usual: int) -> int:
    if args.part not in ("all", "var"):
        raise UserError(f"--depth is the number of blocks of var; {args.part} takes none: leave it out")
    had = read_config(args.warm_start).get("var", {}).get("depth", 0) if args.warm_start else 0
    if args.depth and args.depth < had:
        raise UserError(
            f"--depth is {args.depth}, but {args.warm_start} has {had} blocks: a warm start may add some, not drop any"
        )
    return args.depth or max(usual, had)


def _check_disk(folder: Path) -> None:
    existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    if not existing.is_dir():
        raise UserError(f"--out is {folder}, but {existing} is a file: give a folder")
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES:
        raise UserError(f"only {free / 1e6:.0f} MB are free at {existing}; training needs {FREE_BYTES / 1e6:.0f} MB")


def _report(args: argparse.Namespace, name: str, outcome: Outcome) -> None:
    values = ", ".join(f"{key} {value:.4g}" for key, value in outcome.last.items() if "/" not in key)
    how = "interrupted" if outcome.interrupted else "done"
    print(f"{how} after {outcome.steps} steps in {outcome.seconds / 60:.1f} min: {values}")
    if not outcome.interrupted and outcome.steps < MIN_STEPS:
        steps = "1 step teaches" if outcome.steps == 1 else f"{outcome.steps} steps teach"
        way_out = "give it more --budget, or none" if args.budget else "train it for longer"
        shared.say(f"{steps} {name} next to nothing: {way_out}")
    print(f"weights: {args.out}/{name}*.safetensors · samples: {args.out}/samples")
    print(f"losses: tensorboard --logdir {args.out}/logs")
    if outcome.interrupted:
        print("go on with the same command and --resume")
