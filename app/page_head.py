"""What the head of a page says before anything of Gradio's runs: what a link to it looks like where it is shared, for
Gradio 6.31 puts its own first, and a script that must be there first."""

import re
from html import escape
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import theme

THEIRS = re.compile(rb'<meta\s+(?:property="og:[a-z]+"|name="twitter:[a-z]+")\s+content="[^"]*"\s*/?>')
TITLE = "HierAmp: see how an image is drawn, plain and amplified"
ABOUT = (
    "A model draws pictures from coarse to fine. See where it looks at each scale, amplify that, and compare: the "
    "method of HierAmp (CVPR 2026) for dataset distillation, live."
)
OURS = "".join(
    f'<meta property="og:{name}" content="{escape(text)}">'
    for name, text in (("title", TITLE), ("description", ABOUT), ("type", "website"))
)

EARLY = f"<script>{{{theme.read('clocks.js')}}}</script>".encode()


class PageHead:
    """ASGI: pages that the app within sends, with our tags in place of Gradio's, and our script before Gradio's."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].endswith("/"):
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = bytearray()

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                if headers.get(b"content-type", b"").startswith(b"text/html"):
                    start.update(message)  # held back until the length is known
                    return
            if message["type"] != "http.response.body" or not start:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = THEIRS.sub(b"", bytes(body)).replace(b"<head>", b"<head>" + EARLY, 1)
            page = page.replace(b"</head>", OURS.encode() + b"</head>", 1)
            kept = [header for header in start["headers"] if header[0] != b"content-length"]
            await send({**start, "headers": [*kept, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, changed)
