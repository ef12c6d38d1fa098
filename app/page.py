"""The page: components, and which of them calls which handler."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from app import figures, handlers
from app.handlers import Turns
from hieramp import Model
from hieramp.scales import STAGES

RHO, STRENGTH, GUIDANCE, OPACITY = 0.5, 5.0, 4.0, 0.55
MODES = [("logit: add β, 0 is off", "logit"), ("attention: multiply by γ, 1 is off", "attention")]
INTRO = (
    "<h1>HierAmp</h1><p>A VAR model draws from coarse to fine. Its class tokens show where each scale looks; "
    "amplify what they look at and compare.</p>"
)
# The browser alone moves the opacity: nothing is drawn again.
SET_OPACITY = "value => document.documentElement.style.setProperty('--saliency-opacity', value)"
# On a phone the pictures lie below the controls.
SHOW_RESULT = "() => { if (innerWidth < 760) document.getElementById('result').scrollIntoView() }"
DEVICE = "device"  # all events that draw share it, and take turns
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
CHEAP: dict[str, Any] = {"queue": False, **QUIET}  # never waits for a drawing

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "monospace")
THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.orange,
    neutral_hue=gr.themes.colors.stone,
    radius_size=gr.themes.sizes.radius_sm,
    spacing_size=gr.themes.sizes.spacing_sm,
    font=_FONT,
    font_mono=_MONO,
).set(
    # 700 and 800 keep white text readable (contrast over 4.5)
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    slider_color="*primary_600",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
)


@dataclass(frozen=True)
class Controls:
    """What a visitor sets."""

    class_name: gr.Dropdown
    random_class: gr.Button
    seed: gr.Number
    random_seed: gr.Button
    count: gr.Slider
    generate: gr.Button
    guidance: gr.Slider
    stages: dict[str, tuple[gr.Slider, gr.Slider]]  # ρ and strength
    mode: gr.Radio

    @property
    def fields(self) -> list[gr.components.Component]:
        """In the order of `handlers.read_order`."""
        sliders = [slider for stage in STAGES for slider in self.stages[stage]]
        return [self.class_name, self.seed, self.count, self.guidance, *sliders, self.mode]


def build(model: Model) -> gr.Blocks:
    """The page on a model. Launch it with `launch`."""
    with gr.Blocks(title="HierAmp", analytics_enabled=False) as demo:
        gr.HTML(INTRO, elem_id="intro", js_on_load=None, apply_default_css=False)
        with gr.Row(elem_id="desk"):
            with gr.Column(scale=0, min_width=304, elem_id="controls"):
                controls = _controls(model)
            with gr.Column(scale=1, min_width=320, elem_id="sheet"):
                start = figures.result(handlers.scene_of(model, first_order(model)))
                sheet = gr.HTML(start, elem_id="result", js_on_load=None, apply_default_css=False)
                opacity = _slider(0, 1, OPACITY, 0.05, "Opacity of the saliency", elem_id="opacity")
        opacity.input(None, opacity, None, js=SET_OPACITY, api_visibility="private")
        _connect_helpers(model, controls)
        _connect_drawing(demo, model, controls, sheet)
        generate = _endpoint(model)
        # Gradio would show the first line only.
        gr.api(generate, api_name="generate", api_description=inspect.getdoc(generate), concurrency_id=DEVICE)
    return demo


def launch(demo: gr.Blocks, **options: Any) -> None:
    """Serve the page with its looks; options as of `gr.Blocks.launch`."""
    style = Path(__file__).with_name("style.css")
    demo.queue(max_size=64).launch(
        theme=THEME, css_paths=style, footer_links=["api"], show_error=True, ssr_mode=False, **options
    )


def first_order(model: Model) -> handlers.Order:
    """What a visitor sees without a click."""
    fields: list[Any] = [0, 0, 1, GUIDANCE, *[RHO, STRENGTH] * len(STAGES), "logit"]
    return handlers.read_order(model, *fields)


def _controls(model: Model) -> Controls:
    classes = [(name, label) for label, name in enumerate(model.class_names)]
    with gr.Row(elem_classes="with-button"):
        class_name = gr.Dropdown(classes, value=0, label="Class", filterable=True, min_width=120, interactive=True)
        random_class = gr.Button("Random", size="sm", min_width=72, scale=0, elem_id="random-class")
    with gr.Row(elem_classes="with-button"):
        seed = gr.Number(0, label="Seed", precision=0, min_width=120, interactive=True)
        random_seed = gr.Button("Dice", size="sm", min_width=72, scale=0, elem_id="random-seed")
    count = _slider(1, handlers.MAX_COUNT, 1, 1, "Number of images", precision=0)
    generate = gr.Button("Generate", variant="primary", elem_id="generate")
    stages = {}
    for stage in STAGES:
        with gr.Row(elem_classes="stage"):
            rho = _slider(0.01, 1, RHO, 0.01, handlers.rho_label(model, stage))
            strength = _slider(0, 10, STRENGTH, 0.1, handlers.strength_label(model, stage, "logit"))
            stages[stage] = rho, strength
    mode = gr.Radio(MODES, value="logit", label="Mode", interactive=True, elem_id="mode")
    guidance = _slider(0, 10, GUIDANCE, 0.1, "Guidance")
    return Controls(class_name, random_class, seed, random_seed, count, generate, guidance, stages, mode)


def _slider(low: float, high: float, value: float, step: float, label: str, **options: Any) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, buttons=[], min_width=120, interactive=True, **options)


def _connect_helpers(model: Model, controls: Controls) -> None:
    """What the small buttons and the mode do."""
    controls.random_class.click(lambda: handlers.random_class(model), None, controls.class_name, **CHEAP)
    controls.random_seed.click(handlers.random_seed, None, controls.seed, **CHEAP)

    def relabel(mode: str) -> list[gr.Slider]:
        return [gr.Slider(label=handlers.strength_label(model, stage, mode)) for stage in STAGES]

    controls.mode.change(relabel, controls.mode, [controls.stages[stage][1] for stage in STAGES], **CHEAP)


def _connect_drawing(demo: gr.Blocks, model: Model, controls: Controls, sheet: gr.HTML) -> None:
    """Draw when the page opens and when asked; the newest request of a visitor ends the one before."""
    turns = Turns()
    ticket = gr.Number(0, visible=False, precision=0)

    def ask(request: gr.Request, *fields: Any) -> int:
        try:
            handlers.read_order(model, *fields)  # a request that cannot be drawn ends no other
        except ValueError as error:
            raise _sentence(error) from error
        return turns.take(str(request.session_hash))

    def draw(request: gr.Request, number: int, *fields: Any) -> Iterator[str]:
        visitor = str(request.session_hash)
        if turns.is_stale(visitor, number):
            return
        try:
            for html in handlers.draw(model, *fields):
                yield html
                if turns.is_stale(visitor, number):
                    return
        except ValueError as error:
            raise _sentence(error) from error

    def leave(request: gr.Request) -> None:
        turns.forget(str(request.session_hash))

    triggers = [demo.load, controls.generate.click, controls.seed.submit]
    # Through the queue, though it is cheap: the page shows no errors of events outside it (Gradio 6.31).
    asked = gr.on(triggers, ask, controls.fields, ticket, trigger_mode="multiple", concurrency_limit=None, **QUIET)
    controls.generate.click(None, None, None, js=SHOW_RESULT, api_visibility="private")
    given = [ticket, *controls.fields]
    asked.success(draw, given, sheet, trigger_mode="multiple", concurrency_id=DEVICE, **QUIET)
    demo.unload(leave)


def _sentence(error: ValueError) -> gr.Error:
    """The error as the page shows it: text, though Gradio would render HTML."""
    text = str(error)
    return gr.Error(escape(text[:1].upper() + text[1:], quote=False), print_exception=False)


def _endpoint(model: Model) -> Callable[..., dict[str, Any]]:
    def generate(
        class_name: str,
        seed: int = 0,
        count: int = 1,
        guidance: float = GUIDANCE,
        coarse_rho: float = RHO,
        coarse_strength: float = STRENGTH,
        mid_rho: float = RHO,
        mid_strength: float = STRENGTH,
        fine_rho: float = RHO,
        fine_strength: float = STRENGTH,
        mode: Literal["logit", "attention"] = "logit",
    ) -> dict[str, Any]:
        """Draw images of a class, plain and amplified, from the same seeds.

        Args:
            class_name: Name, number or ImageNet id of the class.
            seed: Seed of the first image, a whole number of at least 0; the next images have seed+1, seed+2, …
            count: Number of images of each kind, 1 to 8.
            guidance: Strength of classifier-free guidance, at least 0.
            coarse_rho: Share of positions amplified at the coarse scales, over 0 and at most 1.
            coarse_strength: β (mode logit, 0 is off) or γ (mode attention, 1 is off) at the coarse scales.
            mid_rho: Share of positions amplified at the mid scales.
            mid_strength: β or γ at the mid scales.
            fine_rho: Share of positions amplified at the fine scales.
            fine_strength: β or γ at the fine scales.
            mode: "logit" adds β to the logits of salient keys, "attention" multiplies their weights by γ.

        Returns:
            settings, and under baseline and amplified one data: address of a PNG per seed.
        """
        numbers = (coarse_rho, coarse_strength, mid_rho, mid_strength, fine_rho, fine_strength)
        try:
            return handlers.generate(model, class_name, seed, count, guidance, *numbers, mode)
        except ValueError as error:
            raise _sentence(error) from error

    return generate
