"""What a link to the page looks like where it is shared: our title and sentence. Gradio puts its own first (6.31)."""

import re
from html import escape
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class Previews:
    """ASGI: pages that the app within sends, with our tags in place of Gradio's."""

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
            page = THEIRS.sub(b"", bytes(body)).replace(b"</head>", OURS.encode() + b"</head>", 1)
            kept = [header for header in start["headers"] if header[0] != b"content-length"]
            await send({**start, "headers": [*kept, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, changed)
