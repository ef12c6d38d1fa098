"""What a study came to: markdown with the figures published beside it, CSV, and a plot."""

import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hieramp.errors import UserError
from hieramp.evaluation.results import scores
from hieramp.evaluation.studies import Cell, Results, Study
from hieramp.figures import save_figure
from hieramp.files import csv_text, markdown_table, write_text

# of rows with fewer than three students: a sign, and what it says
FEW = {1: "¹ one run, so no deviation.", 2: "² two runs, so the deviation is hardly known."}
MISSING = "–"
COLORS = ("#1c1b22", "#b5483a", "#4a6fa5", "#7a8b4f", "#c9a13b", "#8a6aa8", "#5f9ea0", "#a0a0a0")
HATCHES = ("", "//", "..")  # a table with more rows than colours uses each again, hatched


def markdown(study: Study, results: Results) -> str:
    """`summary`, then each measured cell with its settings and commands."""
    parts = [summary(study, results).rstrip()]
    if measured := _measured(results):
        parts += [details(measured), "Commands, in the order of the rows:", _commands(measured)]
    return "\n\n".join(parts) + "\n"


def summary(study: Study, results: Results) -> str:
    """What a reader wants to know: the figures, with the published ones below."""
    parts = [f"### {study.title}", study.about]
    if measured := _measured(results):
        parts += [figures(study, results), *_notes(measured)]
    else:
        parts.append("Nothing measured yet.")
    if study.published:
        parts += ["Published:", published(study)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _measured(results: Results) -> dict[Cell, dict[str, Any]]:
    return {cell: result for cell, result in results.items() if result and result["runs"]}


def figures(study: Study, results: Results) -> str:
    """Best test accuracy in %, mean ± deviation over runs."""
    headings, rows = study.headings(), []
    for name in study.row_names():
        cells = {study.heading(cell): result for cell, result in results.items() if study.row_name(cell) == name}
        rows.append([name, *(_figure(cells[heading]) if heading in cells else "" for heading in headings)])
    return markdown_table(["", *headings], rows)


def published(study: Study) -> str:
    """The figures of papers, a row each."""
    named = dict.fromkeys(column for row in study.published.values() for column in row)
    columns = [*(c for c in study.columns if c in named), *(c for c in named if c not in study.columns)]
    rows = [[name, *(row.get(column, "") for column in columns)] for name, row in study.published.items()]
    return markdown_table(["", *columns], rows)


def _figure(result: dict[str, Any] | None) -> str:
    if not result or not result["runs"]:
        return MISSING
    star = "*" if result["preview"] else ""
    few = FEW.get(len(result["runs"]), "")[:1]
    return f"{scores(result)[0]}{few}{star}"


def details(measured: dict[Cell, dict[str, Any]]) -> str:
    rows = []
    for cell, result in measured.items():
        best, last = scores(result)
        teacher = result["teacher"]
        seeds = ", ".join(str(run["seed"]) for run in result["runs"])
        rows.append(
            [
                cell.label,
                str(result["set"]["images"]),
                str(best),
                str(last),
                seeds,
                f"{teacher['test_accuracy']:.1%}" if teacher else "none",
                _protocol(result),
                f"{result['seconds'] / 60:.1f} min",
                result["machine"],
                "; ".join(result["preview"]) or "no",
            ]
        )
    header = ["row", "images", "best %", "last epoch %", "seeds", "teacher", "protocol", "time", "machine", "preview"]
    return markdown_table(header, rows)


def _notes(measured: dict[Cell, dict[str, Any]]) -> list[str]:
    counts = {len(result["runs"]) for result in measured.values()}
    notes = [note for count, note in FEW.items() if count in counts]
    return notes + (["\\* a preview: not the whole protocol."] if any(r["preview"] for r in measured.values()) else [])


def _protocol(result: dict[str, Any]) -> str:
    training = result["key"]["training"]
    alone = ", the last alone tested" if training["test_after"] == 1 else ""
    return f"{result['protocol']['name']}, {training['epochs']} epochs{alone}"


def _commands(measured: dict[Cell, dict[str, Any]]) -> str:
    lines = dict.fromkeys(line for result in measured.values() for line in result.get("commands", []))
    return "\n".join(f"    {line}" for line in lines)


def write_tables(study: Study, results: Results, folder: Path) -> str:
    """table.md, table.csv and table.png; returns the markdown."""
    text = markdown(study, results)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", _csv(results))
    if any(result and result["runs"] for result in results.values()):
        save_figure(plot(study, results), folder / "table.png")
    return text


def _csv(results: Results) -> str:
    rows: list[list[Any]] = [["row", "column", "teacher", "student", "seed", "best", "last", "seconds"]]
    for cell, result in results.items():
        for run in result["runs"] if result else []:
            head = [cell.row, cell.column, cell.teacher or "", cell.student]
            rows.append([*head, run["seed"], run["best"], run["last"], run["seconds"]])
    return csv_text(rows)


def plot(study: Study, results: Results) -> Figure:
    """Accuracy of each measured row, as bars in groups of columns, or as lines over the numbers in their names."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    measured = [cell for cell, result in results.items() if result and result["runs"]]
    names = [name for name in study.row_names() if any(study.row_name(cell) == name for cell in measured)]
    headings = [heading for heading in study.headings() if any(study.heading(cell) == heading for cell in measured)]
    for i, name in enumerate(names):
        found = {
            study.heading(c): scores(r)[0] for c, r in results.items() if study.row_name(c) == name and r and r["runs"]
        }
        places = [headings.index(heading) for heading in found]
        means = [100 * score.mean for score in found.values()]
        spread = [100 * (score.std or 0) for score in found.values()]
        color = COLORS[i % len(COLORS)]
        hatch = HATCHES[i // len(COLORS) % len(HATCHES)]
        if study.plot == "lines":
            axes.errorbar([_number(h) for h in found], means, spread, fmt="o-", color=color, label=name, capsize=2)
        else:
            width = 0.8 / len(names)
            x = [place + (i - (len(names) - 1) / 2) * width for place in places]
            axes.bar(
                x,
                means,
                width * 0.9,
                yerr=spread,
                color=color,
                hatch=hatch,
                edgecolor="white",
                label=name,
                error_kw={"linewidth": 1},
            )
    if study.plot == "lines":
        axes.set(xscale="log", xlabel="images per class")
        numbers = [_number(heading) for heading in headings]
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
        axes.minorticks_off()
    else:
        axes.set_xticks(range(len(headings)), [h.replace(" · ", "\n") for h in headings], fontsize=8)
    axes.set(ylabel="test accuracy, %", title=study.title)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _number(heading: str) -> float:
    found = re.search(r"\d+", heading)
    return float(found.group()) if found else 0.0


def write_into(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of a study in a document; raises as `check_place` does."""
    begin, before, after, end = check_place(path, name)
    write_text(path, f"{before}{begin}\n\n{text}\n{end}{after}")


def check_place(path: Path, name: str) -> tuple[str, str, str, str]:
    """The marker that begins a study's place in a document, what is before and after it, and the marker that ends it.

    Raises:
        UserError: the document is not there, or has no such markers.
    """
    begin, end = f"<!-- study {name} -->", f"<!-- end of study {name} -->"
    try:
        document = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"--write is {path}, which does not exist") from error
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise UserError(f"--write is {path}, which is no document of text: give a Markdown file") from error
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path} has no place for this study: put {begin} and {end} on lines of their own")
    return begin, before, after, end
