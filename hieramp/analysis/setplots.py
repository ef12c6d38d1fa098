"""Figures of what a set holds. Pure functions from figures of merit to matplotlib figures."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hieramp.analysis.settokens import SetUsage
from hieramp.analysis.tokens import Risen

COLORS = ("#b5483a", "#1c1b22")  # the set, its baseline


def usage_figure(usages: Mapping[str, SetUsage]) -> Figure:
    """Entropy and coverage per stage and scale, mean over classes, one bar for each set."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    places = list(next(iter(usages.values())).places)
    for axes, what, title in zip(
        figure.subplots(2), (0, 1), ("entropy, nats", "coverage, % of the codes"), strict=True
    ):
        for i, (name, usage) in enumerate(usages.items()):
            values = [usage.mean(place)[what] * (100 if what else 1) for place in places]
            _bars(axes, values, i, len(usages), name)
        axes.set_xticks(range(len(places)), places)
        axes.set_ylabel(title)
        axes.legend(fontsize=8)
    return figure


def _bars(axes: Axes, values: list[float], i: int, count: int, name: str) -> None:
    width = 0.8 / count
    places = [x + (i - (count - 1) / 2) * width for x in range(len(values))]
    axes.bar(places, values, width * 0.9, color=COLORS[i % len(COLORS)], label=name)


def risen_figure(shares: Mapping[str, Risen]) -> Figure:
    """The share of classes whose entropy and coverage rose over the baseline, per stage and scale."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    _bars(axes, [100 * share.entropy for share in shares.values()], 0, 2, "entropy")
    _bars(axes, [100 * share.coverage for share in shares.values()], 1, 2, "coverage")
    axes.set_xticks(range(len(shares)), list(shares))
    axes.axhline(50, color="#a0a0a0", linewidth=0.8)
    axes.set(ylabel="% of classes that rose", ylim=(0, 100))
    axes.legend(fontsize=8)
    return figure


def histogram_figure(values: Mapping[str, Tensor], label: str) -> Figure:
    """How a value of each image is spread, one line for each set of images."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    high = max(float(v.max()) for v in values.values())
    low = min(float(v.min()) for v in values.values())
    for i, (name, value_N) in enumerate(values.items()):
        color = (*COLORS, "#4a6fa5")[i % 3]
        span = (low, high if high > low else low + 1)
        axes.hist(value_N.numpy(), bins=40, range=span, density=True, histtype="step", color=color, label=name)
    axes.set(xlabel=label, ylabel="density")
    axes.legend(fontsize=8)
    return figure
