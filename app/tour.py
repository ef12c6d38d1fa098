"""The tour: a card above the pictures sets them up, asks for a prediction, and then shows what comes (app/stops.py)."""

import json
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import gradio as gr

from app import view_requests
from app.context import ASKING, CHEAP, DRAWING, AppContext, html, sentences, stale_note
from app.controls import Controls
from app.distill_requests import has_classifier
from app.explore import DrawChain
from app.stops import STOPS, Found, Shares, Stop, ViewModel, first_that_holds, request_of
from app.view_requests import ViewRequest

SHOW = "view => window.hieramp.tour(JSON.parse(view))"  # web/lecture.js
OVER = '{"asking": false, "over": true}'  # what the card's end tells the page


@dataclass(frozen=True)
class Place:
    """Where a visitor stands in the tour."""

    at: int = 0
    label: int = 0
    seed: int = 0
    found: Found | None = None  # what will be shown; None at the end
    right: dict[int, bool] = field(default_factory=dict)  # predictions, by stop
    left_out: tuple[str, ...] = ()  # titles just passed over


@dataclass(frozen=True)
class Card:
    """The parts of the card."""

    column: gr.Column
    text: gr.HTML
    guess: gr.Radio
    show: gr.Button
    back: gr.Button
    onward: gr.Button
    end: gr.Button


def build() -> Card:
    """The card above the pictures while the tour runs."""
    with gr.Column(visible=False, elem_id="tour") as column:
        text = html("", elem_id="tour-text")
        guess = gr.Radio([], label="Your prediction", interactive=True, elem_id="tour-guess")
        with gr.Row(elem_classes="tour-buttons"):
            back = gr.Button("Back", size="sm", scale=0, min_width=72)
            show = gr.Button("Show it", size="sm", scale=0, min_width=88, variant="primary", interactive=False)
            onward = gr.Button("Next", size="sm", scale=0, min_width=72)
            end = gr.Button("End the tour", size="sm", scale=0, min_width=104)
    return Card(column, text, guess, show, back, onward, end)


def connect(
    context: AppContext, controls: Controls, drawing: DrawChain, tabs: gr.Tabs, card: Card, start: gr.Button
) -> None:
    """Let the card drive the real controls."""
    model, place = context.model, gr.State(Place())
    view = gr.Textbox("{}", visible=False)
    asked = [place, card.column, card.text, card.guess, card.show, card.back, card.onward, view, tabs]

    def finished(view_request: ViewRequest) -> ViewModel:
        *_, view_model = context.grow(view_request)
        return view_model

    def shares(view_request: ViewRequest) -> Shares:
        return context.answer("opinion", view_request, {"sample": 0})["asked"]

    def ask(before: Place, at: int, step: int) -> dict[Any, Any]:
        """The first stop from `at` on in this direction that a pair bears out; past the last one the end."""
        left_out: list[str] = []
        while 0 <= at < len(STOPS):
            judge = shares if has_classifier(model) else None
            found = first_that_holds(model, STOPS[at], before.label, before.seed, finished, judge)
            if found:
                return asking(replace(before, at=at, label=found[0], seed=found[1], found=found[2]), left_out)
            left_out.append(STOPS[at].title)
            at += step
        if step < 0:  # nothing before holds: where one was
            return ask(before, before.at, 1)
        return the_end(replace(before, at=len(STOPS), found=None), left_out)

    def asking(here: Place, left_out: list[str]) -> dict[Any, Any]:
        stop = STOPS[here.at]
        options = [(option, i) for i, option in enumerate(stop.options)]
        shown = {
            place: here,
            card.column: gr.Column(visible=True),
            card.text: question_html(stop, left_out),
            card.guess: gr.Radio(options, value=None, label=stop.question, visible=True, interactive=True),
            card.show: gr.Button(interactive=False, visible=True),
            card.back: gr.Button(interactive=here.at > 0),
            card.onward: gr.Button(interactive=True),
            view: json.dumps({"asking": True, "scale": None, "overlay": 0, "compare": False, "focus": True}),
            tabs: gr.Tabs(selected="explore"),
        }
        return shown | settings(request_of(model, here.label, here.seed, "off"))

    def the_end(here: Place, left_out: list[str]) -> dict[Any, Any]:
        shown = {
            place: here,
            card.column: gr.Column(visible=True),
            card.text: end_html(here, left_out),
            card.guess: gr.Radio(visible=False),
            card.show: gr.Button(visible=False),
            card.back: gr.Button(interactive=True),
            card.onward: gr.Button(interactive=False),
            view: json.dumps({"asking": False, "scale": None, "overlay": 0, "compare": False, "focus": True}),
            tabs: gr.Tabs(selected="explore"),
        }
        return shown | controls.unchanged()

    def settings(view_request: ViewRequest) -> dict[Any, Any]:
        return controls.updates(view_requests.values_on_page(model, view_request))

    def begin(given: dict[Any, Any]) -> dict[Any, Any]:
        values = controls.values(given)
        label, seed = values["class_name"], values["seed"]
        fresh = view_requests.defaults(model)
        here = Place(
            label=label if isinstance(label, int) else fresh["class_name"],
            seed=seed if isinstance(seed, int) and seed >= 0 else fresh["seed"],
        )
        with sentences():
            return ask(here, 0, 1)

    def move(step: int) -> Any:
        def moved(here: Place) -> dict[Any, Any]:
            with sentences():
                return ask(here, here.at + step, step)

        return moved

    def reveal(here: Place, guess: int | None) -> dict[Any, Any]:
        if here.found is None or guess is None:
            return {view: gr.skip()}
        stop, found = STOPS[here.at], here.found
        view_request = request_of(model, here.label, here.seed, stop.schedule)
        shown = {
            "asking": False,
            "scale": found.scale,
            "overlay": stop.overlay,
            "compare": False,
            "focus": False,
        }
        return {
            place: replace(here, right=here.right | {here.at: guess == found.answer}),
            card.text: answer_html(stop, found, guess, view_requests.address(model, view_request)),
            card.guess: gr.Radio(interactive=False),
            card.show: gr.Button(interactive=False),
            view: json.dumps(shown),
        } | settings(view_request)

    outputs = [*asked, *controls.outputs]
    begun = start.click(begin, controls.inputs, outputs, **DRAWING)
    earlier = card.back.click(move(-1), place, outputs, **DRAWING)
    later = card.onward.click(move(1), place, outputs, **DRAWING)
    told = card.show.click(
        reveal, [place, card.guess], [place, card.text, card.guess, card.show, view, *controls.outputs], **ASKING
    )
    card.guess.input(lambda: gr.Button(interactive=True), None, card.show, **CHEAP)
    gone = card.end.click(lambda: (gr.Column(visible=False), OVER), None, [card.column, view], **CHEAP)
    for event in (begun, earlier, later, told, gone):
        event.success(None, view, None, js=SHOW, api_visibility="private")
    for event in (begun, earlier, later, told):
        drawing.then_after(event)


def _left_out_html(titles: list[str]) -> str:
    if not titles:
        return ""
    named = ", ".join(f"“{escape(title)}”" for title in titles)
    return f'<p class="note">Left out, as no pair tried on this model bears it out: {named}.</p>'


def question_html(stop: Stop, left_out: list[str]) -> str:
    """What a stop says before it is answered."""
    heading = f'<h2 tabindex="-1">{escape(stop.title)}</h2>'
    return f'{_left_out_html(left_out)}{heading}<p role="status">{escape(stop.text)}</p>'


def answer_html(stop: Stop, found: Found, guess: int, query: dict[str, str | None]) -> str:
    """What it says once it is; `query` are the settings that this is of."""
    verdict = "You were right." if guess == found.answer else f"It is another: {stop.options[found.answer]}."
    return (
        f'<h2 tabindex="-1">{escape(stop.title)}</h2><p>{escape(stop.text)}</p>'
        f'<p role="status" class="found"><b>{escape(verdict)}</b> {escape(found.text)}</p>{stale_note(query)}'
    )


def end_html(here: Place, left_out: list[str]) -> str:
    """The last card."""
    count, right = len(here.right), sum(here.right.values())
    score = f"{right} of your {count} predictions {'was' if right == 1 else 'were'} right. " if count else ""
    words = (
        f"{score}Go on by yourself: change ρ and β, click a position to see inside its token, draw all schedules at "
        "once in Ablate, or make a set in Distill."
    )
    return f'{_left_out_html(left_out)}<h2 tabindex="-1">That was the tour</h2><p role="status">{escape(words)}</p>'
