"""What the tabs of the page share: the model, whose turn it is, and how events and errors go."""

import json
import logging
import secrets
from abc import ABCMeta
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from app import computing, view_models
from app.distill_requests import DistillRequest
from app.jobs import JobBook
from app.models import MODEL, Offered
from app.pieces import Piece
from app.scheduling import Device, DeviceQueue
from app.view_models import ViewModel
from app.view_requests import ViewRequest
from app.visitor_limits import VisitorLimits
from app.words import shown
from app.zero import on_zero_gpu
from hieramp import Model
from hieramp.data import has_test_split
from hieramp.errors import UserError

DEVICE, STUDY = "device", "study"  # events that draw take turns; so do those that count
PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
CHEAP: dict[str, Any] = {"queue": False, **PRIVATE}  # never waits for a drawing
# Through the queue, though it is cheap: the page shows no errors of events outside it (Gradio 6.31).
ASKING: dict[str, Any] = {"concurrency_limit": None, **PRIVATE}
DRAWING: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1, **PRIVATE}
# What the viewer waits for, in pieces between those of other drawings (`AppContext.pieces`).
ANSWERING: dict[str, Any] = {"concurrency_id": "answers", "concurrency_limit": 4, **PRIVATE}
# Studies compute batch by batch in the gaps between drawings (`Device.in_gaps`), two people's at once.
STUDYING: dict[str, Any] = {"concurrency_id": STUDY, "concurrency_limit": 2, **PRIVATE}

log = logging.getLogger(__name__)
C = TypeVar("C", bound=gr.components.Component)


@dataclass(frozen=True)
class AppContext:
    """One server's worth of state; nothing in it belongs to a single visitor but under an id of theirs."""

    model: Model
    limits: VisitorLimits
    device: Device
    jobs: JobBook
    served: computing.Served
    models: tuple[Offered, ...] = ()  # that this server offers, this one among them; () where there is no other
    scheduling: DeviceQueue = field(default_factory=DeviceQueue)
    data: str | None = None  # real images, train/ and test/, for the verdict on a set

    @classmethod
    def make(
        cls,
        model: Model,
        limits: VisitorLimits | None = None,
        job_root: Path | None = None,
        data: str | None = None,
        models: tuple[Offered, ...] = (),
        device: Device | None = None,
    ) -> "AppContext":
        """Of a model; `device` is the one that several models' pages share.

        Raises:
            UserError: `data` holds no real images to train on, or none to test on.
        """
        if data is not None and not (Path(data).is_dir() and has_test_split(data)):
            raise UserError(f"{data} is no folder of real images: give one with train/ and test/ inside")
        limits, device = limits or VisitorLimits(), device or Device()
        root = job_root or Path(gr.utils.get_upload_folder()) / "hieramp-jobs" / model.name
        served = computing.Served(model)
        return cls(model, limits, device, JobBook(model, root, device, limits, served), served, models, data=data)

    @property
    def named(self) -> dict[str, str]:
        """What an address says of the model, where there is more than one."""
        return {MODEL: self.model.name} if len(self.models) > 1 else {}

    def grow(self, view_request: ViewRequest) -> Generator[ViewModel, None, None]:
        """The view model after every scale, in turn with the jobs."""
        return self.device.taken_for(computing.grow(self.served, view_request))

    def first_view(self, view_request: ViewRequest) -> ViewModel:
        """What the page opens with: the finished drawing, or where the GPU is lent the view model before it."""
        if on_zero_gpu:
            return view_models.view_model_of(self.model, view_request)
        *_, view_model = self.grow(view_request)
        return view_model

    def answer(self, what: str, asked: ViewRequest, *more: Any) -> Any:
        """`computing.answer`, in turn with the jobs."""
        with self.device.drawing():
            return computing.answer(self.served, what, asked, *more)

    def pieces(self, what: str, view_request: ViewRequest, asked: Mapping[str, Any]) -> Generator[Piece, None, None]:
        """`computing.study` of an answer that the viewer waits for, in turn with drawings as one of them."""
        return self.device.taken_for(computing.study(self.served, what, view_request, asked))

    def study(self, what: str, asked: ViewRequest | DistillRequest, *more: Any) -> Generator[Any, None, None]:
        """`computing.study`, in the gaps between drawings."""
        return self.device.in_gaps(computing.study(self.served, what, asked, *more))


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
    return _SliderAsGiven(low, high, value, step=step, label=label, **options)


def _as_typed(self: gr.Slider, payload: float) -> float:
    return payload


# As `as_given` makes one, but by its class: where a handler changes a label Gradio makes the slider anew. Made past
# Gradio's metaclass, which would write context.pyi beside this file. `is_template`: drawn in the browser as Gradio's.
_SliderAsGiven = ABCMeta.__new__(
    type(gr.Slider), "_SliderAsGiven", (gr.Slider,), {"is_template": True, "preprocess": _as_typed}
)


def as_given(component: C) -> C:
    """The component with its value as it was typed: whoever reads it says in a sentence what is wrong with it.

    Gradio would round it without a word, or refuse it with a traceback in the log.
    """
    vars(component)["preprocess"] = lambda value: value
    return component


STALE = "The settings have been changed since: this is of those before."


def stale_note(query: Mapping[str, str | None], text: str = STALE) -> str:
    """What a result says, where the page finds that it is of other settings than those that stand there now.

    These are the controls that the `query` names, and the form of the study around it (`study.run`).
    """
    return f'<p class="stale-note" data-of="{escape(json.dumps(query))}" hidden>{escape(text)}</p>'


def html(value: Any = "", **options: Any) -> gr.HTML:
    """Plain HTML, without Gradio's own looks or listeners."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, **options)


def progress_bar(share: float, label: str) -> str:
    """HTML of a bar that a share from 0 to 1 of the work is done; a screen reader calls it by the label."""
    percent = 100 * share
    values = f'aria-label="{escape(label)}" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent:.0f}"'
    return f'<div class="bar" role="progressbar" {values}><i style="width:{percent:.1f}%"></i></div>'
