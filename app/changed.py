"""The second tab: what amplification changes in the tokens, of one class and across classes."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

import hieramp
from app import plots, study, view_models, view_requests
from app.context import AppContext, html, sentences, slider
from app.controls import Controls
from app.names import name_of
from hieramp import Settings
from hieramp.analysis.differenceplots import classes_figure, usage_difference_figure
from hieramp.analysis.tokenplots import changed_figure, risen_figure, usage_figure
from hieramp.captions import caption, in_words, seeds_in_words
from hieramp.class_names import slug
from hieramp.figures import STUDY

Study = Callable[[dict[Any, Any]], Iterator[study.Answer]]
ABOUT = (
    "<h2>What changed</h2><p>Samples of the class are drawn as the controls say, plain and amplified from the "
    "same seeds, and their tokens are counted: entropy H = −Σ p log p of the codes used, coverage the share of the "
    "codebook that occurs. Intervals are by bootstrap over the pairs: plain and amplified of a seed stay together.</p>"
)
ABOUT_CLASSES = (
    "<h2>Across classes</h2><p>The eight schedules of the paper on many classes, each against “off”: the share of "
    "classes whose entropy or coverage rises (Figures 3, 8 and 9), and by how much in each class.</p>"
)


def build(context: AppContext, controls: Controls) -> None:
    html(ABOUT, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        samples = slider(1, context.limits.samples, 16, 1, "Samples", precision=0)
        count = gr.Button("Count tokens", variant="primary", scale=0, min_width=160)
        end = gr.Button("Stop", scale=0, min_width=80, interactive=False, elem_id="stop-count")
    usage_words = html(study.said(study.NOTHING), elem_classes="prose-line", elem_id="usage-words")
    difference = html("", elem_id="usage-difference")
    usage = _plot("Entropy and coverage")
    changed = _plot("Share of samples whose token differs")
    html(ABOUT_CLASSES, elem_classes="prose-line")
    with gr.Row(elem_classes="ask"):
        most = min(context.limits.classes, len(context.model.class_names))
        classes = slider(1, most, min(10, most), 1, "Classes", precision=0)
        per_class = slider(1, context.limits.samples, 8, 1, "Samples of each", precision=0)
        compare = gr.Button("Compare schedules", variant="primary", scale=0, min_width=180)
        end_comparison = gr.Button("Stop", scale=0, min_width=80, interactive=False, elem_id="stop-compare")
    risen_words = html(study.said(study.NOTHING), elem_classes="prose-line", elem_id="risen-words")
    per_class_plot = html("", elem_id="class-difference")
    risen = _plot("Share of classes that rose")
    outputs = [usage_words, difference, usage, changed]
    counting = _counting(context, controls, samples)
    study.run(context, "count", (count, end), counting, controls.inputs, [samples], outputs)
    comparing, form = _comparing(context, controls, classes, per_class), [classes, per_class]
    outputs = [risen_words, per_class_plot, risen]
    study.run(context, "compare", (compare, end_comparison), comparing, controls.inputs, form, outputs)


def _plot(text: str) -> gr.Plot:
    """The place of a plot to come."""
    return gr.Plot(study.interactive(plots.empty(text)), show_label=False, elem_classes="plot", buttons=[])


def _counting(context: AppContext, controls: Controls, samples: gr.Slider) -> Study:
    model, sides = context.model, context.model.var.scales.sides

    def count(given: dict[Any, Any]) -> Iterator[study.Answer]:
        with sentences():
            view_request = view_requests.read_request(model, controls.values(given))
            wanted = view_requests.whole("the number of samples", given[samples], 1, context.limits.samples)
            name = name_of(model, view_request.label)
            of = view_requests.address(model, view_request)
            for found in context.study("count_tokens", view_request, wanted):
                seeds = range(view_request.seeds[0], view_request.seeds[0] + found.num_samples)
                start = view_models.file_name(name, f"seed{seeds[0]}-n{len(seeds)}")
                how = f"{name}, {{}}, {model.name}: {len(seeds)} pairs. {caption(view_request.settings, seeds)}"
                title = how.format("amplified minus baseline")
                figure = usage_difference_figure(found.differences, title)
                findings, links = plots.usage_findings(found, view_request.settings), ""
                if found.is_finished:
                    of_class = replace(view_request, seeds=tuple(seeds))
                    about = view_requests.described(model, of_class) | {STUDY: {"what": "tokens", "pairs": len(seeds)}}
                    usage_plot = usage_figure(plots.levels(found, sides), how.format("use of the codes"))
                    changed_plot = changed_figure(found.changed, how.format("where the tokens of a pair differ"))
                    links = "".join(
                        study.result_links(start, what, table, about, drawn)
                        for what, table, drawn in (
                            ("usage", plots.usage_csv(found, sides), usage_plot),
                            ("differences", plots.differences_csv({name: found.differences}), figure),
                            ("changed", plots.changed_csv(found), changed_plot),
                        )
                    )
                words = study.said(plots.usage_words(name, found), links, of, findings)
                plot = study.plot(figure, " ".join([title, *findings]))
                bars = study.interactive(plots.usage_figure(found, sides), f"{start}-usage")
                maps = study.interactive(plots.changed_figure(found, sides), f"{start}-changed")
                yield found.num_samples, found.num_wanted, words, (plot, bars, maps)

    return count


def _comparing(context: AppContext, controls: Controls, classes: gr.Slider, per_class: gr.Slider) -> Study:
    model = context.model
    sampled = [part.name for row in Settings.table().values() if row.group == "sampling" for part in row.parts]

    def compare(given: dict[Any, Any]) -> Iterator[study.Answer]:
        with sentences():
            view_request = view_requests.read_request(model, controls.values(given))
            most = min(context.limits.classes, len(model.class_names))
            wanted = view_requests.whole("the number of classes", given[classes], 1, most)
            each = view_requests.whole("the number of samples", given[per_class], 1, context.limits.samples)
            labels = choose_classes(len(model.class_names), wanted, view_request.seeds[0])
            drawn = in_words(view_request.settings.plain, off="")
            query = view_requests.address(model, view_request)
            of = {name: query[name] for name in ("seed", *map(view_requests.in_address, sampled))}
            for found in context.study("compare_schedules", view_request, each, labels):
                seeds = range(view_request.seeds[0], view_request.seeds[0] + each)
                names = [name_of(model, label) for label in found.labels]
                how = f"{each} pairs a class, {model.name}. {seeds_in_words(seeds)}. {drawn}"
                title = f"Entropy of the tokens of a stage, that stage alone amplified, minus baseline: {how}"
                figure = classes_figure(plots.own_stage(found, names), title)
                start = f"{slug(model.name)}-{len(names)}-classes-seed{seeds[0]}-n{each}"
                findings, links = plots.class_findings(found), ""
                if found.is_finished:
                    about: dict[str, Any] = {"model": model.name, "classes": names, "seeds": list(seeds)}
                    about |= view_request.settings.plain.to_json() | {"hieramp": hieramp.__version__}
                    about[STUDY] = {"what": "schedules", "pairs": each}
                    schedules = {name.replace("-", " "): of_stages for name, of_stages in found.risen.items()}
                    risen_plot = risen_figure(
                        schedules, f"Schedules against “off”, tokens by stage: {len(names)} classes, {how}", "schedule"
                    )
                    table = plots.class_differences_csv(found, names)
                    links = study.result_links(start, "schedules", plots.risen_csv(found), about, risen_plot)
                    links += study.result_links(start, "differences", table, about, figure)
                words = study.said(plots.risen_words(found), links, of, findings)
                plot = study.plot(figure, " ".join([title, *findings]))
                bars = study.interactive(plots.risen_figure(found), f"{start}-schedules")
                yield found.num_classes, found.num_wanted, words, (plot, bars)

    return compare


def choose_classes(num_classes: int, wanted: int, seed: int) -> list[int]:
    """All classes, or so many of them, drawn by the seed."""
    return sorted(random.Random(seed).sample(range(num_classes), wanted))
