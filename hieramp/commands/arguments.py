"""Arguments that several commands share."""

import argparse
import re
import sys
from dataclasses import replace
from typing import Any

import torch

import hieramp
from hieramp import Amplification, Model
from hieramp.checkpoints import DEFAULT_MODEL, shipped
from hieramp.generation.sampling import PLAIN, Sampling, Temperature, by_stage
from hieramp.scales import STAGES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNITS = {"s": 1, "m": 60, "h": 3600}


def add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    models = f"{', '.join(shipped())}, a model folder, or var-d16 … var-d36"
    group.add_argument("--model", default=DEFAULT_MODEL, help=models)
    group.add_argument("--var-checkpoint", metavar="FILE", help="transformer weights, such as an HierAmp fine-tune")
    group.add_argument(
        "--class-tokens", metavar="WHICH", help="dropped, kept (how they were trained), or a file of others"
    )
    group.add_argument(
        "--classes-from", metavar="PLACE", help="names of a VAR's own classes: its image folder, or a list in a file"
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU where there is one)")
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="of the transformer (default: float32)")


def add_class(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--class", dest="class_name", required=True, metavar="NAME", help="class name, number or wnid")


def add_drawing(
    parser: argparse.ArgumentParser, seed_help: str = "of the first image; the next have seed+1, …"
) -> None:
    group = parser.add_argument_group("drawing")
    group.add_argument("--seed", type=whole_number, default=0, help=seed_help)
    group.add_argument(
        "--stages", default="all", help="coarse=50%%:5,mid=off,fine=30%%:2 (share:strength), or a schedule's name"
    )
    group.add_argument("--mode", choices=("logit", "attention"), default="logit", help="add β or multiply by γ")
    group.add_argument(
        "--where",
        choices=("salient", "least", "random"),
        default="salient",
        help="positions amplified; others are controls",
    )
    group.add_argument("--blocks", type=block_list, help="blocks to amplify, like 4,5 (default: depth - 2)")
    group.add_argument("--guidance", type=float, default=4.0, help="strength at the last scale (default: 4)")
    group.add_argument(
        "--guidance-power",
        type=float,
        default=1.0,
        metavar="P",
        help="how guidance grows with the scale: 1 is evenly (the default), 0.5 with its root, 0 the same for all",
    )
    group.add_argument("--top-k", type=int, default=900, help="0 for off")
    group.add_argument("--top-p", type=float, default=0.95, help="0 for off")
    group.add_argument(
        "--temperature",
        type=temperature,
        default=PLAIN,
        metavar="T",
        help="of the draw: one number, or coarse=1,mid=1,fine=0.6; 1 is plain, 0 takes the likeliest code",
    )


def load_model(args: argparse.Namespace) -> Model:
    more = (args.var_checkpoint, args.class_tokens, args.classes_from)
    return hieramp.load(args.model, args.device, DTYPES[args.dtype], *more)


def amplification(args: argparse.Namespace) -> Amplification:
    return replace(hieramp.parse_stages(args.stages, args.mode, args.blocks), where=args.where)


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    return Sampling(args.guidance, args.top_k, args.top_p, args.temperature, args.guidance_power).options()


def settings_of(args: argparse.Namespace, model: Model, label: int, seeds: list[int]) -> dict[str, Any]:
    """What a picture was made with, to be stored inside it."""
    amp = amplification(args)
    stages = {"coarse": amp.coarse, "mid": amp.mid, "fine": amp.fine}
    return {
        "model": model.name,
        "class": model.class_names[label],
        "label": label,
        "seeds": seeds,
        "stages": stages,
        "mode": amp.mode,
        "where": amp.where,
        "blocks": amp.resolved_blocks(model.var.config.depth),
        **sampling(args),
        "dtype": args.dtype,
        "hieramp": hieramp.__version__,
    }


def whole_number(text: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0")
    return number


def block_list(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of blocks like 4,5")
    return tuple(map(int, text.split(",")))


def temperature(text: str) -> Temperature:
    """ "0.6" for all stages, or "mid=0.8,fine=0.6": a stage that is left out stays at 1."""
    named = [item.partition("=")[::2] for item in text.split(",")] if "=" in text else [(s, text) for s in STAGES]
    try:
        values = {stage: float(value) for stage, value in named}
    except ValueError:
        values = {}
    if not values or not values.keys() <= set(STAGES):
        raise argparse.ArgumentTypeError(f"{text!r} is no temperature: give a number, or coarse=1,mid=1,fine=0.6")
    return by_stage([values.get(stage, 1.0) for stage in STAGES])


def duration(text: str) -> float:
    """Seconds of "90s", "20m", "1h30m"."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time over 0 like 90s, 20m or 1h30m")
    return seconds


def say(text: str) -> None:
    """A line for the person; standard output is for results."""
    print(text, file=sys.stderr)
