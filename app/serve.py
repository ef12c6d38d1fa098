"""Open the page: python app.py in a checkout, hieramp-page where it is installed."""

# ZeroGPU wants to be there before torch is.
from app import zero  # isort: skip

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from starlette.middleware import Middleware

import hieramp
from app import page
from app.context import AppContext
from app.model_pages import Front, PageBook
from app.models import Offered, offered
from app.scheduling import Device
from app.visitor_limits import VisitorLimits
from hieramp.checkpoints import DEFAULT_MODEL, shipped
from hieramp.devices import flush_denormals
from hieramp.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence, without the usage."""
        _fail(message, 2)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="app.py", description="Draw images in the browser, plain and amplified.")
    models = f"{', '.join(shipped())}, a model folder, or var-d16 … var-d30"
    parser.add_argument(
        "--model",
        nargs="+",
        default=[DEFAULT_MODEL],
        help=f"{models}; of several the first opens, and the page offers the others and those that ship",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU where there is one)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: %(default)s)")
    parser.add_argument("--port", type=port_number, help="default: the first free one from 7860")
    parser.add_argument("--share", action="store_true", help="a public address through Gradio's servers")
    parser.add_argument(
        "--max-ipc", type=cap, default=VisitorLimits.ipc, help="cap on images per class (default: %(default)s)"
    )
    parser.add_argument(
        "--max-job-minutes",
        type=cap,
        default=VisitorLimits.job_minutes,
        help="cap on a job's computing (default: %(default)s)",
    )
    parser.add_argument(
        "--root-path", type=root_path, metavar="/PATH", help="where a proxy in front shows the page, like /hieramp"
    )
    parser.add_argument("--data", metavar="FOLDER", help="real images, train/ and test/, that sets are judged by")
    parser.add_argument("--mcp", action="store_true", help="offer the endpoints as MCP tools (needs gradio[mcp])")
    return parser


def port_number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def root_path(text: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the path of an address, like /hieramp")
    return text


def cap(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a cap: give a whole number from 1 to 1000000")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit codes: 0 done, 1 the machine failed us (a port in use), 2 misuse."""
    args = build_parser().parse_args(arguments)
    flush_denormals()
    if args.mcp and importlib.util.find_spec("mcp") is None:
        _fail('--mcp needs another package: run pip install "gradio[mcp]", or leave --mcp out', 2)
    try:
        limits = VisitorLimits(ipc=args.max_ipc, job_minutes=args.max_job_minutes)
        models = offered(args.model)
        device = Device()

        def context_of(one: Offered) -> AppContext:
            model = hieramp.load(one.source, args.device)
            return AppContext.make(model, limits, data=args.data, models=models, device=device)

        # where a proxy shows the page
        book = PageBook(models, context_of, args.root_path or os.environ.get("GRADIO_ROOT_PATH", "").rstrip("/"))
        demo = page.build_on(context_of(models[0]))
        if zero.on_zero_gpu:
            book.make_all()
    except (UserError, FileNotFoundError) as error:
        _fail(error, 2)
    # On a Space everything but this machine is outside.
    host = "0.0.0.0" if os.environ.get("SPACE_ID") else args.host
    given: dict[str, Any] = {"root_path": args.root_path} if args.root_path else {}  # else GRADIO_ROOT_PATH holds
    given["app_kwargs"] = {"middleware": [Middleware(Front, book=book)]}
    try:
        page.launch(demo, server_name=host, server_port=args.port, share=args.share, mcp_server=args.mcp, **given)
    except OSError as error:
        _fail(error, 1)


def _fail(error: Exception | str, code: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
