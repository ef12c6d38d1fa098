"""python -m hieramp: one parser, one place where errors become a sentence and an exit code."""

import argparse
import sys
from collections.abc import Sequence

from hieramp.commands import (
    analyse,
    compare,
    distill,
    evaluate,
    generate,
    measure,
    relabel,
    saliency,
    train,
    tune,
    verify,
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hieramp", description="Generative dataset distillation you can see.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = (generate, saliency, distill, verify, train, measure, relabel, evaluate, compare, analyse, tune)
    for module in modules:
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exit codes: 0 done, 1 the machine failed us, 2 misuse, 130 interrupted."""
    args = build_parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, FileNotFoundError) as error:
        _fail(error, 2)
    except (OSError, MemoryError) as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: Exception, code: int) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
