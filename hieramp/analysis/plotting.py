"""What all plots share: their title, their colours, their bars, and how a page shows them. Pure functions."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#857f78"  # on a page, light or dark
PLAIN, ACCENT = "#98928b", "#d9650f"  # without amplification, with it
SERIES = (PLAIN, ACCENT, "#2f6f9f", "#1c1b22")
STAGE_COLORS = {"coarse": "#f0b27a", "mid": "#d9650f", "fine": "#8a3d06"}
Bar = tuple[float, float, float]  # a value, and the ends of its interval


def titled(figure: Figure, title: str, note: str = "") -> Figure:
    """With a title above, and a note beneath it that says how to read the plot; both are wrapped."""
    width = int(figure.get_figwidth() * 15)
    lines = [line for text in (title, note) for line in textwrap.wrap(text, width, break_on_hyphens=False)]
    figure.suptitle("\n".join(lines), fontsize=8.5, x=0.01, ha="left")
    return figure


def bars(axes: Axes, found: Mapping[str, Sequence[Bar | None]], colors: Sequence[str], places: Sequence[float]) -> None:
    """A bar for each series at each place, with a line over its interval where that has a width."""
    width = 0.8 / len(found)
    for i, (name, values) in enumerate(found.items()):
        middle = (i - (len(found) - 1) / 2) * width
        there = [(x + middle, *bar) for x, bar in zip(places, values, strict=True) if bar is not None]
        axes.bar([x for x, *_ in there], [bar[1] for bar in there], width * 0.9, color=colors[i], label=name, zorder=2)
        for x, _, low, high in there:
            if not math.isclose(low, high, abs_tol=1e-9):
                axes.plot([x, x], [low, high], color="black", linewidth=0.9, solid_capstyle="butt", zorder=3)
    calm(axes)
    axes.grid(axis="y", linewidth=0.5, color="#dddddd", zorder=0)


def calm(axes: Axes) -> None:
    """Small figures on its axes, and no frame around it."""
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, axes: Axes) -> None:
    """Below the panels: what the colours of one of them mean."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=4, fontsize=8, frameon=False)


def on_page(figure: Figure) -> bytes:
    """A figure as SVG for a page: in an ink that can be read on light and on dark, on nothing, its text as shapes."""
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.tick_params(colors=INK)
        axes.spines["bottom"].set_color(INK)
        for text in (axes.xaxis.label, axes.title, *axes.get_yticklabels()):
            text.set_color(INK)
    for text in figure.texts:
        text.set_color(INK)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "hieramp"}):
        figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None})
    return buffer.getvalue()
