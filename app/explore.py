"""The first tab: choose, watch, and where it looks. The settings are a link, and a saved picture brings them back."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from PIL import Image

from app import average_map, curated, examples, kinds, picker, theme, view_models, view_requests
from app.context import ASKING, CHEAP, DRAWING, AppContext, html, sentences, warn
from app.controls import Controls, setting_events, user_triggers
from app.distill_requests import has_classifier
from hieramp import figures
from hieramp.errors import UserError

CLOSER = "watch('value', () => window.dispatchEvent(new CustomEvent('hieramp-closer', { detail: props.value })));"
PARTS = (
    "",
    "-draw",
    "-strip",
    "-input",
    "-mechanism",
    "-opinion",
    "-average",
    "-opening",
    "-saving",
    "-present",
    "-link",
)  # of the viewer, in order
SET_ADDRESS = "query => window.hieramp.address(JSON.parse(query))"
MARK = "wrong => window.hieramp.mark(JSON.parse(wrong))"
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
    closer = gr.HTML(None, html_template="", js_on_load=CLOSER, apply_default_css=False, elem_id="closer")
    return viewer, closer, place


class DrawChain:
    """The chain behind every picture: ask (cheap: checks, takes a turn, sets the address), then draw."""

    def __init__(self, context: AppContext, controls: Controls, viewer: gr.HTML, place: gr.HTML) -> None:
        self.context, self.controls, self.viewer, self.place = context, controls, viewer, place
        self.ticket = gr.Number(0, visible=False, precision=0)
        self.address = gr.Textbox("{}", visible=False)
        self.wrong = gr.Textbox("[]", visible=False)

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
        blamed = asked.failure(self._blame, self.controls.inputs, self.wrong, **CHEAP)
        blamed.then(None, self.wrong, None, js=MARK, api_visibility="private")
        given = {self.ticket, *self.controls.inputs}
        how = {**DRAWING, "show_progress": "minimal", "show_progress_on": self.place}
        asked.success(self._draw, given, self.viewer, trigger_mode="always_last", **how)

    def _ask(self, request: gr.Request, given: dict[Any, Any]) -> tuple[int, str, str | None]:
        with sentences():  # a request that cannot be drawn ends no other
            view_request = view_requests.read_request(self.context.model, self.controls.values(given))
            view_requests.values_on_page(self.context.model, view_request)  # else its link would be refused
        ticket = self.context.scheduling.take(str(request.session_hash))
        return (
            ticket,
            json.dumps(view_requests.address(self.context.model, view_request) | self.context.named),
            kinds.schedule_name(view_request.settings, self.context.model.kind),
        )

    def _blame(self, given: dict[Any, Any]) -> str:
        """The fields that hold what cannot be drawn, for the page to mark."""
        return json.dumps(view_requests.wrong_names(self.context.model, self.controls.values(given)))

    def _draw(self, request: gr.Request, given: dict[Any, Any]) -> Iterator[view_models.ViewModel]:
        visitor, number = str(request.session_hash), given[self.ticket]
        if self.context.scheduling.is_stale(visitor, number):
            return
        with sentences():
            view_request = view_requests.read_request(self.context.model, self.controls.values(given))
            with closing(self.context.grow(view_request)) as drawn:
                for view_model in drawn:
                    yield view_model
                    if self.context.scheduling.is_stale(visitor, number):
                        return


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

    def shown_of(query: Mapping[str, str], asked: bool) -> dict[Any, Any]:
        """What an address sets; `asked`: also where it names no setting, which is then a fresh page."""
        name, no_model = query.get("tab", "explore"), picker.missing(context, query)
        if no_model:
            warn(f"This address was not understood: {no_model}. {context.model.name} is shown.")
        # Who has chosen a tab while the page was opening stays there.
        chosen = gr.Tabs(selected=name if name in tab_of else "explore") if asked or "tab" in query else gr.skip()
        shown = {tabs: chosen}
        if not asked and not any(view_requests.in_address(name) in query for name in controls.named):
            return controls.unchanged() | shown
        view_request, wrong = view_requests.read_query(context.model, query)
        if wrong:
            warn(f"This address was not understood: {'; '.join(wrong)}. The rest of it is shown.")
        return controls.updates(view_requests.values_on_page(context.model, view_request)) | shown

    def from_address(request: gr.Request) -> dict[Any, Any]:
        return shown_of(dict(request.query_params), asked=False)

    def restored(event: gr.EventData) -> dict[Any, Any]:
        """Back, Forward, and a picture of a sheet."""
        with sentences():
            query = dict(parse_qsl(str(event._data.get("query", ""))[:10_000].lstrip("?")))
            return shown_of(query, asked=True)

    def from_picture(path: str) -> dict[Any, Any]:
        try:
            with sentences():
                stored = settings_inside(Path(path))
                view_request = view_requests.from_picture(context.model, stored)
                values = view_requests.values_on_page(context.model, view_request)
                for remark in view_requests.remarks(context.model, stored):
                    warn(remark)
                return controls.updates(values) | {tabs: gr.Tabs(selected="explore")}
        finally:
            Path(path).unlink(missing_ok=True)

    def look(request: gr.Request, event: gr.EventData, given: dict[Any, Any]) -> dict[str, Any]:
        with sentences():
            view_request, asked = view_requests.read_request(context.model, controls.values(given)), event._data
            closer = context.answer("block_view", view_request, asked.get("sample"), asked.get("block"))
        return {**closer, "key": view_requests.address(context.model, view_request)}

    def leave(request: gr.Request) -> None:
        context.scheduling.forget(str(request.session_hash))

    def paint(event: gr.EventData) -> str:
        return str(event._data.get("text", ""))

    painting = "positions" in controls.named
    painted = [drawing.viewer.paint(paint, None, controls.named["positions"], **CHEAP)] if painting else []
    restoring = [*controls.outputs, tabs]
    opened = demo.load(from_address, None, restoring, **ASKING)
    shown = controls.opened.upload(from_picture, controls.opened, restoring, **ASKING)
    again = drawing.viewer.restore(restored, None, restoring, **ASKING)
    drawing.after(*user_triggers(controls))
    for event in (opened, shown, again, *painted, *setting_events(context, controls)):
        drawing.then_after(event)
    for button in (controls.generate, controls.dice, controls.random_class):  # what they draw is in Explore
        button.click(lambda: gr.Tabs(selected="explore"), None, tabs, **CHEAP)
    for name, tab in tab_of.items():
        tab.select(None, None, None, js=f"() => window.hieramp.shown({{ tab: '{name}' }})", api_visibility="private")
    drawing.viewer.look(look, controls.inputs, closer, trigger_mode="always_last", **DRAWING)
    demo.unload(leave)


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
