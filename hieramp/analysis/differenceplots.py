"""Figures of paired differences with their intervals, for papers and for the page. Pure functions to matplotlib."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hieramp.analysis.bootstrap import Interval, UsageDifference, over_classes
from hieramp.analysis.plotting import INK, titled

UP, DOWN, OPEN = "#c2570c", "#2f6f9f", "#98928b"
COLORS = {"up": UP, "down": DOWN, "open": OPEN}
NOTE = "Dots: difference to the baseline. Lines: 95 % bootstrap interval."


def usage_difference_figure(found: Mapping[str, UsageDifference], title: str) -> Figure:
    """Entropy and coverage of one class: a row for each stage and scale."""
    figure = Figure(figsize=(8, 1.35 + 0.24 * len(found)), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    _rows(both[0], {name: one.entropy for name, one in found.items()}, "entropy, nats")
    coverage = {name: _scaled(one.coverage, 100) for name, one in found.items()}
    _rows(both[1], coverage, "coverage, points of % of the codebook")
    return titled(figure, title, NOTE)


def classes_figure(found: Mapping[str, Mapping[str, Interval]], title: str, label: str = "entropy, nats") -> Figure:
    """A panel for each name of `found`, in it a row for each class and their mean, its interval over the classes."""
    rows = max(len(classes) for classes in found.values()) + 1
    figure = Figure(figsize=(max(4.0, 2.9 * len(found)), 1.45 + 0.22 * rows), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, classes) in zip(panels, found.items(), strict=True):
        mean, of = over_classes(list(classes.values()))
        means = {"mean": mean} if of == "classes" else {}
        _rows(axes, {**classes, **means}, label)
        if means:
            axes.axhline(len(classes) - 0.5, color=INK, linewidth=0.5)
        axes.set_title(name, fontsize=9)
    return titled(figure, title, NOTE)


def _scaled(one: Interval, factor: float) -> Interval:
    return Interval(one.value * factor, one.low * factor, one.high * factor, one.count)


def _rows(axes: Axes, found: Mapping[str, Interval], label: str) -> None:
    """A dot and a line for each, the first on top."""
    for i, one in enumerate(found.values()):
        color = COLORS[one.verdict]
        axes.plot([one.low, one.high], [i, i], color=color, linewidth=1.6, solid_capstyle="butt", zorder=2)
        axes.plot([one.value], [i], "o", color=color, markersize=4, zorder=3)
    axes.axvline(0, color=INK, linewidth=0.8)
    if all(one.is_nothing for one in found.values()):
        axes.set_xlim(-0.01, 0.01)
    axes.set_yticks(range(len(found)), list(found), fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"difference in {label}", fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
