"""The column of controls: what a visitor sets, and the small helpers beside it."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import handlers, orders
from app.desk import CHEAP, Desk, slider
from hieramp import SCHEDULES, Model
from hieramp.scales import STAGES

MODES = [("logit: add β, 0 is off", "logit"), ("attention: multiply by γ, 1 is off", "attention")]
SCHEDULE_NAMES = [(name.replace("-", " "), name) for name in SCHEDULES]


@dataclass(frozen=True)
class Controls:
    """What a visitor sets."""

    class_name: gr.Dropdown
    random_class: gr.Button
    seed: gr.Number
    dice: gr.Button
    is_locked: gr.Checkbox
    count: gr.Slider
    generate: gr.Button
    preset: gr.Radio
    stages: dict[str, tuple[gr.Slider, gr.Slider]]  # ρ and strength
    mode: gr.Radio
    guidance: gr.Slider
    guidance_power: gr.Slider
    top_k: gr.Slider
    top_p: gr.Slider
    temperatures: list[gr.Slider]  # by stage
    painted: gr.Textbox
    opened: gr.UploadButton

    @property
    def stage_fields(self) -> list[Any]:
        """In the order of `orders.preset_fields`."""
        return [*(part for stage in STAGES for part in self.stages[stage]), self.mode, self.painted]

    @property
    def fields(self) -> list[Any]:
        """In the order of `orders.FIELDS`."""
        drawn = [self.guidance, self.guidance_power, self.top_k, self.top_p, *self.temperatures]
        return [self.class_name, self.seed, self.count, *drawn, *self.stage_fields]


def build(desk: Desk) -> Controls:
    model = desk.model
    classes = [(name, label) for label, name in enumerate(model.class_names)]
    with gr.Row(elem_classes="with-button"):
        class_name = gr.Dropdown(classes, value=0, label="Class", filterable=True, min_width=120, interactive=True)
        random_class = gr.Button("Random", size="sm", min_width=72, scale=0, elem_id="random-class")
    with gr.Row(elem_classes="with-button"):
        seed = gr.Number(0, label="Seed", precision=0, min_width=80, interactive=True)
        is_locked = gr.Checkbox(True, label="Lock", min_width=64, scale=0, elem_id="lock", interactive=True)
        dice = gr.Button("Dice", size="sm", min_width=72, scale=0, elem_id="random-seed")
    count = slider(1, desk.limits.count, 1, 1, "Number of images", precision=0)
    generate = gr.Button("Generate", variant="primary", elem_id="generate")
    preset = gr.Radio(SCHEDULE_NAMES, value="all", label="Schedule", interactive=True, elem_id="preset")
    stages = {}
    for stage in STAGES:
        with gr.Row(elem_classes="stage"):
            rho = _slider_of(model, f"{stage}_rho", 0.01, orders.rho_label(model, stage))
            strength = _slider_of(model, f"{stage}_strength", 0.1, orders.strength_label(model, stage, "logit"))
            stages[stage] = rho, strength
    mode = gr.Radio(MODES, value="logit", label="Mode", interactive=True, elem_id="mode")
    with gr.Accordion("Sampling", open=False, elem_id="sampling"):
        guidance = _slider_of(model, "guidance", 0.1, "Guidance")
        power = _slider_of(model, "guidance_power", 0.05, "Guidance power (0: the same at all scales)")
        top_k = _slider_of(model, "top_k", 1, "Top-k (0 is off)", precision=0)
        top_p = _slider_of(model, "top_p", 0.01, "Top-p (0 is off)")
        temperatures = [
            _slider_of(model, f"{stage}_temperature", 0.05, orders.temperature_label(model, stage)) for stage in STAGES
        ]
    opened = gr.UploadButton("Open a saved picture", file_types=[".png"], size="sm", elem_id="open-picture")
    painted = gr.Textbox("", visible=False)
    controls = Controls(
        class_name, random_class, seed, dice, is_locked, count, generate, preset, stages, mode, guidance, power,
        top_k, top_p, temperatures, painted, opened,
    )  # fmt: skip
    _connect(desk, controls)
    return controls


def _slider_of(model: Model, name: str, step: float, label: str, **options: Any) -> gr.Slider:
    """The slider of a field, with its range and what it shows on a fresh page."""
    low, high = orders.range_of(model, name)
    return slider(low or 0, high or 1, orders.DEFAULTS[name], step, label, **options)


def _connect(desk: Desk, controls: Controls) -> None:
    """What needs no drawing."""

    def relabel(mode: str) -> list[gr.Slider]:
        return [gr.Slider(label=orders.strength_label(desk.model, stage, mode)) for stage in STAGES]

    controls.mode.change(relabel, controls.mode, [controls.stages[stage][1] for stage in STAGES], **CHEAP)


def user_triggers(controls: Controls) -> list[Any]:
    """What asks for a new drawing as it is."""
    moved = [component.input for component in controls.fields if component is not controls.painted]
    return [*moved, controls.seed.submit]


def setting_events(desk: Desk, controls: Controls) -> list[Any]:
    """Events that set fields by themselves; a drawing follows each."""
    dice, seed = handlers.random_seed, controls.seed

    def maybe_dice(is_locked: bool, seed: float | None) -> float | None:
        return seed if is_locked else dice()

    return [
        controls.random_class.click(lambda: handlers.random_class(desk.model), None, controls.class_name, **CHEAP),
        controls.dice.click(dice, None, seed, **CHEAP),
        controls.generate.click(maybe_dice, [controls.is_locked, seed], seed, **CHEAP),
        controls.preset.input(orders.preset_fields, controls.preset, controls.stage_fields, **CHEAP),
    ]
