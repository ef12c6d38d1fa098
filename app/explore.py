"""The first tab: choose, watch, and where it looks."""

import json
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from app import average_map, channel, curated, examples, kinds, restoring, theme, view_models, view_requests
from app.context import ASKING, CHEAP, DRAWING, AppContext, html, sentences, warn
from app.controls import Controls, setting_events, user_triggers
from app.distill_requests import has_classifier
from app.restoring import Restoring
from hieramp import figures
from hieramp.errors import UserError

PARTS = (
    "",
    "-draw",
    "-strip",
    "-progress",
    "-input",
    "-mechanism",
    "-opinion",
    "-average",
    "-opening",
    "-saving",
    "-present",
    "-link",
)  # of the viewer, in order
TELL = "(query, outcome) => window.hieramp.asked(JSON.parse(query), JSON.parse(outcome))"
NOT_DRAWN = -1  # a ticket that is never anybody's turn
# What a class token names its classes from (hieramp.var.class_tokens; HierAmp, Eq. 6).
HIDDEN = (
    "The likeliest classes by what this scale’s class token looks at in the picture so far. It was trained with the "
    "label hidden and is not told which class was asked for, so it may be wrong."
)
TOLD = (
    "This scale’s class token is told which class was asked for, as the blocks that it shares are. So what it believes "
    "says little about the picture, and is not shown."
)


def build(context: AppContext) -> tuple[gr.HTML, gr.HTML, gr.HTML]:
    """The viewer, the channel of closer looks, and the line that tells one's place."""
    model = context.model
    is_var = model.kind == "var"
    first = context.first_view(view_requests.first_request(model))
    place = html("", elem_id="place")
    if curated.examples_of(context.model):
        html(examples.links(context.model), elem_id="examples")
    viewer = gr.HTML(
        first,
        html_template=theme.read("viewer.html"),
        js_on_load="".join(theme.read(f"viewer{part}.js") for part in PARTS),
        apply_default_css=False,
        elem_id="viewer",
        palette=b64encode(figures.palette()).decode(),
        kind=model.kind,
        legend=kinds.LEGEND[model.kind],
        average=average_map.view_of(model),
        depth=model.depth,
        curated=bool(curated.examples_of(model)),
        heads=model.var.config.num_heads if is_var and model.has_class_tokens else 0,
        believes=is_var and model.var.config.own_class_tokens,
        map=kinds.MAP[model.kind],
        classifier=has_classifier(model),
        judges=HIDDEN if is_var and model.var.config.own_class_tokens else TOLD,
    )
    return viewer, channel.build("closer"), place


class DrawChain:
    """The chain behind every picture: ask (cheap: checks, takes a turn, sets the address), then draw."""

    def __init__(self, context: AppContext, controls: Controls, viewer: gr.HTML, place: gr.HTML) -> None:
        self.context, self.controls, self.viewer, self.place = context, controls, viewer, place
        self.ticket = gr.Number(0, visible=False, precision=0)
        self.address = gr.Textbox("{}", visible=False)
        self.outcome = gr.Textbox(json.dumps(_outcome(0)), visible=False)

    def after(self, *triggers: Any) -> None:
        """Draw when one of these happens; the newest request of a visitor ends the one before."""
        self._go_on(gr.on(triggers, self._ask, *self._asked_with(), trigger_mode="always_last", **ASKING))

    def then_after(self, event: Any) -> None:
        """Draw when an event of the page has set the fields."""
        self._go_on(event.success(self._ask, *self._asked_with(), **ASKING))

    def _asked_with(self) -> tuple[set[Any], list[Any]]:
        """What `_ask` takes and sets."""
        schedule = self.controls.schedule
        return {schedule, *self.controls.inputs}, [self.ticket, self.address, schedule, self.outcome]

    def _go_on(self, asked: Any) -> None:
        asked.success(None, [self.address, self.outcome], None, js=TELL, api_visibility="private")
        given = {self.ticket, *self.controls.inputs}
        how = {**DRAWING, "show_progress": "minimal", "show_progress_on": self.place}
        asked.success(self._draw, given, self.viewer, trigger_mode="always_last", **how)

    def _ask(self, request: gr.Request, given: dict[Any, Any]) -> tuple[Any, Any, Any, str]:
        """A ticket, the address, the schedule to mark, and what came of it (`_outcome`).

        What cannot be drawn ends no other drawing, and is an answer, not an error: after an error Gradio 6.31 forgets
        what was set while it waited ("always_last"), so a number mended at once would not be drawn.
        """
        when, model, values = time.time(), self.context.model, self.controls.values(given)
        with sentences():
            try:
                view_request = view_requests.read_request(model, values)
                view_requests.values_on_page(model, view_request)  # else its link would be refused
            except UserError as error:
                warn(f"{error}.")
                wrong = view_requests.wrong_names(model, values)
                return NOT_DRAWN, gr.skip(), gr.skip(), json.dumps(_outcome(when, wrong))
        schedule = kinds.schedule_name(view_request.settings, model.kind)
        is_chosen = given[self.controls.schedule] == schedule  # one chosen since stays chosen
        address = json.dumps(view_requests.address(model, view_request) | self.context.named)
        ticket = self.context.scheduling.take(str(request.session_hash))
        return ticket, address, gr.skip() if is_chosen else schedule, json.dumps(_outcome(when))

    def _draw(self, request: gr.Request, given: dict[Any, Any]) -> Iterator[view_models.ViewModel]:
        visitor, number = str(request.session_hash), given[self.ticket]
        if number == NOT_DRAWN or self.context.scheduling.is_stale(visitor, number):
            return
        with sentences():
            try:
                view_request = view_requests.read_request(self.context.model, self.controls.values(given))
            except UserError:  # set while this waited, and told as it was asked
                return
            with closing(self.context.grow(view_request)) as drawn:
                for view_model in drawn:
                    yield view_model
                    if self.context.scheduling.is_stale(visitor, number):
                        return


def _outcome(when: float, wrong: list[str] | None = None) -> dict[str, Any]:
    """When something was asked for, in seconds, by which an older answer that comes late is known; and the fields of
    what cannot be drawn, None where all can."""
    return {"when": when, "wrong": wrong}


def connect(
    demo: gr.Blocks,
    context: AppContext,
    controls: Controls,
    drawing: DrawChain,
    closer: gr.HTML,
    tabs: gr.Tabs,
    tab_of: dict[str, Any],
) -> None:
    """Draw when the page opens and when anything is set; restore from addresses and pictures."""
    viewer = drawing.viewer
    setting = [*restoring.connect(demo, viewer, Restoring(context, controls, tabs, tab_of))]
    setting += [*_painting(controls, viewer), *setting_events(context, controls)]
    drawing.after(*user_triggers(controls))
    for event in setting:
        drawing.then_after(event)
    _connect_tabs(controls, tabs, tab_of)
    _connect_looks(context, controls, viewer, closer)
    channel.connect_ends(context, viewer)

    def leave(request: gr.Request) -> None:
        context.scheduling.forget(str(request.session_hash))

    demo.unload(leave)


def _painting(controls: Controls, viewer: gr.HTML) -> list[Any]:
    """What sets the positions painted by hand, where there are such."""

    def paint(event: gr.EventData) -> str:
        return str(event._data.get("text", ""))

    positions = controls.named.get("positions")
    return [] if positions is None else [viewer.paint(paint, None, positions, **CHEAP)]


def _connect_tabs(controls: Controls, tabs: gr.Tabs, tab_of: dict[str, Any]) -> None:
    """What the buttons of the controls draw is in Explore; the address names the tab."""
    for button in (controls.generate, controls.dice, controls.random_class):
        button.click(lambda: gr.Tabs(selected="explore"), None, tabs, **CHEAP)
    for name, tab in tab_of.items():
        tab.select(None, None, None, js=f"() => window.hieramp.shown({{ tab: '{name}' }})", api_visibility="private")


def _connect_looks(context: AppContext, controls: Controls, viewer: gr.HTML, closer: gr.HTML) -> None:
    """A closer look: the maps of one block of one sample."""

    def look(request: gr.Request, event: gr.EventData, given: dict[Any, Any]) -> Any:
        with sentences():
            try:
                view_request, asked = view_requests.read_request(context.model, controls.values(given)), event._data
            except UserError as error:  # no error, as in `_ask`
                warn(f"{error}.")
                return gr.skip()
            found = context.answer("block_view", view_request, asked.get("sample"), asked.get("block"))
        return {**found, "key": view_requests.address(context.model, view_request)}

    viewer.look(look, controls.inputs, closer, trigger_mode="always_last", **DRAWING)
