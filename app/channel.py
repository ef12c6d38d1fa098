"""What the viewer asks the server for, and may have to wait for: answers that tell how far they are, and can be ended.

The viewer numbers what it asks (web/viewer-progress.js); an answer names its number. Whatever is drawn ends in the
same way: by its own name, "drawing".
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import view_requests
from app.context import ANSWERING, CHEAP, AppContext, sentences
from app.controls import Controls

DRAWING = "drawing"


def build(name: str) -> gr.HTML:
    """A place that nobody sees: what comes there is told to the viewer as the event hieramp-NAME."""
    event = f"new CustomEvent('hieramp-{name}', {{ detail: props.value }})"
    code = f"watch('value', () => window.dispatchEvent({event}));"
    return gr.HTML(None, html_template="", js_on_load=code, apply_default_css=False, elem_id=name)


def connect(
    context: AppContext,
    controls: Controls,
    event: Any,
    channel: gr.HTML,
    as_told: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Answer an event of the viewer with the pieces of the study that has the channel's name.

    `as_told` makes of the answer what the browser takes.
    """
    name = str(channel.elem_id)

    def answer(request: gr.Request, event: gr.EventData, given: dict[Any, Any]) -> Iterator[dict[str, Any]]:
        asked = dict(event._data)
        about = {"number": asked.get("number")}
        key = _key(request, name, about["number"])
        try:
            with sentences():
                view_request = view_requests.read_request(context.model, controls.values(given))
                if context.scheduling.is_stale(key, 0):  # ended while it waited for its turn
                    return
                with closing(context.pieces(name, view_request, asked)) as pieces:
                    for piece in pieces:
                        if context.scheduling.is_stale(key, 0):
                            return
                        found = piece.answer and as_told(piece.answer)
                        yield about | {"doing": piece.doing, "done": piece.done, "of": piece.of, "answer": found}
        except gr.Error:
            yield about | {"failed": True}
            raise
        finally:
            context.scheduling.forget(key)

    event(answer, controls.inputs, channel, trigger_mode="multiple", **ANSWERING)


def connect_ends(context: AppContext, viewer: gr.HTML) -> None:
    """End what the viewer no longer waits for."""

    def end(request: gr.Request, event: gr.EventData) -> None:
        what, number = event._data.get("what"), event._data.get("number")
        key = str(request.session_hash) if what == DRAWING else _key(request, str(what)[:20], number)
        context.scheduling.take(key)

    viewer.halt(end, None, None, **CHEAP)


def _key(request: gr.Request, name: str, number: Any) -> str:
    return f"{request.session_hash}/{name}/{str(number)[:20]}"
