"""The first room: choose, watch, and where it looks. The settings are a link, and a saved picture brings them back."""

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from app import handlers, orders, scenes, theme
from app.controls import Controls, setting_events, user_triggers
from app.desk import ASKING, CHEAP, DRAWING, Desk, html, sentences
from hieramp import figures

CLOSER = "watch('value', () => window.dispatchEvent(new CustomEvent('hieramp-closer', { detail: props.value })));"
SET_ADDRESS = "query => window.hieramp.address(JSON.parse(query))"


def build(desk: Desk) -> tuple[gr.HTML, gr.HTML, gr.HTML]:
    """The viewer, the channel of closer looks, and the line that tells one's place."""
    config = desk.model.var.config
    *_, first = desk.grow(orders.first_order(desk.model))
    place = html("", elem_id="place")
    viewer = gr.HTML(
        first,
        html_template=theme.read("viewer.html"),
        js_on_load=theme.read("viewer.js") + theme.read("viewer-input.js"),
        apply_default_css=False,
        elem_id="viewer",
        palette=b64encode(figures.palette()).decode(),
        depth=config.depth,
        heads=config.num_heads if desk.model.has_class_tokens else 0,
    )
    closer = gr.HTML(None, html_template="", js_on_load=CLOSER, apply_default_css=False, elem_id="closer")
    return viewer, closer, place


class Drawing:
    """The chain behind every picture: ask (cheap: checks, takes a turn, sets the address), then draw."""

    def __init__(self, desk: Desk, controls: Controls, viewer: gr.HTML, place: gr.HTML) -> None:
        self.desk, self.controls, self.viewer, self.place = desk, controls, viewer, place
        self.ticket = gr.Number(0, visible=False, precision=0)
        self.address = gr.Textbox("{}", visible=False)

    def after(self, *triggers: Any) -> None:
        """Draw when one of these happens; the newest request of a visitor ends the one before."""
        outputs = [self.ticket, self.address, self.controls.schedule]
        self._go_on(gr.on(triggers, self._ask, self.controls.inputs, outputs, trigger_mode="always_last", **ASKING))

    def then_after(self, event: Any) -> None:
        """Draw when an event of the page has set the fields."""
        outputs = [self.ticket, self.address, self.controls.schedule]
        self._go_on(event.success(self._ask, self.controls.inputs, outputs, **ASKING))

    def _go_on(self, asked: Any) -> None:
        asked.success(None, self.address, None, js=SET_ADDRESS, api_visibility="private")
        given = {self.ticket, *self.controls.inputs}
        how = {**DRAWING, "show_progress": "minimal", "show_progress_on": self.place}
        asked.success(self._draw, given, self.viewer, trigger_mode="always_last", **how)

    def _ask(self, request: gr.Request, given: dict[Any, Any]) -> tuple[int, str, str | None]:
        with sentences():  # a request that cannot be drawn ends no other
            order = orders.read_order(self.desk.model, self.controls.values(given))
        ticket = self.desk.turns.take(str(request.session_hash))
        return ticket, json.dumps(orders.address(self.desk.model, order)), order.settings.schedule

    def _draw(self, request: gr.Request, given: dict[Any, Any]) -> Iterator[scenes.Scene]:
        visitor, number = str(request.session_hash), given[self.ticket]
        if self.desk.turns.is_stale(visitor, number):
            return
        with sentences():
            order = orders.read_order(self.desk.model, self.controls.values(given))
            with closing(self.desk.grow(order)) as drawn:
                for scene in drawn:
                    yield scene
                    if self.desk.turns.is_stale(visitor, number):
                        return


def connect(demo: gr.Blocks, desk: Desk, controls: Controls, drawing: Drawing, closer: gr.HTML) -> None:
    """Draw when the page opens and when anything is set; restore from addresses and pictures."""

    def from_address(request: gr.Request) -> dict[Any, Any]:
        query = dict(request.query_params)
        if not any(orders.in_address(name) in query for name in controls.named):
            return controls.unchanged()
        try:
            order = orders.from_query(desk.model, query)
            return controls.updates(orders.values_on_page(desk.model, order))
        except ValueError as error:
            gr.Warning(f"This address was not understood: {error}", duration=20)
            return controls.unchanged()

    def from_picture(path: str) -> dict[Any, Any]:
        try:
            with sentences():
                stored = figures.read_settings(Path(path))
                order = orders.from_picture(desk.model, stored)
                for remark in orders.remarks(desk.model, stored):
                    gr.Warning(remark, duration=20)
                return controls.updates(orders.values_on_page(desk.model, order))
        finally:
            Path(path).unlink(missing_ok=True)

    def look(request: gr.Request, event: gr.EventData, given: dict[Any, Any]) -> dict[str, Any]:
        with sentences():
            order, asked = orders.read_order(desk.model, controls.values(given)), event._data
            with desk.device.drawing():
                closer = handlers.block_view(desk.model, order, asked.get("sample"), asked.get("block"), desk.memory)
        return {**closer, "key": orders.address(desk.model, order)}

    def leave(request: gr.Request) -> None:
        desk.turns.forget(str(request.session_hash))

    def paint(event: gr.EventData) -> str:
        return str(event._data.get("text", ""))

    painted = drawing.viewer.paint(paint, None, controls.named["positions"], **CHEAP)
    opened = demo.load(from_address, None, controls.outputs, **ASKING)
    shown = controls.opened.upload(from_picture, controls.opened, controls.outputs, **ASKING)
    drawing.after(*user_triggers(controls))
    for event in (opened, shown, painted, *setting_events(desk, controls)):
        drawing.then_after(event)
    controls.generate.click(None, None, None, js="() => window.hieramp.showResult()", api_visibility="private")
    drawing.viewer.look(look, controls.inputs, closer, trigger_mode="always_last", **DRAWING)
    demo.unload(leave)
