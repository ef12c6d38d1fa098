"""Studies: what takes longer than a moment. Each says at once that it began, how far it is and how long it takes yet,
and has a button that ends it after the batch in hand."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr
import plotly.graph_objects as go
from gradio.components.plot import PlotData
from matplotlib.figure import Figure

from app import plots
from app.context import CHEAP, STUDYING, AppContext, progress_bar, stale_note
from app.distill_requests import time_words
from hieramp import figures
from hieramp.analysis.plotting import on_page
from hieramp.files import with_settings

NOTHING = "Nothing is counted until you ask."
BEGUN = "Counting: the first samples are being drawn …"
Answer = tuple[int, int, str, tuple[Any, ...]]  # done, of how many, the words as HTML, the other outputs


def run(
    context: AppContext,
    name: str,
    buttons: tuple[gr.Button, gr.Button],
    study: Callable[[dict[Any, Any]], Iterator[Answer]],
    inputs: set[Any],
    form: Sequence[Any],
    outputs: list[Any],
    nothing: str = NOTHING,
    begun: str = BEGUN,
    also: Sequence[Callable[..., Any]] = (),
) -> None:
    """A study on two buttons: the first begins it, and so do the events `also`; the second ends it.

    `form` are the fields that ask for it, beside what else is in `inputs`. `outputs` begin with the words, as HTML: a
    note in them (`context.stale_note`) is shown as soon as the form is another than the one that was asked with.
    """
    button, end = buttons

    def key(request: gr.Request) -> str:
        return f"{request.session_hash}/{name}"

    def ask(request: gr.Request) -> tuple[int, str, gr.Button]:
        return context.scheduling.take(key(request)), said(begun), gr.Button(interactive=True)

    def stop(request: gr.Request) -> gr.Button:
        context.scheduling.take(key(request))
        return gr.Button(interactive=False)

    def study_on(request: gr.Request, given: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        mine, begin = given[ticket], time.monotonic()
        if context.scheduling.is_stale(key(request), mine):  # ended while it waited for its turn
            yield {outputs[0]: said(nothing)}
            return
        asked = [given[field] for field in form]
        try:
            with closing(study(given)) as found:  # type: ignore[type-var]
                for done, wanted, words, others in found:
                    has_stopped = context.scheduling.is_stale(key(request), mine)
                    more = '<p class="stopped">Stopped: this is as far as it came.</p>' if has_stopped else ""
                    if not has_stopped:
                        more = progress(done, wanted, time.monotonic() - begin)
                    words = answering(name, asked, more + words) if form else more + words
                    yield dict(zip(outputs, (words, *others), strict=True))
                    if has_stopped:
                        return
        except gr.Error:
            yield {outputs[0]: said(nothing)}
            raise
        finally:
            context.scheduling.forget(key(request))

    ticket = gr.Number(0, visible=False, precision=0)
    began = [ticket, outputs[0], end]
    for begins in (button.click, *also):
        asked = begins(ask, None, began, trigger_mode="once", **CHEAP)
        studied = asked.then(study_on, {ticket, *inputs, *form}, outputs, **STUDYING)
        studied.then(lambda: gr.Button(interactive=False), None, end, **CHEAP)
    end.click(stop, None, end, **CHEAP)
    if form:
        filled = f"(...values) => window.hieramp.filled({json.dumps(name)}, values)"
        gr.on([field.change for field in form], None, list(form), None, js=filled, api_visibility="private")


def answering(name: str, asked: Sequence[Any], words: str) -> str:
    """Words that know which form they answer: web/page.js compares it with the one that stands there."""
    return f'<div data-study="{escape(name)}" data-asked="{escape(json.dumps(asked))}">{words}</div>'


def progress(done: int, wanted: int, seconds: float) -> str:
    """A bar and the time left, by what has passed; nothing once all is done."""
    if done >= wanted or not done:
        return ""
    words = f"{done} of {wanted}, about {time_words(seconds / done * (wanted - done))} left."
    return f'<div class="study">{progress_bar(done / wanted, "Progress")}<p>{words}</p></div>'


def said(words: str, links: str = "", of: Mapping[str, str | None] | None = None, more: Sequence[str] = ()) -> str:
    """What a study says: `of` are the settings that it is of, `more` are further sentences, a line each."""
    note = stale_note(of) if of else ""
    lines = "".join(f'<p class="finding">{escape(line)}</p>' for line in more)
    return f'<p role="status">{escape(words)}</p>{lines}{note}<p class="plain links">{links}</p>'


def link(name: str, text: str, about: Mapping[str, Any], shown: str = "") -> str:
    """A table to take away, inside its link; `about`, what it was made by, is above it in lines that begin with #.

    The link says `shown`, or the name of the file.
    """
    return file_link(name, with_settings(text, about).encode(), "text/csv;charset=utf-8", shown)


def plot(figure: Figure, words: str) -> str:
    """A figure on the page, `words` for whoever does not see it; wider than a phone, it scrolls by itself."""
    source = "data:image/svg+xml;base64," + b64encode(on_page(figure)).decode()
    picture = f'<img src="{source}" alt="{escape(words)}">'
    return f'<div class="wide-plot" tabindex="0" role="group" aria-label="Plot">{picture}</div>'


def interactive(figure: go.Figure, name: str = "") -> PlotData:
    """A Plotly figure as `gr.Plot` takes it, with its buttons; its camera saves an SVG of this name."""
    return PlotData(type="plotly", plot=plots.with_buttons(figure, name))


def result_links(start: str, what: str, table: str, about: Mapping[str, Any], figure: Figure) -> str:
    """A result to take away, as a table and as a plot: their links stay together."""
    links = link(f"{start}-{what}.csv", table, about, f"{what}.csv") + plot_links(
        f"{start}-{what}", figure, about, what
    )
    return f'<span class="files">{links}</span>'


def plot_links(start: str, figure: Figure, about: Mapping[str, Any], shown: str) -> str:
    """The same figure to take away, as PNG and SVG; the links say `shown` and the kind."""
    kinds: dict[figures.Kind, str] = {"png": "image/png", "svg": "image/svg+xml"}
    return "".join(
        file_link(f"{start}.{kind}", figures.figure_bytes(figure, kind, dict(about), dpi=200), media, f"{shown}.{kind}")
        for kind, media in kinds.items()
    )


def file_link(name: str, data: bytes, kind: str, text: str = "") -> str:
    """A file inside its link."""
    source = f"data:{kind};base64," + b64encode(data).decode()
    return f'<a download="{escape(name)}" href="{source}">{escape(text or name)}</a> '
