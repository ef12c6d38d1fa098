"""Fonts, colours and files of the page."""

from pathlib import Path

import gradio as gr

WEB = Path(__file__).with_name("web")
ACCENT, PLAIN = "#c2570c", "#8f8a84"  # amplified and baseline, readable on light and on dark

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


def read(name: str) -> str:
    """A file of the page."""
    return (WEB / name).read_text(encoding="utf-8")
