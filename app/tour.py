"""The tour: a card above the pictures sets them up, asks for a prediction, and then shows what comes (app/stops.py).

A pair of pictures that bears a stop out is looked for first. That is told as it goes on, and can be stopped.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from app import tour_words, view_requests
from app.claims import Claim, Shares, ViewModel
from app.context import ASKING, CHEAP, PRIVATE, AppContext, html, sentences
from app.controls import Controls
from app.distill_requests import has_classifier
from app.explore import DrawChain
from app.stops import ChosenPair, PairSearch, asked_of, search, shown_of, stops_of
from app.view_requests import ViewRequest

SHOW = "view => window.hieramp.tour(JSON.parse(view))"  # web/lecture.js
OVER = '{"asking": false, "over": true}'  # what the card's end tells the page
# A search takes the device drawing by drawing, so that those of others go between; two visitors search at once.
SEARCHING: dict[str, Any] = {"concurrency_id": "tour", "concurrency_limit": 2, **PRIVATE}
Updates = dict[Any, Any]  # what components get


@dataclass(frozen=True)
class Place:
    """Where a visitor stands in the tour."""

    at: int = 0
    label: int = 0
    seed: int = 0
    found: Claim | None = None  # what will be shown; None at the end, and where the search was stopped
    right: dict[int, bool] = field(default_factory=dict)  # predictions, by stop


@dataclass(frozen=True)
class Card:
    """The parts of the card."""

    column: gr.Column
    text: gr.HTML
    guess: gr.Radio
    progress: gr.HTML
    stop: gr.Button
    show: gr.Button
    back: gr.Button
    onward: gr.Button
    end: gr.Button

    @property
    def parts(self) -> list[Any]:
        return list(vars(self).values())


class StoppedError(Exception):
    """A search was ended by its visitor."""


def build() -> Card:
    """The card above the pictures while the tour runs."""
    with gr.Column(visible=False, elem_id="tour") as column:
        text = html("", elem_id="tour-text")
        guess = gr.Radio([], label="Your prediction", visible=False, interactive=True, elem_id="tour-guess")
        progress = html("", elem_id="tour-progress", elem_classes="prose-line")
        with gr.Row(elem_classes="tour-buttons"):
            stop = gr.Button("Stop looking", size="sm", scale=0, min_width=104, visible=False)
            back = gr.Button("Back", size="sm", scale=0, min_width=72)
            show = gr.Button("Show it", size="sm", scale=0, min_width=88, variant="primary", interactive=False)
            onward = gr.Button("Next", size="sm", scale=0, min_width=72)
            end = gr.Button("End the tour", size="sm", scale=0, min_width=104)
    return Card(column, text, guess, progress, stop, show, back, onward, end)


def connect(
    context: AppContext, controls: Controls, drawing: DrawChain, tabs: gr.Tabs, card: Card, start: gr.Button
) -> None:
    """Let the card drive the real controls."""
    tour = Tour(context, controls, tabs, card)
    place, view, outputs = tour.place, tour.view, tour.outputs
    begun = start.click(tour.begin, controls.inputs, outputs, **SEARCHING)
    earlier = card.back.click(tour.back, place, outputs, **SEARCHING)
    later = card.onward.click(tour.onward, place, outputs, **SEARCHING)
    told = card.show.click(tour.reveal, [place, card.guess], outputs, **ASKING)
    card.guess.input(lambda: gr.Button(interactive=True), None, card.show, **CHEAP)
    card.stop.click(tour.stop, None, card.stop, **CHEAP)
    gone = card.end.click(tour.end, None, [card.column, view], **CHEAP)
    for event in (begun, earlier, later, told, gone):
        event.success(None, view, None, js=SHOW, api_visibility="private")
    for event in (begun, earlier, later, told):
        drawing.then_after(event)


class Tour:
    """What the buttons of the card do."""

    def __init__(self, context: AppContext, controls: Controls, tabs: gr.Tabs, card: Card) -> None:
        self.context, self.controls, self.tabs, self.card = context, controls, tabs, card
        self.model, self.stops = context.model, stops_of(context.model)
        self.place, self.view = gr.State(Place()), gr.Textbox("{}", visible=False)
        self.outputs = [self.place, self.view, tabs, *card.parts, *controls.outputs]

    # The buttons

    def begin(self, request: gr.Request, given: dict[Any, Any]) -> Iterator[Updates]:
        """From the first stop, with the class and seed of the controls where they hold some."""
        values, fresh = self.controls.values(given), view_requests.defaults(self.model)
        label, seed = values["class_name"], values["seed"]
        label = label if isinstance(label, int) else fresh["class_name"]
        seed = seed if isinstance(seed, int) and seed >= 0 else fresh["seed"]
        yield {self.card.column: gr.Column(visible=True), self.tabs: gr.Tabs(selected="explore")}
        yield from self._look(request, Place(label=label, seed=seed), 0, 1)

    def back(self, request: gr.Request, here: Place) -> Iterator[Updates]:
        yield from self._look(request, here, here.at - 1, -1)

    def onward(self, request: gr.Request, here: Place) -> Iterator[Updates]:
        yield from self._look(request, here, here.at + 1, 1)

    def reveal(self, here: Place, guess: int | None) -> Updates:
        """What comes, beside what was guessed."""
        if here.found is None or guess is None:
            return {self.view: gr.skip()}
        stop, found = self.stops[here.at], here.found
        view_request = shown_of(self.model, here.label, here.seed, stop)
        return {
            self.place: replace(here, right=here.right | {here.at: guess == found.answer}),
            self.card.text: tour_words.answer_html(stop, found, guess, view_requests.address(self.model, view_request)),
            self.card.guess: gr.Radio(interactive=False),
            self.card.show: gr.Button(interactive=False),
            self.view: _view(asking=False, scale=found.scale, overlay=stop.overlay, focus=False),
        } | self._settings(view_request)

    def stop(self, request: gr.Request) -> gr.Button:
        """End the search after the step in hand."""
        self.context.scheduling.take(_visitor(request))
        return gr.Button(interactive=False)

    def end(self, request: gr.Request) -> tuple[gr.Column, str]:
        for what in (_visitor(request), _presence(request)):
            self.context.scheduling.take(what)
        return gr.Column(visible=False), OVER

    # The search

    def _look(self, request: gr.Request, here: Place, at: int, step: int) -> Iterator[Updates]:
        """The first stop from `at` on in this direction that a pair bears out; past the last one the end."""
        visitor, left_out, scheduling = _visitor(request), list[str](), self.context.scheduling
        ticket, presence = scheduling.take(visitor), scheduling.take(_presence(request))
        with sentences():
            while 0 <= at < len(self.stops):
                latest = PairSearch(0, 0)
                try:
                    for latest in self._search(visitor, ticket, here, at):
                        if latest.pair is None:
                            yield self._looking(at, latest)
                except StoppedError:
                    has_left = scheduling.is_stale(_presence(request), presence)
                    # at the end Gradio sends the last answer once more: to who has left, one that changes nothing
                    yield (
                        {self.place: gr.skip()} if has_left else self._stopped(replace(here, at=at, found=None), latest)
                    )
                    return
                if latest.pair is not None:
                    yield self._asking(_moved(here, at, latest.pair), left_out)
                    return
                left_out.append(self.stops[at].title)
                at += step
            if step < 0:  # nothing before holds: where one was
                yield from self._look(request, here, here.at, 1)
                return
            yield self._the_end(replace(here, at=len(self.stops), found=None), left_out)

    def _search(self, visitor: str, ticket: int, here: Place, at: int) -> Iterator[PairSearch]:
        def check() -> None:
            if self.context.scheduling.is_stale(visitor, ticket):
                raise StoppedError

        def draw(view_request: ViewRequest) -> ViewModel:
            finished: ViewModel = {}
            with closing(self.context.grow(view_request)) as drawn:
                for view_model in drawn:
                    check()
                    finished = view_model
            return finished

        def ask(view_request: ViewRequest) -> Shares:
            shares: Shares = self.context.answer("opinion", view_request, {"sample": 0})["asked"]
            check()
            return shares

        judge = ask if has_classifier(self.model) else None
        for found in search(self.model, self.stops[at], here.label, here.seed, draw, judge):
            check()
            yield found

    # What is shown

    def _looking(self, at: int, latest: PairSearch) -> Updates:
        """What stands there before stays, out of reach, with how far the search has come below it."""
        still = (self.card.show, self.card.back, self.card.onward)
        return {
            # again, as everywhere below: of two answers that come at once Gradio's page may take the later one alone
            self.card.column: gr.Column(visible=True),
            self.card.guess: gr.Radio(interactive=False),
            self.card.progress: tour_words.progress_html(self.stops[at], at, len(self.stops), latest),
            self.card.stop: gr.Button(visible=True, interactive=True),
        } | {button: gr.Button(interactive=False) for button in still}

    def _stopped(self, here: Place, latest: PairSearch) -> Updates:
        """Without a pair: there is the way back, on and out."""
        return self._without_question(here, tour_words.stopped_html(self.stops[here.at], latest))

    def _asking(self, here: Place, left_out: list[str]) -> Updates:
        stop = self.stops[here.at]
        options = [(option, i) for i, option in enumerate(stop.options)]
        return (
            self._bare(here)
            | {
                self.card.text: tour_words.question_html(stop, left_out),
                self.card.guess: gr.Radio(options, value=None, label=stop.question, visible=True, interactive=True),
                self.card.show: gr.Button(interactive=False, visible=True),
                self.view: _view(asking=True),
            }
            | self._settings(asked_of(self.model, here.label, here.seed))
        )

    def _the_end(self, here: Place, left_out: list[str]) -> Updates:
        text = tour_words.end_html(here.right, left_out, self.model.kind)
        return self._without_question(here, text) | {self.card.onward: gr.Button(interactive=False)}

    def _without_question(self, here: Place, text: str) -> Updates:
        return self._bare(here) | {
            self.card.text: text,
            self.card.guess: gr.Radio(visible=False),
            self.card.show: gr.Button(visible=False),
        }

    def _bare(self, here: Place) -> Updates:
        """What all of these have in common: nothing is being looked for."""
        return {
            self.card.column: gr.Column(visible=True),
            self.place: here,
            self.card.progress: "",
            self.card.stop: gr.Button(visible=False),
            self.card.back: gr.Button(interactive=here.at > 0),
            self.card.onward: gr.Button(interactive=True),
            self.view: _view(asking=False),
            self.tabs: gr.Tabs(selected="explore"),
        }

    def _settings(self, view_request: ViewRequest) -> Updates:
        return self.controls.updates(view_requests.values_on_page(self.model, view_request))


def _visitor(request: gr.Request) -> str:
    """Whose search it is: a newer ticket ends it."""
    return f"{request.session_hash}/tour"


def _presence(request: gr.Request) -> str:
    """Whether they are still on the tour: whoever ended it is not called back."""
    return f"{request.session_hash}/on-tour"


def _moved(here: Place, at: int, pair: ChosenPair) -> Place:
    return replace(here, at=at, label=pair.label, seed=pair.seed, found=pair.found)


def _view(asking: bool, scale: int | None = None, overlay: float = 0.0, focus: bool = True) -> str:
    """What the page is told of the view."""
    return json.dumps({"asking": asking, "scale": scale, "overlay": overlay, "compare": False, "focus": focus})
