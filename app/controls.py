"""The column of controls: what a visitor sets, and the small helpers beside it.

Each setting has the controls of its row in the table of `hieramp.Settings`, in the order of the table.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import gradio as gr

from app import handlers, kinds, view_requests
from app.context import ASKING, CHEAP, AppContext, as_given, sentences, slider, warn
from app.names import full_names
from hieramp import Model, Settings
from hieramp.fields import Choice, Number, Part, Positions

FOLDED = {"location": "Blocks and positions", "sampling": "Sampling"}  # groups of settings that are folded away


@dataclass(frozen=True)
class Controls:
    """What a visitor sets. Handlers get the values of components by the component, and answer likewise."""

    named: dict[str, Any]  # by the names of `view_requests.defaults`
    random_class: gr.Button
    dice: gr.Button
    is_locked: gr.Checkbox
    generate: gr.Button
    schedule: gr.Radio
    opened: gr.UploadButton

    @property
    def inputs(self) -> set[Any]:
        return set(self.named.values())

    @property
    def outputs(self) -> list[Any]:
        return list(self.named.values())

    def values(self, given: Mapping[Any, Any]) -> dict[str, Any]:
        """The values by their names."""
        return {name: given[component] for name, component in self.named.items()}

    def updates(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        """Values as Gradio takes them."""
        return {self.named[name]: value for name, value in values.items()}

    def unchanged(self) -> dict[Any, Any]:
        return {component: gr.skip() for component in self.outputs}


def build(context: AppContext) -> Controls:
    model, named, fresh = context.model, dict[str, Any](), view_requests.defaults(context.model)
    classes = [(name, label) for label, name in enumerate(full_names(model))]
    schedule_names = [(name.replace("-", " "), name) for name in kinds.schedules(model.kind)]
    with gr.Row(elem_classes="with-button"):
        named["class_name"] = as_given(
            gr.Dropdown(
                classes,
                value=fresh["class_name"],
                label="Class",
                filterable=True,
                allow_custom_value=True,
                min_width=120,
                interactive=True,
                elem_id="class_name",
            )
        )
        random_class = gr.Button("Random", size="sm", min_width=72, scale=0, elem_id="random-class")
    with gr.Row(elem_classes="with-button"):
        named["seed"] = as_given(gr.Number(fresh["seed"], label="Seed", min_width=80, interactive=True, elem_id="seed"))
        is_locked = gr.Checkbox(False, label="Lock", min_width=64, scale=0, elem_id="lock", interactive=True)
        dice = gr.Button("Dice", size="sm", min_width=72, scale=0, elem_id="random-seed")
    named["count"] = slider(1, context.limits.count, 1, 1, "Number of images", precision=0, elem_id="count")
    generate = gr.Button("Generate", variant="primary", elem_id="generate")
    schedule = gr.Radio(schedule_names, value="all", label="Schedule", interactive=True, elem_id="preset")
    for group, rows in groupby(Settings.table(model.kind).values(), key=lambda row: row.group):
        with _folded(group):
            for row in rows:
                with gr.Row(elem_classes="stage") if len(row.parts) == 2 else nullcontext():
                    for part in row.parts:
                        named[part.name] = _control(model, part)
    opened = gr.UploadButton("Open a saved picture", file_types=[".png"], size="sm", elem_id="open-picture")
    controls = Controls(named, random_class, dice, is_locked, generate, schedule, opened)
    _connect(context, controls)
    return controls


@contextmanager
def _folded(group: str) -> Iterator[None]:
    if group in FOLDED:
        with gr.Accordion(FOLDED[group], open=False, elem_id=group):
            yield
    else:
        yield


def _control(model: Model, part: Part) -> Any:
    """The control of a part, with what it shows on a fresh page."""
    value, label, kind = (
        view_requests.defaults(model)[part.name],
        view_requests.label_of(model, part, "logit"),
        part.kind,
    )
    if isinstance(kind, Number):
        whole = {"precision": 0} if kind.whole else {}
        return slider(*view_requests.slider_range(model, kind), value, kind.step, label, elem_id=part.name, **whole)
    if isinstance(kind, Choice):
        options = [(name, word) for word, name in kind.options]
        is_there = kinds.is_offered(model, part)
        return gr.Radio(options, value=value, label=label, interactive=True, elem_id=part.name, visible=is_there)
    if isinstance(kind, Positions):  # painted on the map
        return gr.Textbox(value, visible=False)
    return gr.Textbox(value, label=label, info=part.help, interactive=True, max_length=200, elem_id=part.name)


def _connect(context: AppContext, controls: Controls) -> None:
    """What needs no drawing."""
    if "mode" not in controls.named:
        return
    lettered = [part for part in Settings.parts(context.model.kind) if "{greek}" in part.label]

    def relabel(mode: str) -> dict[Any, Any]:
        return controls.updates(
            {p.name: gr.Slider(label=view_requests.label_of(context.model, p, mode)) for p in lettered}
        )

    mode, outputs = controls.named["mode"], [controls.named[part.name] for part in lettered]
    mode.change(relabel, mode, outputs, **CHEAP)


def user_triggers(controls: Controls) -> list[Any]:
    """What asks for a new drawing as it is; the mode sets the strengths first."""
    texts = [c for c in controls.outputs if isinstance(c, gr.Textbox)]  # not while they are being typed
    set_first = [*texts, controls.named.get("mode")]
    moved = [component.input for component in controls.outputs if component not in set_first]
    typed = [event for text in texts if text.visible for event in (text.submit, text.blur)]
    return [*moved, *typed]


def setting_events(context: AppContext, controls: Controls) -> list[Any]:
    """Events that set fields by themselves; a drawing follows each."""
    seed, class_name, mode = controls.named["seed"], controls.named["class_name"], controls.named.get("mode")
    strengths = [controls.named[part.name] for part in Settings.parts(context.model.kind) if "{greek}" in part.label]
    scheduled = [controls.named[name] for name in view_requests.schedule_values("all", context.model.kind)]

    def dice(seed: Any) -> int:
        return handlers.random_seed(seed)

    def maybe_dice(is_locked: bool, seed: Any) -> Any:
        if is_locked:
            gr.Info("The seed is locked, so this is the same picture. Untick Lock for a new one.")
        return seed if is_locked else handlers.random_seed(seed)

    def another_class(name: Any) -> int:
        return handlers.random_class(context.model, name)

    def change_mode(given: dict[Any, Any]) -> dict[Any, Any]:
        values = controls.values(given)
        with sentences():
            changed, said = view_requests.in_mode(values, values["mode"])
        if said:
            warn("; ".join(said) + ".")
        return controls.updates(changed)

    def choose(name: str) -> dict[Any, Any]:
        return controls.updates(view_requests.schedule_values(name, context.model.kind))

    return [
        controls.random_class.click(another_class, class_name, class_name, **CHEAP),
        controls.dice.click(dice, seed, seed, **CHEAP),
        controls.generate.click(maybe_dice, [controls.is_locked, seed], seed, **ASKING),
        *([mode.input(change_mode, controls.inputs, strengths, **ASKING)] if mode else []),
        controls.schedule.input(choose, controls.schedule, scheduled, **CHEAP),
    ]
