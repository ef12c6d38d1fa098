"""What the rooms of the page share: the model, whose turn it is, and how events and errors go."""

import json
import logging
import secrets
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from app import lent, scenes
from app.jobs import JobBook
from app.limits import Limits
from app.orders import Order
from app.recipes import Recipe
from app.scenes import Scene
from app.turns import Device, Turns
from app.words import shown
from app.zero import is_lent
from hieramp import Model
from hieramp.errors import UserError

DEVICE, STUDY = "device", "study"  # events that draw take turns; so do those that count
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
CHEAP: dict[str, Any] = {"queue": False, **PRIVATE}  # never waits for a drawing
# Through the queue, though it is cheap: the page shows no errors of events outside it (Gradio 6.31).
ASKING: dict[str, Any] = {"concurrency_limit": None, **PRIVATE}
DRAWING: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1, **PRIVATE}
# Studies compute batch by batch in the gaps between drawings (`Device.in_gaps`), two people's at once.
STUDYING: dict[str, Any] = {"concurrency_id": STUDY, "concurrency_limit": 2, **PRIVATE}

log = logging.getLogger(__name__)
C = TypeVar("C", bound=gr.components.Component)


@dataclass(frozen=True)
class Desk:
    """One server's worth of state; nothing in it belongs to a single visitor but under an id of theirs."""

    model: Model
    limits: Limits
    device: Device
    jobs: JobBook
    served: lent.Served
    turns: Turns = field(default_factory=Turns)

    @classmethod
    def make(cls, model: Model, limits: Limits | None = None, job_root: Path | None = None) -> "Desk":
        limits, device = limits or Limits(), Device()
        root = job_root or Path(gr.utils.get_upload_folder()) / "hieramp-jobs"
        served = lent.Served(model)
        return cls(model, limits, device, JobBook(model, root, device, limits, served), served)

    def grow(self, order: Order) -> Generator[Scene, None, None]:
        """The scene after every scale, in turn with the jobs."""
        return self.device.taken_for(lent.grow(self.served, order))

    def first_scene(self, order: Order) -> Scene:
        """What the page opens with: the finished drawing, or where the GPU is lent the scene before it."""
        if is_lent:
            return scenes.scene_of(self.model, order)
        *_, scene = self.grow(order)
        return scene

    def answer(self, what: str, asked: Order | Recipe, *more: Any) -> Any:
        """`lent.answer`, in turn with the jobs."""
        with self.device.drawing():
            return lent.answer(self.served, what, asked, *more)

    def study(self, what: str, order: Order, *more: Any) -> Generator[Any, None, None]:
        """`lent.study`, in the gaps between drawings."""
        return self.device.in_gaps(lent.study(self.served, what, order, *more))


def warn(text: str) -> None:
    """A toast that is read at leisure."""
    gr.Warning(shown(text), duration=20)


@contextmanager
def sentences() -> Iterator[None]:
    """What a visitor got wrong, as the page and the clients show it: text, though Gradio would render HTML.

    Whatever else fails is a fault of ours: it goes to the log with its traceback, under a reference that the visitor
    sees instead.
    """
    try:
        yield
    except UserError as error:
        raise gr.Error(shown(str(error)), print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        reference = secrets.token_hex(4)
        log.exception("request failed, reference %s", reference)
        sentence = f"Something went wrong on the server. Try again; if you report it, name the reference {reference}."
        raise gr.Error(sentence, print_exception=False) from error


def slider(low: float, high: float, value: float, step: float, label: str, **options: Any) -> gr.Slider:
    options = {"buttons": [], "min_width": 120, "interactive": True, **options}
    return as_given(gr.Slider(low, high, value, step=step, label=label, **options))


def as_given(component: C) -> C:
    """The component with its value as it was typed: whoever reads it says in a sentence what is wrong with it.

    Gradio would round it without a word, or refuse it with a traceback in the log.
    """
    vars(component)["preprocess"] = lambda value: value
    return component


def stale_note(query: Mapping[str, str | None]) -> str:
    """What a result says, where the page finds that the controls have moved on from the settings it was made by."""
    text = "The controls have been changed since: this is of the settings before."
    return f'<p class="stale-note" data-of="{escape(json.dumps(query))}" hidden>{text}</p>'


def html(value: Any = "", **options: Any) -> gr.HTML:
    """Plain HTML, without Gradio's own looks or listeners."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, **options)
