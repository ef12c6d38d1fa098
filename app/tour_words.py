"""What the card of the tour says (app/tour.py), as HTML."""

from collections.abc import Mapping
from html import escape

from app.claims import Claim, Stop
from app.context import progress_bar, stale_note
from app.stops import PairSearch


def progress_html(stop: Stop, at: int, num_stops: int, latest: PairSearch) -> str:
    """Which stop a pair is looked for, and how many were tried."""
    words = (
        f"Stop {at + 1} of {num_stops}, “{stop.title}”: looking for a pair that bears it out, {latest.tried} of at "
        f"most {latest.of} tried."
    )
    bar = progress_bar(latest.tried / latest.of, "Search")
    return f'<div class="study">{bar}<p role="status">{escape(words)}</p></div>'


def stopped_html(stop: Stop, latest: PairSearch) -> str:
    tried = " None of them bears this stop out." if latest.tried else ""
    words = (
        f"Stopped: {latest.tried} of at most {latest.of} pairs were tried.{tried} Next looks for one for the stop "
        "after this."
    )
    return f'<h2 tabindex="-1">{escape(stop.title)}</h2><p role="status">{escape(words)}</p>'


def _left_out_html(titles: list[str]) -> str:
    if not titles:
        return ""
    named = ", ".join(f"“{escape(title)}”" for title in titles)
    return f'<p class="note">Left out, as no pair tried on this model bears it out: {named}.</p>'


def question_html(stop: Stop, left_out: list[str]) -> str:
    """What a stop says before it is answered."""
    heading = f'<h2 tabindex="-1">{escape(stop.title)}</h2>'
    return f'{_left_out_html(left_out)}{heading}<p role="status">{escape(stop.text)}</p>'


def answer_html(stop: Stop, found: Claim, guess: int, query: dict[str, str | None]) -> str:
    """What it says once it is; `query` are the settings that this is of."""
    verdict = "You were right." if guess == found.answer else f"It is another: {stop.options[found.answer]}."
    return (
        f'<h2 tabindex="-1">{escape(stop.title)}</h2><p>{escape(stop.text)}</p>'
        f'<p role="status" class="found"><b>{escape(verdict)}</b> {escape(found.text)}</p>{stale_note(query)}'
    )


END = {
    "var": "change ρ and β, click a position to see inside its token, draw all schedules at once in Ablate, or make a "
    "set in Distill.",
    "dit": "change ρ, α and guidance, draw steps and solvers beside one another in Ablate, or make a set in Distill.",
}


def end_html(predictions: Mapping[int, bool], left_out: list[str], kind: str) -> str:
    """The last card; `predictions` says of each stop whether it was right."""
    count, right = len(predictions), sum(predictions.values())
    score = f"{right} of your {count} predictions {'was' if right == 1 else 'were'} right. " if count else ""
    words = f"{score}Go on by yourself: {END[kind]}"
    return f'{_left_out_html(left_out)}<h2 tabindex="-1">That was the tour</h2><p role="status">{escape(words)}</p>'
