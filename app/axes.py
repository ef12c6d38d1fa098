"""The axis of a sheet: one field of a request with the values that it takes in turn. Pure, without Gradio."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app import kinds, view_requests
from app.kinds import AnyModel
from app.names import name_of
from app.view_requests import ViewRequest
from hieramp import Settings
from hieramp.captions import greek_of
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.fields import Choice, Indices, Number, Part, Positions

SCHEDULE, CLASS, SEED = "schedule", "class_name", "seed"
NAMES = {SCHEDULE: "Schedule", CLASS: "Class", SEED: "Seed"}
AS_USUAL = "default"  # among values: what is meant where none are named
MOST_VALUES = 64
SHARES = (0.1, 0.25, 0.5, 0.75)
STRENGTHS = {"β": (1.0, 2.5, 5.0, 10.0), "γ": (0.2, 0.5, 2.0, 5.0), "α": (0.5, 1.0, 2.0, 4.0)}
SOLVER_STEPS = (5, 10, 25, 50)
VALUES = 5  # that any other number gets where nothing is said


@dataclass(frozen=True)
class Axis:
    """A field and its values, as the controls hold them; `labels` say each on a sheet."""

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    def apply(self, model: AnyModel, view_request: ViewRequest, i: int) -> ViewRequest:
        """The request with value number i.

        Raises:
            UserError: no picture can be drawn by it.
        """
        value = self.values[i]
        if self.name == SCHEDULE:
            return replace(view_request, settings=kinds.with_schedule(view_request.settings, value, model.kind))
        values = view_requests.values_of(model, view_request)
        if self.name == "mode" and value != values["mode"]:
            values |= view_requests.in_mode(values, value)[0]
        if self.name.endswith("_rho"):  # positions chosen by hand would take its place
            values["positions"] = ""
        return view_requests.read_request(model, values | {self.name: value})


def choices(model: AnyModel) -> list[tuple[str, str]]:
    """What an axis can be: what the page calls it, and its name."""
    parts = [(_plain_label(model, part, "logit"), part.name) for part in _parts(model).values()]
    return [*((label, name) for name, label in NAMES.items()), *parts]


def hint(model: AnyModel, name: str) -> str:
    """How the values of a field are written."""
    kind = _kind(model, name)
    if isinstance(kind, Number):
        return "Numbers, separated by commas."
    if isinstance(kind, Indices):
        return f"Lists like 4,5, separated by semicolons; {AS_USUAL}: {kind.default}."
    if isinstance(kind, Positions):
        return f"Like 3:1f, separated by spaces; {AS_USUAL}: chosen by saliency."
    if name == SEED:
        return "Whole numbers, separated by commas."
    if name == CLASS:
        return "Names or numbers, separated by commas."
    words = kinds.schedules(model.kind) if name == SCHEDULE else kind.words if isinstance(kind, Choice) else ()
    return f"Separated by commas, of {', '.join(words)}." if words else "Separated by commas."


def suggestion(model: AnyModel, name: str, view_request: ViewRequest) -> str:
    """The values that a field has where a visitor names none, as text that `read_axis` reads."""
    kind = _kind(model, name)
    if name == SCHEDULE:
        return ", ".join(word for word in kinds.schedules(model.kind) if word != "off")  # which is the baseline
    if name == CLASS:
        return ", ".join(str(label) for label in range(min(6, len(model.class_names))))
    if name == SEED:
        return ", ".join(str(view_request.seeds[0] + i) for i in range(6))
    if isinstance(kind, Choice):
        return ", ".join(kind.words)
    if isinstance(kind, Indices):
        count = model.depth if isinstance(model, DiffusionModel) or name == "blocks" else len(model.var.scales)
        return "; ".join([AS_USUAL, *map(str, sorted({round(i * (count - 1) / 4) for i in range(1, 5)}))])
    if isinstance(kind, Number):
        return ", ".join(map(kind.text, _numbers(model, name, kind, view_request)))
    return AS_USUAL


def _numbers(model: AnyModel, name: str, kind: Number, view_request: ViewRequest) -> tuple[float, ...]:
    if name.endswith("_rho"):
        return SHARES
    if name.endswith("_strength"):
        return STRENGTHS[greek_of(view_request.settings.mode, model.kind)]
    if name == "steps":
        return SOLVER_STEPS
    low, high = view_requests.slider_range(model, kind)
    found = [low + (high - low) * i / (VALUES - 1) for i in range(VALUES)]
    found = [round(x) if kind.whole else round(x, 4) for x in found]
    return tuple(x for x in dict.fromkeys(found) if not kind.over or x > kind.low)


def read_axis(model: AnyModel, name: Any, text: Any, view_request: ViewRequest) -> Axis:
    """A field and the values that a visitor wrote; those of `suggestion` where the text is empty.

    Raises:
        UserError: no such field, or a value that it cannot have.
    """
    known = {name: label for label, name in choices(model)}
    if name not in known:
        raise UserError(f"no field is called {str(name)[:40]!r}; it must be one of {', '.join(known)}")
    text = str(text or "")[:2000].strip() or suggestion(model, name, view_request)
    kind = _kind(model, name)
    separator = None if isinstance(kind, Positions) else ";" if isinstance(kind, Indices) else ","
    items = [item.strip() for item in text.split(separator) if item.strip()]
    values = list(dict.fromkeys(_value(model, name, kind, item) for item in items))
    if len(values) > MOST_VALUES:
        raise UserError(f"{known[name]} has {len(values)} values; give at most {MOST_VALUES}")
    axis = Axis(name, tuple(values), tuple(_label(model, name, value, view_request) for value in values))
    for i in range(len(values)):  # each must be one that can be drawn
        axis.apply(model, view_request, i)
    return axis


def _value(model: AnyModel, name: str, kind: Any, item: str) -> Any:
    if name == SCHEDULE:
        word, known = item.replace(" ", "-"), kinds.schedules(model.kind)
        if word not in known:
            raise UserError(f"there is no schedule {item[:40]!r}; it must be one of {', '.join(known)}")
        return word
    if name == CLASS:
        return view_requests.read_class(model, item)
    spoken = name.replace("_", " ")
    if name == SEED:
        return view_requests.whole("the seed", Number().parse("the seed", item), 0, view_requests.MAX_SEED)
    if isinstance(kind, Number):
        return kind.parse(spoken, item)
    if item == AS_USUAL:
        return "" if kind.type is str else kind.words[0]
    return kind.text(kind.parse(spoken, item))


def _label(model: AnyModel, name: str, value: Any, view_request: ViewRequest) -> str:
    if name == SCHEDULE:
        return str(value).replace("-", " ")
    if name == CLASS:
        return name_of(model, value)
    if name == SEED:
        return f"seed {value}"
    part = _part(model, name)
    text = value if isinstance(value, str) else part.kind.text(value)
    if name.endswith("_rho"):
        text = f"{100 * value:.4g}%"
    return f"{_plain_label(model, part, view_request.settings.mode)} {text or AS_USUAL}"


def _plain_label(model: AnyModel, part: Part, mode: str) -> str:
    """The label of a control, without what is in brackets."""
    return view_requests.label_of(model, part, mode).split(" (")[0]


def _part(model: AnyModel, name: str) -> Part:
    return _parts(model)[name]


def _kind(model: AnyModel, name: str) -> Any:
    part = _parts(model).get(name)
    return part.kind if part else None


def _parts(model: AnyModel) -> Mapping[str, Part]:
    return {part.name: part for part in Settings.parts(model.kind) if kinds.is_offered(model, part)}
