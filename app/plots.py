"""Plots of what amplification does to the tokens, as one points at them on the page, and the same figures as words and
as CSV. Pure functions, without Gradio. What is saved is drawn by hieramp.analysis.tokenplots.

The background is transparent and the ink a middle grey, which can be read on light and on dark pages.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hieramp import Settings
from hieramp.analysis.bootstrap import Interval, MeanUsage, UsageDifference, direction, mean_usage, over_classes
from hieramp.analysis.plotting import ACCENT, PLAIN, STAGE_COLORS
from hieramp.analysis.schedules import Comparison, Count
from hieramp.analysis.tokens import Risen, Usage, changed_rows
from hieramp.files import csv_text
from hieramp.scales import STAGES

INK, GRID = "#8a847d", "rgba(138, 132, 125, 0.25)"
HEIGHT = 300


def _styled(figure: go.Figure, height: int = HEIGHT) -> go.Figure:
    font = {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 12, "color": INK}
    legend = {"orientation": "h", "x": 0, "y": 1, "xanchor": "left", "yanchor": "top", "yref": "container"}
    margin = {"l": 48, "r": 8, "t": 64, "b": 40}
    clear = "rgba(0,0,0,0)"
    buttons = {"bgcolor": clear, "color": INK, "activecolor": ACCENT}
    figure.update_layout(
        font=font,
        legend=legend,
        margin=margin,
        height=height,
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        bargap=0.25,
        modebar=buttons,
    )
    figure.update_xaxes(gridcolor=GRID, linecolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, linecolor=GRID, zeroline=False)
    figure.update_annotations(font={"size": 13, "color": INK})
    return figure


def empty(text: str, height: int = 64) -> go.Figure:
    """A plot that holds the place of one to come."""
    figure = _styled(go.Figure(), height)
    figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 8})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"color": INK})
    return figure


def _rows(count: Count, sides: Sequence[int]) -> Iterable[tuple[str, Usage, Usage]]:
    """Scale or stage, with its usage in the baseline and amplified."""
    for side, before, after in zip(sides, *count.per_scale, strict=True):
        yield f"{side}×{side}", before, after
    for stage, before in count.per_stage[0].items():
        yield stage, before, count.per_stage[1][stage]


def levels(count: Count, sides: Sequence[int]) -> dict[str, dict[str, MeanUsage]]:
    """The usage of the baseline and amplified, as what is saved is drawn from."""
    rows = list(_rows(count, sides))
    return {
        "baseline": {name: mean_usage([before]) for name, before, _ in rows},
        "amplified": {name: mean_usage([after]) for name, _, after in rows},
    }


def with_buttons(figure: go.Figure, name: str = "") -> str:
    """The figure as JSON with its toolbar, whose camera saves an SVG of this name; without one there is no toolbar."""
    saved = {"format": "svg", "filename": name}
    without = ["lasso2d", "select2d", "autoScale2d"]
    shown = {"displaylogo": False, "toImageButtonOptions": saved, "modeBarButtonsToRemove": without}
    config: dict[str, Any] = shown if name else {"displayModeBar": False}
    return json.dumps(json.loads(figure.to_json()) | {"config": config})


def usage_figure(count: Count, sides: Sequence[int]) -> go.Figure:
    """Entropy and coverage per scale and, set apart, per stage: baseline beside amplified."""
    figure = make_subplots(1, 2, subplot_titles=("Entropy, nats", "Coverage, % of codes"), horizontal_spacing=0.08)
    names = [name for name, _, _ in _rows(count, sides)]
    # a stage holds the tokens of its scales: the two are not of one axis
    groups = ["scale"] * len(sides) + ["stage"] * (len(names) - len(sides))
    both = [before for _, before, _ in _rows(count, sides)], [after for _, _, after in _rows(count, sides)]
    for label, color, usages in zip(("baseline", "amplified"), (PLAIN, ACCENT), both, strict=True):
        for column, values in enumerate(([u.entropy for u in usages], [100 * u.coverage for u in usages]), 1):
            bars = go.Bar(
                x=[groups, names],
                y=values,
                name=label,
                marker_color=color,
                showlegend=column == 1,
                legendgroup=label,
            )
            figure.add_trace(bars, 1, column)
    figure.update_layout(barmode="group")
    return _styled(figure)


def changed_figure(count: Count, sides: Sequence[int]) -> go.Figure:
    """Where tokens changed: per scale a map of the share of samples."""
    titles = [f"{side}×{side}" for side in sides]
    figure = make_subplots(1, len(sides), subplot_titles=titles, horizontal_spacing=0.02)
    for column, shares in enumerate(count.changed, 1):
        percent = [[100 * share for share in row] for row in shares]
        scale = {"colorscale": "Inferno", "zmin": 0, "zmax": 100, "showscale": column == len(sides)}
        about = {"hovertemplate": "row %{y}, column %{x}: %{z:.0f}%<extra></extra>", "colorbar": {"ticksuffix": "%"}}
        figure.add_trace(go.Heatmap(z=percent, x0=1, y0=1, **scale, **about), 1, column)
    _styled(figure, 230)
    title = {"text": "Share of samples whose token differs", "font": {"size": 13}, "x": 0, "xref": "paper", "y": 0.97}
    figure.update_layout(margin={"l": 8, "r": 8, "t": 64, "b": 8}, title=title)
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, autorange="reversed", constrain="domain")
    for column in range(1, len(sides) + 1):
        figure.update_yaxes(scaleanchor=f"x{column if column > 1 else ''}", col=column)
    return figure


def risen_figure(comparison: Comparison) -> go.Figure:
    """The share of classes whose entropy or coverage rose, per schedule and stage, with 95 % intervals over classes."""
    titles = ("Entropy rose, %", "Coverage rose, %")
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.08)
    schedules = [name.replace("-", " ") for name in comparison.risen]
    stages = list(next(iter(comparison.risen.values())))
    for stage in stages:
        risen = [by_stage[stage] for by_stage in comparison.risen.values()]
        for column, what in enumerate(("entropy", "coverage"), 1):
            values, bounds = [getattr(r, what) for r in risen], [r.interval(what) for r in risen]
            up = [100 * (high - share) for share, (_, high) in zip(values, bounds, strict=True)]
            down = [100 * (share - low) for share, (low, _) in zip(values, bounds, strict=True)]
            whiskers = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
            bars = go.Bar(
                x=schedules,
                y=[100 * share for share in values],
                error_y={**whiskers, "color": INK, "thickness": 1, "width": 2},
                name=stage,
                marker_color=STAGE_COLORS[stage],
                showlegend=column == 1,
                legendgroup=stage,
            )
            figure.add_trace(bars, 1, column)
    figure.update_layout(barmode="group")
    _styled(figure)
    figure.update_yaxes(range=[0, 100])
    return figure


# The same as text and as CSV


def usage_words(name: str, count: Count) -> str:
    """What the usage figure shows, in one sentence per stage."""
    said = []
    for stage, before in count.per_stage[0].items():
        after = count.per_stage[1][stage]
        entropy = f"entropy {before.entropy:.3f} → {after.entropy:.3f} nats"
        said.append(f"{stage}: {entropy}, coverage {before.coverage:.1%} → {after.coverage:.1%}")
    return f"{name}, {count.num_samples} of {count.num_wanted} samples. {'; '.join(said)}."


def risen_words(comparison: Comparison) -> str:
    classes = f"{comparison.num_classes} of {comparison.num_wanted} classes, {comparison.num_samples} samples each"
    said = []
    for stage in ("coarse", "mid", "fine"):
        risen = comparison.risen.get(stage, {})
        rose = ", ".join(f"{name} {_share_words(r)}" for name, r in risen.items())
        said.append(f"{stage} only: {rose}")
    return (
        f"{classes}. Entropy rose in this share of them (with its 95 % interval), per stage, when amplified "
        f"{'; '.join(said)}."
    )


def _share_words(risen: Risen) -> str:
    low, high = risen.interval("entropy")
    return f"{risen.entropy:.0%} ({low:.0%} to {high:.0%})"


def usage_findings(count: Count, settings: Settings) -> list[str]:
    """Whether the paper's direction holds for a class, for each stage that is amplified."""
    values = {stage: getattr(settings, stage) for stage in STAGES if stage in count.differences}
    amplified = [stage for stage, value in values.items() if value and value[1] > settings.neutral]
    return [direction(stage, count.differences[stage].entropy, "pairs") for stage in amplified]


def own_stage(comparison: Comparison, names: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """Per stage: of each class the entropy of its tokens, that stage alone amplified, minus the baseline."""
    return {
        stage: {name: one.entropy for name, one in zip(names, by_stage[stage], strict=True)}
        for stage, by_stage in comparison.differences.items()
        if stage in by_stage
    }


def class_findings(comparison: Comparison) -> list[str]:
    """Whether the paper's direction holds over the classes, for each stage that is amplified alone."""
    found = own_stage(comparison, list(map(str, comparison.labels)))
    return [direction(stage, *over_classes(list(classes.values()))) for stage, classes in found.items()]


DIFFERENCE = ("entropy_nats", "entropy_low", "entropy_high", "coverage", "coverage_low", "coverage_high", "pairs")


def _difference(one: UsageDifference) -> tuple[Any, ...]:
    sides = [(side.value, side.low, side.high) for side in (one.entropy, one.coverage)]
    return (*sides[0], *sides[1], one.entropy.count)


def differences_csv(found: Mapping[str, Mapping[str, UsageDifference]]) -> str:
    """Amplified minus baseline, per class and place; low and high bound the 95 % interval."""
    rows = [(name, place, *_difference(one)) for name, places in found.items() for place, one in places.items()]
    return csv_text([("class", "where", *DIFFERENCE), *rows])


def class_differences_csv(comparison: Comparison, names: Sequence[str]) -> str:
    """The same per schedule, class and stage."""
    rows = [
        (schedule, name, stage, *_difference(one))
        for schedule, by_stage in comparison.differences.items()
        for stage, classes in by_stage.items()
        for name, one in zip(names, classes, strict=True)
    ]
    return csv_text([("schedule", "class", "where", *DIFFERENCE), *rows])


def usage_csv(count: Count, sides: Sequence[int]) -> str:
    header = ("where", "tokens", "entropy_baseline", "entropy_amplified", "coverage_baseline", "coverage_amplified")
    rows = [
        (name, before.num_tokens, before.entropy, after.entropy, before.coverage, after.coverage)
        for name, before, after in _rows(count, sides)
    ]
    return csv_text([header, *rows])


def changed_csv(count: Count) -> str:
    return csv_text(changed_rows(count.changed))


def risen_csv(comparison: Comparison) -> str:
    rows = [
        (schedule, stage, risen.entropy, risen.coverage, risen.num_classes)
        for schedule, by_stage in comparison.risen.items()
        for stage, risen in by_stage.items()
    ]
    return csv_text([("schedule", "stage", "share_entropy_rose", "share_coverage_rose", "classes"), *rows])
