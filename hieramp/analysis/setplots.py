"""Figures of what a set holds. Pure functions from figures of merit to matplotlib figures."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from hieramp.analysis.plotting import SERIES, calm, titled


def histogram_figure(values: Mapping[str, Tensor], label: str, title: str) -> Figure:
    """How a value of each image is spread, one line for each set of images."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.add_subplot()
    high = max(float(v.max()) for v in values.values())
    low = min(float(v.min()) for v in values.values())
    for i, (name, value_N) in enumerate(values.items()):
        color = SERIES[(i + 1) % len(SERIES)]
        span = (low, high if high > low else low + 1)
        axes.hist(
            value_N.numpy(),
            bins=40,
            range=span,
            density=True,
            histtype="step",
            color=color,
            label=f"{name}, n = {len(value_N)}",
        )
    axes.set(xlabel=label, ylabel="density")
    axes.legend(fontsize=8)
    calm(axes)
    return titled(figure, title)
