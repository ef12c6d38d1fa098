"""python -m hieramp: one parser, one place where errors become a sentence and an exit code."""

import argparse
import importlib
import re
import sys
from collections.abc import Collection, Sequence
from typing import NoReturn

from hieramp.commands import COMMANDS
from hieramp.devices import flush_denormals
from hieramp.errors import UserError, printable

TOO_LITTLE = "there is too little memory: take smaller images, fewer at once, or another machine"
NO_MEMORY = "not enough memory"  # torch's words; on a GPU it has an error of its own


class Parser(argparse.ArgumentParser):
    """argparse that answers misuse with one sentence instead of its whole usage; so do the commands' parsers."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


def build_parser(whole: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of all commands; those that are not `whole` by name alone: what they need takes seconds to load."""
    parser = Parser(prog="hieramp", description="Generative dataset distillation you can see.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        if name in whole:
            importlib.import_module(f"hieramp.commands.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=purpose)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exit codes: 0 done, 1 the machine or the program failed, 2 misuse, 130 interrupted.

    Misuse (`UserError`) and what the machine says (a full disk, too little memory) are told in one sentence; any other
    exception is a fault of ours and goes on with its traceback.
    """
    typed = _with_negatives(sys.argv[1:] if arguments is None else arguments)
    args = build_parser([word for word in typed if word in COMMANDS][:1]).parse_args(typed)
    flush_denormals()
    try:
        args.run(args)
    except (UserError, FileNotFoundError) as error:
        _fail(error, 2)
    except OSError as error:
        _fail(error, 1)
    except MemoryError as error:  # Python's own has no text
        _fail(str(error) or TOO_LITTLE, 1)
    except RuntimeError as error:
        if NO_MEMORY not in str(error):
            raise
        _fail(TOO_LITTLE, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _with_negatives(arguments: Sequence[str]) -> list[str]:
    """A value like -5m joined to its option by "=": argparse would take it for an option, and say nothing useful.

    Plain negative numbers it knows, and takes several of them.
    """
    joined: list[str] = []
    for argument in arguments:
        is_value = re.match(r"-\.?\d", argument) and not re.fullmatch(r"-\d+|-\d*\.\d+", argument)
        if is_value and joined and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _fail(error: Exception | str, code: int) -> None:
    print(f"error: {printable(str(error))}", file=sys.stderr)
    sys.exit(code)
