"""Dose and response as one publishes it: four curves with their intervals. Pure functions to matplotlib."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hieramp.analysis.dose import MeanInterval, Sweep
from hieramp.analysis.plotting import ACCENT, calm, titled

NOTE = (
    "Lines: mean over the seeds, and its 95 % interval by Student’s t. Dotted, in grey: the plain pictures of the same "
    "seeds, with theirs. Of this class alone."
)
DISTANCES = ("pixels", "features")  # from the plain picture: 0 for that one itself


def dose_title(found: Sweep, name: str, model: str, settings: str) -> str:
    """What was swept, of which class and model, with n; `settings` are seeds and settings in words."""
    held = f"strength {found.held:g}" if found.knob == "rho" else f"ρ {found.held:.0%}"
    knob, (first, *_, last) = ("ρ" if found.knob == "rho" else "strength"), found.doses
    swept = f"{name}, dose and response: {found.stage} {knob} {first:g} to {last:g} at {held}, {model}, "
    return f"{swept}n = {len(found.seeds)} seeds a dose. {settings}"


def dose_figure(found: Sweep, title: str) -> Figure:
    """A panel for each measure: its mean and interval at every dose, beside the plain pictures."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    knob = "ρ, share of the positions" if found.knob == "rho" else "strength"
    panels = figure.subplots(2, 2).flatten()
    for spare in panels[len(found.measures) :]:
        spare.set_visible(False)
    for axes, (measure, label) in zip(panels, found.measures.items(), strict=False):
        _panel(axes, found, measure)
        axes.set_title(textwrap.fill(label, 52), fontsize=8, loc="left")
        axes.set_xlabel(f"{found.stage} {knob}", fontsize=8)
    return titled(figure, title, NOTE)


def _panel(axes: Axes, found: Sweep, measure: str) -> None:
    doses, points = [r.dose for r in found.responses], [r.estimate(measure) for r in found.responses]
    plain: MeanInterval = found.plain.estimate(measure)
    if measure not in DISTANCES:
        axes.axhspan(plain.low, plain.high, color="#888888", alpha=0.18, linewidth=0)
    axes.axhline(plain.mean, color="#666666", linewidth=1.2, linestyle=(0, (1, 2)))
    low, high = [p.low for p in points], [p.high for p in points]
    axes.fill_between(doses, low, high, color=ACCENT, alpha=0.18, linewidth=0)
    axes.vlines(doses, low, high, color=ACCENT, linewidth=0.9)
    axes.plot(doses, [p.mean for p in points], "o-", color=ACCENT, markersize=3.5, linewidth=1.6)
    if measure == "probability":
        axes.set_ylim(0, 1.02)
    elif measure in DISTANCES:
        axes.set_ylim(bottom=0)
    calm(axes)
