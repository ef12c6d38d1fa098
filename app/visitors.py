"""Who a request is from, and how much of it one visitor may have waiting: nobody can shut the page for all."""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from gradio.context import LocalContext

HOUR = 3600.0
UNTOLD = 2**24  # bytes that an upload counts for which does not say how many it has


def client_of(request: Any) -> str:
    """The address that a request came from: that of the connection, or what the nearest proxy says of it.

    A proxy is on this machine or in its network; what others say of themselves counts for nothing.
    """
    return _address(str(request.headers.get("x-forwarded-for") or ""), request.client.host if request.client else "")


def _address(forwarded: str, host: str) -> str:
    try:
        is_near = ip_address(host).is_private
    except ValueError:
        is_near = False
    return (forwarded.rsplit(",", 1)[-1].strip() if is_near else "") or host


def current() -> str:
    """Of the request that is being answered; "" outside of one."""
    request = LocalContext.request.get(None)
    return "" if request is None else client_of(request)


def limit_waiting(queue: Any, most: int) -> None:
    """Let Gradio's queue refuse a visitor who has `most` requests in it."""
    push = queue.push

    async def limited(body: Any, request: Any, username: Any) -> Any:
        client = client_of(request)
        waiting = sum(
            event.alive and client_of(event.request) == client
            for events in queue.event_queue_per_concurrency_id.values()
            for event in events.queue
        )
        if waiting >= most:
            return False, f"{waiting} of your requests are waiting already: let them finish first", "queue_full"
        return await push(body, request, username)

    queue.push = limited


class UploadAllowance:
    """An ASGI middleware: refuses uploads of a visitor who would have sent more than `most` bytes in an hour."""

    def __init__(self, app: Callable[..., Any], most: int) -> None:
        self.app, self.most = app, most
        self._sent: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)  # client: when, how many bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        client = _address(headers.get("x-forwarded-for", ""), (scope.get("client") or ("", 0))[0])
        length = headers.get("content-length", "")
        if self.allows(client, int(length) if length.isdecimal() else UNTOLD, time.monotonic()):
            await self.app(scope, receive, send)
            return
        said = f"you sent more than {self.most // 2**20} MB in the last hour: try again later"
        kind = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 429, "headers": kind})
        await send({"type": "http.response.body", "body": said.encode()})

    def allows(self, client: str, size: int, now: float) -> bool:
        """Whether so many bytes are within the allowance of a client; they are counted if they are."""
        for name in [name for name, sent in self._sent.items() if sent[-1][0] < now - HOUR]:
            del self._sent[name]
        sent = self._sent[client]
        while sent and sent[0][0] < now - HOUR:
            sent.popleft()
        is_within = sum(each for _, each in sent) + size <= self.most
        if is_within:
            sent.append((now, size))
        elif not sent:
            del self._sent[client]
        return is_within
