"""One server, a page for each model: made when it is first asked for, and a bounded number kept in memory.

An address names its model (`?model=cifar10-dit`). The page itself is then served here from the server's root, and asks
the server under a path of its own (`/models/cifar10-dit`). Whoever has a page open whose model was given up meanwhile
notices nothing but the time that it takes to load it again: nothing of a visitor's is kept in it.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from torch import nn

from app import page, visitors
from app.context import AppContext
from app.inside import Looks
from app.models import MODEL, Offered
from app.visitor_limits import VisitorLimits
from app.words import without_folders
from hieramp.errors import UserError
from hieramp.generation.memory import RecentDrawings

MOST = 3  # models kept beside the first
WAITING = (
    '<!doctype html><html lang="en"><title>{name}</title><meta http-equiv="refresh" content="0">'
    '<meta name="color-scheme" content="light dark"><body style="font-family: system-ui; margin: 3em">'
    "<h1>HierAmp</h1><p role='status'>Loading {name} from the disk …</p>"
    "<p>Its page opens by itself. <a href='?'>Back to {first}</a></p></body></html>"
)
log = logging.getLogger(__name__)


def _waiting(one: Offered, first: Offered) -> str:
    return WAITING.format(name=escape(one.name), first=escape(first.name))


@dataclass(eq=False)
class _Page:
    context: AppContext
    demo: gr.Blocks
    host: FastAPI
    ended: asyncio.Event | None = None  # None: not started


class PageBook:
    """The pages of all models but the first. `make` gives the context of one; `root_path` is where a proxy shows us."""

    def __init__(
        self,
        models: tuple[Offered, ...],
        make: Callable[[Offered], AppContext],
        root_path: str = "",
        most: int = MOST,
    ) -> None:
        self.models, self.make, self.root_path, self.most = models, make, root_path, most
        self._pages: OrderedDict[str, _Page] = OrderedDict()  # the latest used last
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: set[str] = set()
        self._lock: asyncio.Lock | None = None  # of the loop that serves

    @property
    def loaded(self) -> list[str]:
        """Names of the models in memory, those used latest last."""
        return list(self._pages)

    def make_all(self) -> None:
        """All of them now, none to be given up: where the GPU is lent, workers know what there was when they began."""
        self.most = len(self.models)
        for one in self.models[1:]:
            self._pages[one.name] = self._made(one)

    def is_ready(self, one: Offered) -> bool:
        """Whether its page is there, or on its way since an earlier call; else it is on its way from now on.

        A page that is left for another one reloads itself within seconds (Gradio 6.31), and breaks the other's loading
        off: so that must be answered at once.
        """
        if one.name in self._pages or one.name in self._begun:
            return True
        self._begun.add(one.name)
        task = asyncio.create_task(self._begin(one))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return False

    async def _begin(self, one: Offered) -> None:
        try:
            await self.app_of(one)
        except (UserError, FileNotFoundError):  # who asks next is told
            log.info("%s could not be loaded", one.name)
        except Exception:  # a fault of ours
            log.exception("the page of %s could not be made", one.name)
        finally:
            self._begun.discard(one.name)

    async def app_of(self, one: Offered) -> ASGIApp:
        """The page of a model, running.

        Raises:
            UserError, FileNotFoundError: it cannot be loaded.
        """
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            found = self._pages.get(one.name)
            if found is None:
                found = await asyncio.to_thread(self._made, one)
                self._pages[one.name] = found
            self._pages.move_to_end(one.name)
            if found.ended is None:
                await self._start(found)
            await self._give_up_some()
        return found.host

    def _made(self, one: Offered) -> _Page:
        context = self.make(one)
        demo, host = page.build_on(context).queue(max_size=256), FastAPI()
        visitors.limit_waiting(demo._queue, VisitorLimits.waiting)
        gr.mount_gradio_app(host, demo, path=one.path, root_path=self.root_path + one.path, **page.looks())
        return _Page(context, demo, host)

    async def _start(self, found: _Page) -> None:
        """Its lifespan is a task of its own, so that it ends in the one that began it."""
        found.ended = ended = asyncio.Event()
        started = asyncio.get_running_loop().create_future()

        async def live() -> None:
            try:
                async with found.host.router.lifespan_context(found.host):
                    started.set_result(None)
                    await ended.wait()
            except Exception as error:
                if started.done():
                    raise
                started.set_exception(error)

        task = asyncio.create_task(live())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await started

    async def _give_up_some(self) -> None:
        """The ones used longest ago, but none that makes a set; the latest stays."""
        for name, old in list(self._pages.items())[:-1]:
            if len(self._pages) <= self.most:
                return
            if old.context.jobs.is_busy:
                continue
            del self._pages[name]
            if old.ended is not None:
                old.ended.set()
            await asyncio.to_thread(old.context.jobs.close)
            old.demo.close(verbose=False)
            release(old.context)


def release(context: AppContext) -> None:
    """Free what a page that is given up held in memory: Gradio may keep the page itself alive (6.31)."""
    context.served.memory, context.served.looks = RecentDrawings(), Looks()
    for part in vars(context.model).values():
        for network in (part, *getattr(part, "__dict__", {}).values()):
            if isinstance(network, nn.Module):
                network.to("meta")


class Front:
    """ASGI: what is for a model of the book goes to its page, all else to the app within."""

    def __init__(self, app: ASGIApp, book: PageBook) -> None:
        self.app, self.book = app, book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        one = self._asked_for(scope)
        if one is None:
            await self.app(scope, receive, send)
            return
        if scope["path"] == "/" and scope["method"] == "GET" and not self.book.is_ready(one):
            await HTMLResponse(_waiting(one, self.book.models[0]))(scope, receive, send)
            return
        try:
            app = await self.book.app_of(one)
        except (UserError, FileNotFoundError) as error:
            words = f"{one.name} cannot be loaded: {without_folders(str(error))}"
            text = f'<!doctype html><title>{escape(one.name)}</title><p>{escape(words)}</p><p><a href="?">Back</a></p>'
            await HTMLResponse(text, 503)(scope, receive, send)
            return
        # The app within compresses what it passes on, and would not notice that this was done before.
        headers = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
        path: dict[str, Any] = {}
        if scope["path"] == "/":
            path = {"path": f"{one.path}/", "raw_path": f"{one.path}/".encode()}
        await app({**scope, "headers": headers, **path}, receive, send)

    def _asked_for(self, scope: Scope) -> Offered | None:
        if scope["type"] != "http":
            return None
        path, asked = scope["path"], ""
        if path == "/":
            asked = parse_qs(scope["query_string"].decode("latin-1")).get(MODEL, [""])[0]
        for one in self.book.models[1:]:
            if path == one.path or path.startswith(f"{one.path}/") or (path == "/" and asked == one.name):
                return one
        return None
