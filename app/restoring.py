"""What brings settings back: the address of the page, Back and Forward, and a saved picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from PIL import Image

from app import picker, view_requests
from app.context import ASKING, AppContext, sentences, warn
from app.controls import Controls
from hieramp import figures
from hieramp.errors import UserError


class Restoring:
    """The handlers; each answers with what the controls and the tabs then are."""

    def __init__(self, context: AppContext, controls: Controls, tabs: gr.Tabs, tab_of: Mapping[str, Any]) -> None:
        self.context, self.controls, self.tabs, self.tab_of = context, controls, tabs, tab_of

    def from_address(self, request: gr.Request) -> dict[Any, Any]:
        """As the page opens."""
        return self._as_named(dict(request.query_params), is_asked=False)

    def restored(self, event: gr.EventData) -> dict[Any, Any]:
        """Back, Forward, and a picture of a sheet."""
        with sentences():
            query = dict(parse_qsl(str(event._data.get("query", ""))[:10_000].lstrip("?")))
            return self._as_named(query, is_asked=True)

    def from_picture(self, path: str) -> dict[Any, Any]:
        """A picture that was saved here; the copy that was sent is deleted."""
        model = self.context.model
        try:
            with sentences():
                stored = settings_inside(Path(path))
                values = view_requests.values_on_page(model, view_requests.from_picture(model, stored))
                for remark in view_requests.remarks(model, stored):
                    warn(remark)
                return self.controls.updates(values) | {self.tabs: gr.Tabs(selected="explore")}
        finally:
            Path(path).unlink(missing_ok=True)

    def _as_named(self, query: Mapping[str, str], is_asked: bool) -> dict[Any, Any]:
        """What an address sets; `is_asked`: also where it names no setting, which is then a fresh page."""
        model, no_model = self.context.model, picker.missing(self.context, query)
        if no_model:
            warn(f"This address was not understood: {no_model}. {model.name} is shown.")
        shown = {self.tabs: self._tab(query, is_asked)}
        if not is_asked and not any(view_requests.in_address(name) in query for name in self.controls.named):
            return self.controls.unchanged() | shown
        view_request, wrong = view_requests.read_query(model, query)
        if wrong:
            warn(f"This address was not understood: {'; '.join(wrong)}. The rest of it is shown.")
        return self.controls.updates(view_requests.values_on_page(model, view_request)) | shown

    def _tab(self, query: Mapping[str, str], is_asked: bool) -> Any:
        """Who has chosen a tab while the page was opening stays there."""
        if not is_asked and "tab" not in query:
            return gr.skip()
        name = query.get("tab", "explore")
        return gr.Tabs(selected=name if name in self.tab_of else "explore")


def connect(demo: gr.Blocks, viewer: gr.HTML, does: Restoring) -> list[Any]:
    """The events that bring settings back; a drawing is to follow each."""
    outputs, opened = [*does.controls.outputs, does.tabs], does.controls.opened
    return [
        demo.load(does.from_address, None, outputs, **ASKING),
        opened.upload(does.from_picture, opened, outputs, **ASKING),
        viewer.restore(does.restored, None, outputs, **ASKING),
    ]


def settings_inside(path: Path) -> dict[str, Any]:
    """The settings inside a picture that was sent here under a name of the server's.

    Raises:
        UserError: it is no PNG, or carries none; names neither the file nor where it lies.
    """
    try:
        with Image.open(path) as picture:
            carries = figures.SETTINGS_KEY in picture.info
    except (OSError, ValueError) as error:
        raise UserError("this file is not a picture that can be read: open a PNG saved here") from error
    if not carries:
        raise UserError(
            "this picture carries no settings: it was not made by hieramp, was saved again since, or is of a distilled "
            "set of an earlier version, whose settings are in its dataset.json"
        )
    try:
        return figures.read_settings(path)
    except UserError as error:
        raise UserError("the settings inside this picture are damaged: draw it again") from error
