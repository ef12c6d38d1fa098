"""What a visitor asks for: the values of the page ⇄ a checked request ⇄ an address, and the settings inside a picture.

Everything here is pure. Values go by their names: those of the request (class_name, seed, count) and of the parts of
`hieramp.Settings`. The controls of the page hold them and the endpoints take them; an `Order` is what the model is
asked to draw.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app import kinds
from app.curated import opening
from app.kinds import AnyModel
from hieramp import Model, Settings, captions
from hieramp.captions import GREEK, greek_of
from hieramp.class_conditional import DESCRIBED
from hieramp.class_names import short_name
from hieramp.errors import UserError
from hieramp.fields import Number, Part
from hieramp.figures import STUDY
from hieramp.scales import STAGES
from hieramp.settings import FOR_SETS, set_settings

MAX_COUNT = 8
MAX_SEED = 2**53 - 1  # a browser's numbers are exact up to here
REQUEST: dict[str, Any] = {"class_name": 0, "seed": 0, "count": 1}
SHEET = "sheet"  # the labels of the pictures on a sheet, beside the settings of its first
PLAIN = {name: row.default for name, row in Settings.table().items()}
IN_ADDRESS = {"class_name": "class", "positions": "paint"}  # the others go by their own names


@dataclass(frozen=True)
class ViewRequest:
    """What to draw: n baselines and n amplified pictures of one class, from the same n seeds."""

    label: int
    seeds: tuple[int, ...]
    settings: Settings

    @property
    def batch(self) -> tuple[list[int], tuple[int, ...], list[Settings]]:
        """Labels, seeds and settings of one batch: the baselines first."""
        count = len(self.seeds)
        return [self.label] * 2 * count, self.seeds * 2, [self.settings.plain] * count + [self.settings] * count


def defaults(model: AnyModel) -> dict[str, Any]:
    """All values as a fresh page has them, in the order of every door."""
    return REQUEST | opening(model) | set_settings(model.kind, model.defaults).to_parts(model.kind)


def read_request(model: AnyModel, values: Mapping[str, Any]) -> ViewRequest:
    """The values of the page, checked.

    Raises:
        UserError: one that is empty, out of range or no number, or a class the model does not have.
    """
    label = read_class(model, values.get("class_name"))
    first = whole("the seed", values.get("seed"), 0, MAX_SEED)
    seeds = tuple(range(first, first + whole("the number of images", values.get("count"), 1, MAX_COUNT)))
    settings = Settings.from_parts(values, model.kind)
    model.check(settings)
    return ViewRequest(label, seeds, settings)


def read_class(model: AnyModel, name: Any) -> int:
    """The label of a class field.

    Raises:
        UserError: it is empty, or the model has no such class.
    """
    if name is None or not str(name).strip():
        raise UserError("no class is chosen: choose one, or press Random")
    return model.label_of(name if isinstance(name, int) else str(name)[:200])


def whole(name: str, value: Any, low: int, high: int) -> int:
    found = Number().check(name, value)
    if not low <= found <= high or found != int(found):
        raise UserError(f"{name} is {found:g}; give a whole number from {low} to {high}")
    return int(found)


def values_of(model: AnyModel, view_request: ViewRequest) -> dict[str, Any]:
    """A request as the values that give it."""
    request = {"class_name": view_request.label, "seed": view_request.seeds[0], "count": len(view_request.seeds)}
    return request | view_request.settings.to_parts(model.kind)


def values_on_page(model: AnyModel, view_request: ViewRequest) -> dict[str, Any]:
    """The same, for the controls of the page.

    Raises:
        UserError: a value beyond what its slider shows; the endpoints take more.
    """
    values = values_of(model, view_request)
    for part in Settings.parts(model.kind):
        if isinstance(part.kind, Number):
            low, high = slider_range(model, part.kind)
            if not low <= values[part.name] <= high:
                name, value = part.name.replace("_", " "), values[part.name]
                raise UserError(f"{name} is {value:g}, but this page goes from {low:g} to {high:g}")
    return values


def slider_range(model: AnyModel, kind: Number) -> tuple[float, float]:
    """What the slider of a number spans."""
    low, high = kind.shown
    if kind.upto and isinstance(model, Model):
        high = max(high, getattr(model.vqvae.config, kind.upto))
    return low, high


def first_request(model: AnyModel) -> ViewRequest:
    """What a visitor sees without a click."""
    return read_request(model, defaults(model))


def schedule_values(name: str, model_kind: str = "var") -> dict[str, Any]:
    """What choosing a schedule of the paper sets: its stages and its mode, and no positions by hand."""
    table = Settings.table(model_kind).values()
    rows = [row for row in table if row.group in ("stages", "mode") or row.name == "positions"]
    values = Settings.of(kinds.schedules(model_kind)[name]).to_parts(model_kind)
    return {part.name: values[part.name] for row in rows for part in row.parts}


# Addresses


def to_query(model: AnyModel, view_request: ViewRequest) -> dict[str, str]:
    """The request as parameters of an address; what came later is named only where it is not the table's default."""
    values, table = values_of(model, view_request), FOR_SETS[model.kind].to_parts(model.kind)
    query = {
        "class": _name_of(model, view_request.label),
        "seed": str(values["seed"]),
        "count": str(values["count"]),
    }
    for row in Settings.table(model.kind).values():
        for part in row.parts:
            value = values[part.name]
            text = value if isinstance(value, str) else part.kind.text(value)
            if text and (row.always or value != table[part.name]):
                query[in_address(part.name)] = text
    return query


def address(model: AnyModel, view_request: ViewRequest) -> dict[str, str | None]:
    """The same with every parameter there is; None is one that the address is to lose."""
    query = to_query(model, view_request)
    return {in_address(name): query.get(in_address(name)) for name in defaults(model)}


def in_address(name: str) -> str:
    return IN_ADDRESS.get(name, name)


def left_out(model: AnyModel, query: Mapping[str, str]) -> dict[str, Any]:
    """What an address means by the values that it leaves out.

    One that a page wrote names all of the sampling that is always named: the rest of it is the table's default,
    whatever the model's own was then and is now. Any other is as on a fresh page.
    """
    rows = [row for row in Settings.table(model.kind).values() if row.group == "sampling"]
    is_whole = all(in_address(part.name) in query for row in rows if row.always for part in row.parts)
    return defaults(model) | (FOR_SETS[model.kind].to_parts(model.kind) if is_whole else {})


def from_query(model: AnyModel, query: Mapping[str, str], rest: Mapping[str, Any] | None = None) -> ViewRequest:
    """The request that an address names; what it leaves out is as in `rest`, or as `left_out` has it.

    Raises:
        UserError: a value that no control could have.
    """
    values = dict(left_out(model, query) if rest is None else rest)
    kinds = {part.name: part.kind for part in Settings.parts(model.kind)} | {"seed": Number(), "count": Number()}
    for name in values:
        text = query.get(in_address(name))
        if text is not None:
            kind = kinds.get(name)
            values[name] = kind.parse(name.replace("_", " "), text) if isinstance(kind, Number) else text
    return read_request(model, values)


def read_query(model: AnyModel, query: Mapping[str, str]) -> tuple[ViewRequest, list[str]]:
    """The same, by what is good of an address, and a sentence for each of its values that no control could have."""
    good, wrong, rest = dict[str, str](), list[str](), left_out(model, query)
    for name in (in_address(name) for name in ("mode", *defaults(model))):
        if name not in query or name in good:
            continue
        try:
            values_on_page(model, from_query(model, {**good, name: query[name]}, rest))
            good[name] = query[name]
        except UserError as error:
            if name != "mode" or str(error) not in wrong:
                wrong.append(str(error))
    return from_query(model, good, rest), list(dict.fromkeys(wrong))


def wrong_names(model: AnyModel, values: Mapping[str, Any]) -> list[str]:
    """Which values no picture can be drawn by, each alone among those of a fresh page in the same mode."""
    wrong, fresh = [], defaults(model)
    if values.get("mode") in GREEK:
        fresh |= {"mode": values["mode"]}
    for name in fresh:
        try:
            values_on_page(model, read_request(model, fresh | {name: values.get(name)}))
        except UserError:
            wrong.append(name)
    return wrong


# The same elsewhere


def as_python(model: AnyModel, view_request: ViewRequest) -> str:
    """The request as a program that draws the same pictures."""
    changed = {name: getattr(view_request.settings, name) for name in Settings.table(model.kind)}
    given = "".join(f"    {name}={value!r},\n" for name, value in changed.items() if value != PLAIN[name])
    count, name = len(view_request.seeds), _name_of(model, view_request.label)
    seeds = f"range({view_request.seeds[0]}, {view_request.seeds[-1] + 1})"
    return (
        f"import hieramp\n\nmodel = hieramp.load({model.name!r})\nsettings = hieramp.Settings(\n{given})\n"
        f"label = model.label_of({name!r})\nseeds = list({seeds})\n"
        f"amplified = model.generate([label] * {count}, seeds, settings).images\n"
        f"baseline = model.generate([label] * {count}, seeds, settings.plain).images\n"
    )


def as_command(model: AnyModel, view_request: ViewRequest) -> str:
    """The request as a command line that draws the same pictures."""
    settings, rows = view_request.settings, Settings.table(model.kind).values()
    stages = ",".join(f"{stage}={Settings.table()[stage].kind.text(getattr(settings, stage))}" for stage in STAGES)
    words = ["python", "-m", "hieramp", "generate", "--model", model.name]
    words += ["--class", _name_of(model, view_request.label), "--seed", str(view_request.seeds[0])]
    words += ["--count", str(len(view_request.seeds)), "--stages", stages]
    for row in rows:
        value = getattr(settings, row.name)
        if row.name not in STAGES and not value == row.default == getattr(model.defaults, row.name):
            words += [f"--{row.name.replace('_', '-')}", row.kind.text(value)]
    return shlex.join(words)


def _name_of(model: AnyModel, label: int) -> str:
    """What `Model.label_of` finds this label by: its name, or its number where a name means two (ImageNet's cranes)."""
    name = short_name(model.class_names[label])
    return name if model.label_of(name) == label else str(label)


# Changing the mode


def in_mode(values: Mapping[str, Any], mode: str) -> tuple[dict[str, Any], list[str]]:
    """The strengths of the other mode in this one, and a sentence for each that its slider cannot hold.

    What is off stays off. β adds to a logit what γ = e^β multiplies its weight by.
    """
    before, off = ("attention", 1.0) if mode == "logit" else ("logit", 0.0), 0.0 if mode == "logit" else 1.0
    strengths, said = dict[str, Any](), list[str]()
    for part in Settings.parts():
        if "{greek}" not in part.label:
            continue
        old = values[part.name]
        is_number = isinstance(old, int | float) and not isinstance(old, bool) and math.isfinite(old)
        if not is_number or old == before[1]:
            strengths[part.name] = off
            continue
        exact = math.exp(min(old, 700)) if mode == "attention" else math.log(old) if old > 0 else -math.inf
        low, high = part.kind.shown if isinstance(part.kind, Number) else (0.0, 10.0)
        strengths[part.name] = round(max(low, min(high, exact)), 2)
        if not low <= exact <= high:
            greek = GREEK[mode], GREEK[before[0]]
            same = f"{greek[0]} {exact:.3g}" if math.isfinite(exact) else f"no {greek[0]} at all"
            said.append(
                f"{part.stage}: {greek[1]} {old:g} is {same}, which the slider does not reach: it is now "
                f"{strengths[part.name]:g}"
            )
    return strengths, said


# Pictures


def described(model: AnyModel, view_request: ViewRequest) -> dict[str, Any]:
    """What the pictures of a request are made with, as it is stored inside them."""
    return model.describe(view_request.label, view_request.seeds, view_request.settings)


def described_one(model: AnyModel, view_request: ViewRequest, seed: int, side: int) -> dict[str, Any]:
    """The same of one picture among them: its own seed, and for a baseline (side 0) nothing amplified."""
    return model.describe(view_request.label, [seed], view_request.settings if side else view_request.settings.plain)


def from_picture(model: AnyModel, stored: Any) -> ViewRequest:
    """The request that a saved picture was drawn by; `remarks` says what this model cannot give back.

    Raises:
        UserError: the settings lack something, or this model cannot draw by them.
    """
    if not isinstance(stored, Mapping) or not {"class", "seeds", "stages"} <= stored.keys():
        raise UserError("the settings inside this picture are not complete")
    seeds = stored["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) for seed in seeds):
        raise UserError("the settings inside this picture are not complete: it names no seeds")
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        raise UserError(f"the seeds of this picture do not follow one another: {seeds[:8]}")
    settings = Settings.from_json(stored, beside=(*DESCRIBED, SHEET, STUDY))
    if settings.blocks == FOR_SETS[model.kind].resolved_blocks(model.depth):
        settings = replace(settings, blocks=None)
    label, name = stored.get("label"), str(stored["class"])
    is_ours = isinstance(label, int) and 0 <= label < len(model.class_names) and model.class_names[label] == name
    count = min(len(seeds), MAX_COUNT) if STUDY in stored else len(seeds)
    request = {"class_name": label if is_ours else name, "seed": seeds[0], "count": count}
    return read_request(model, request | settings.to_parts(model.kind))


def remarks(model: AnyModel, stored: Mapping[str, Any]) -> list[str]:
    """Why a picture drawn anew by what is stored inside it will be another one, in sentences; mostly none."""
    ours = described(model, first_request(model))
    sheet = stored.get(SHEET)
    first = f"This is a sheet of {len(sheet)} pictures: the first of them, {sheet[0]}, is shown." if sheet else ""
    seeds = len(stored.get("seeds", ()))
    if STUDY in stored and seeds > MAX_COUNT:
        first = f"This is a plot over {seeds} seeds: the pictures of the first {MAX_COUNT} are shown."
    return [first] * bool(first) + [
        f"The saved picture was drawn {how} {stored[name]}, this page draws {how} {ours[name]}: it will look different."
        for name, how in (("model", "by"), ("dtype", "in"))
        if stored.get(name, ours[name]) != ours[name]
    ]


# Words


def caption(view_request: ViewRequest, model_kind: str = "var") -> str:
    """A request in one line."""
    off = "Amplification is off, so the two are the same."
    return captions.caption(view_request.settings, view_request.seeds, model_kind, off)


def label_of(model: AnyModel, part: Part, mode: str) -> str:
    """What a control is called on the page."""
    scales = kinds.stage_range(model, part.stage) if part.stage else ""
    return part.label.format(stage=part.stage, scales=scales, greek=greek_of(mode, model.kind))
