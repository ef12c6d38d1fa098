"""Plots of what amplification does to the tokens, as one publishes them: the page and the terminal save the same.

Pure functions from figures of merit to matplotlib.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hieramp.analysis.bootstrap import Interval, MeanUsage
from hieramp.analysis.plotting import SERIES, STAGE_COLORS, bars, legend, titled
from hieramp.analysis.tokens import Grid, Risen
from hieramp.scales import STAGES

ACROSS = 6  # maps in a row
SPACE = 0.6  # between the scales and the stages, in bars
CLASSES = "Lines: 95 % bootstrap interval of the mean over classes."
WILSON = "Lines: 95 % interval of the share over classes (Wilson). Dashed: half of the classes."


def usage_figure(found: Mapping[str, Mapping[str, MeanUsage]], title: str) -> Figure:
    """Entropy and coverage of each set at each place, the stages set apart: they hold the tokens of their scales.

    `found` has a set's levels by its name, and all sets the same places: scales ("8×8") and stages ("fine").
    """
    places = list(next(iter(found.values())))
    scales, stages = ([p for p in places if (p in STAGES) == is_stage] for is_stage in (False, True))
    at = {place: i + (SPACE if place in STAGES else 0) for i, place in enumerate((*scales, *stages))}
    figure = Figure(figsize=(8, 5), layout="constrained")
    panels = figure.subplots(2, sharex=True)
    colors = [SERIES[i % len(SERIES)] for i in range(len(found))]
    for axes, what, factor in zip(panels, ("entropy", "coverage"), (1, 100), strict=True):
        levels = {name: [getattr(one[place], what) for place in at] for name, one in found.items()}
        values = {name: [_bar(one, factor) for one in line] for name, line in levels.items()}
        bars(axes, values, colors, list(at.values()))
    panels[0].set_ylabel("entropy, nats", fontsize=8)
    panels[1].set_ylabel("coverage, % of the codebook", fontsize=8)
    panels[1].set_xticks(list(at.values()), list(at))
    panels[1].set_xlabel("scales, and the stages they make up", fontsize=8)
    legend(figure, panels[0])
    has_interval = any(one.entropy.low < one.entropy.high for levels in found.values() for one in levels.values())
    return titled(figure, title, CLASSES if has_interval else "")


def _bar(one: Interval, factor: float) -> tuple[float, float, float]:
    return one.value * factor, one.low * factor, one.high * factor


def changed_figure(shares: Sequence[Grid], title: str) -> Figure:
    """Where tokens differ: for each scale a map of the share of samples, from coarse to fine."""
    across = min(ACROSS, len(shares))
    down = -(-len(shares) // across)
    figure = Figure(figsize=(max(5.0, 1.25 * across + 0.8), 1.5 * down + 0.7), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes in panels[len(shares) :]:
        axes.set_axis_off()
    for axes, share in zip(panels, shares, strict=False):
        side = len(share)
        shown = axes.imshow(100 * np.asarray(share), cmap="inferno", vmin=0, vmax=100, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{side}×{side}", fontsize=8)
        axes.set_xlabel(f"mean {100 * np.mean(share):.0f} %", fontsize=7)
    bar = figure.colorbar(shown, ax=list(panels), shrink=0.8, pad=0.01)
    bar.set_label("% of samples", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return titled(figure, title)


def risen_figure(found: Mapping[str, Mapping[str, Risen]], title: str, across: str) -> Figure:
    """The share of classes whose entropy and coverage rose over the baseline, with its interval.

    `found` has, for each group of bars, the share of each series: for a schedule those of its stages, or for a place
    those of its sets; `across` says what the groups are.
    """
    series = list(dict.fromkeys(name for group in found.values() for name in group))
    colors = [STAGE_COLORS.get(name, SERIES[(i + 1) % len(SERIES)]) for i, name in enumerate(series)]
    figure = Figure(figsize=(8, 5), layout="constrained")
    panels = figure.subplots(2, sharex=True)
    for axes, what in zip(panels, ("entropy", "coverage"), strict=True):
        bars(axes, {s: [_share(g.get(s), what) for g in found.values()] for s in series}, colors, range(len(found)))
        axes.axhline(50, color="#888888", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        axes.set_ylim(0, 100)
        axes.set_ylabel(f"{what} rose, % of classes", fontsize=8)
    panels[1].set_xticks(range(len(found)), list(found))
    panels[1].set_xlabel(across, fontsize=8)
    legend(figure, panels[0])
    return titled(figure, title, WILSON)


def _share(risen: Risen | None, what: str) -> tuple[float, float, float] | None:
    if risen is None:
        return None
    low, high = risen.interval(what)
    return 100 * getattr(risen, what), 100 * low, 100 * high
