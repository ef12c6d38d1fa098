"""The third tab: a sheet along any two fields, its baseline first, a figure under every tile."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app import axes, sheet_files, sheets, study, view_models, view_requests
from app.context import CHEAP, AppContext, html, sentences, slider, stale_note
from app.controls import Controls
from app.kinds import AnyModel
from app.names import name_of
from app.sheets import Sheet
from app.view_requests import ViewRequest
from hieramp.scales import STAGES

ABOUT = (
    "<h2>Ablate</h2><p>Any setting across, any other down, once for each of some seeds; what is on neither axis is as "
    "the controls say. Point at a tile to see how it differs from its baseline, click it to see it large.</p>"
)
EMPTY = "Nothing is drawn until you ask."
BEGUN = "Drawing: the first pictures are on their way …"
ONE_ROW = ""  # no second axis


def build(context: AppContext, controls: Controls) -> None:
    model, first = context.model, view_requests.first_request(context.model)
    html(ABOUT, elem_classes="prose-line")
    forms = forms_of(model)
    chips = [(label, name) for name, (label, *_) in forms.items()]
    form = gr.Radio(chips, value="schedules", show_label=False, container=False, elem_classes="chips", elem_id="kind")
    fields = axes.choices(model)
    with gr.Row(elem_classes="ask"):
        columns = gr.Dropdown(fields, value=axes.SCHEDULE, label="Columns", interactive=True, elem_id="columns")
        column_values = _values(model, axes.SCHEDULE, first, "Values of the columns", "column-values")
    with gr.Row(elem_classes="ask"):
        none = ("Nothing but the seeds", ONE_ROW)
        rows = gr.Dropdown([none, *fields], value=ONE_ROW, label="Rows", interactive=True, elem_id="row-field")
        row_values = _values(model, ONE_ROW, first, "Values of the rows", "row-values")
    with gr.Row(elem_classes="ask"):
        seeds = slider(1, view_requests.MAX_COUNT, 1, 1, "Seeds, a row each", precision=0, elem_id="sheet-seeds")
        draw = gr.Button("Draw the sheet", variant="primary", scale=0, min_width=150)
        stop = gr.Button("Stop", scale=0, min_width=80, interactive=False, elem_id="stop-sheet")
    words = html(study.said(EMPTY), elem_classes="prose-line")
    sheet = html("", elem_id="sheet")
    asked = {"columns": columns, "column_values": column_values, "rows": rows, "row_values": row_values}

    def drawn(given: dict[Any, Any]) -> Iterator[study.Answer]:
        with sentences():
            view_request = view_requests.read_request(model, controls.values(given))
            wanted = {name: given[component] for name, component in asked.items()}
            empty = plan(model, view_request, **wanted, seeds=given[seeds])
            of = stale_of(model, view_request, [wanted["columns"], wanted["rows"]])
            yield 0, len(empty.view_requests), study.said(BEGUN), (as_html(model, empty),)
            for found in context.study("ablate", view_request, empty):
                said = sheet_files.title(model, found) + ("." if found.is_finished else " …")
                links = saved_links(model, found) if found.is_finished else ""
                words = f'<p role="status">{escape(said)}</p>{stale_note(of)}<p class="plain links">{links}</p>'
                yield found.num_done, len(found.view_requests), words, (as_html(model, found),)

    def fill(name: str, given: dict[Any, Any]) -> list[Any]:
        _, across, down = forms[name]
        view_request = _request_or_first(model, controls.values(given))
        return [across, _values_of(model, across, view_request), down, _values_of(model, down, view_request)]

    def choose(name: str, given: dict[Any, Any]) -> Any:
        return _values_of(model, name, _request_or_first(model, controls.values(given)))

    asking = [*asked.values(), seeds]
    study.run(context, "sheet", (draw, stop), drawn, controls.inputs, asking, [words, sheet], EMPTY, BEGUN)
    filled = [columns, column_values, rows, row_values]
    form.input(lambda given: fill(given[form], given), {form, *controls.inputs}, filled, **CHEAP)
    columns.input(lambda given: choose(given[columns], given), {columns, *controls.inputs}, column_values, **CHEAP)
    rows.input(lambda given: choose(given[rows], given), {rows, *controls.inputs}, row_values, **CHEAP)


def forms_of(model: AnyModel) -> dict[str, tuple[str, str, str]]:
    """Sheets that are worth a click: what the page calls each, and the fields across and down."""
    count = {"var": "seven", "dit": "four"}[model.kind]
    forms = {"schedules": (f"The {count} schedules", axes.SCHEDULE, ONE_ROW)}
    forms |= {stage: (f"Strength × ρ, {stage}", f"{stage}_strength", f"{stage}_rho") for stage in STAGES}
    forms["guidance"] = ("Guidance", "guidance", ONE_ROW)
    if model.kind == "dit":
        forms["steps"] = ("Steps × solver", "steps", "solver")
    return forms | {"classes": ("Classes × schedules", axes.SCHEDULE, axes.CLASS)}


def _values(model: AnyModel, name: str, view_request: ViewRequest, label: str, elem_id: str) -> gr.Textbox:
    text, info = ("", " ") if name == ONE_ROW else (axes.suggestion(model, name, view_request), axes.hint(model, name))
    is_there = name != ONE_ROW
    return gr.Textbox(text, label=label, info=info, interactive=is_there, max_length=2000, elem_id=elem_id)


def _values_of(model: AnyModel, name: str, view_request: ViewRequest) -> gr.Textbox:
    """The box of values, for a field that was chosen."""
    if name == ONE_ROW:
        return gr.Textbox(value="", info=" ", interactive=False)
    return gr.Textbox(value=axes.suggestion(model, name, view_request), info=axes.hint(model, name), interactive=True)


def _request_or_first(model: AnyModel, values: dict[str, Any]) -> ViewRequest:
    try:
        return view_requests.read_request(model, values)
    except ValueError:  # it is said when the sheet is asked for
        return view_requests.first_request(model)


def plan(
    model: AnyModel,
    view_request: ViewRequest,
    columns: Any,
    column_values: Any,
    rows: Any,
    row_values: Any,
    seeds: Any = 1,
) -> Sheet:
    """The empty sheet that a form asks for.

    Raises:
        UserError: a field that is not there, a value that it cannot have, or too many pictures.
    """
    across = axes.read_axis(model, columns, column_values, view_request)
    down = axes.read_axis(model, rows, row_values, view_request) if rows else None
    return sheets.plan(
        model, view_request, across, down, view_requests.whole("the number of seeds", seeds, 1, view_requests.MAX_COUNT)
    )


def stale_of(model: AnyModel, view_request: ViewRequest, fields: list[str]) -> dict[str, str | None]:
    """The part of an address that a sheet follows: what is on its axes may change."""
    of = view_requests.address(model, view_request)
    gone = {"count", *map(view_requests.in_address, fields)}
    if axes.SCHEDULE in fields:
        gone |= {view_requests.in_address(name) for name in view_requests.schedule_values("all", model.kind)}
    return {name: value for name, value in of.items() if name not in gone}


def as_html(model: AnyModel, sheet: Sheet) -> str:
    """The sheet as far as it has come, with the place of tiles to come kept."""
    busy, measure = str(not sheet.is_finished).lower(), sheet_files.first_measure(sheet)
    options = "".join(
        f'<option value="{name}"{" selected" if name == measure else ""}>{escape(text)}</option>'
        for name, text in sheet_files.MEASURES.items()
        if name == measure or sheet.has(name)
    )
    head = f'<label class="measure">Under each tile <select data-measure>{options}</select></label>'
    lines = ["<span></span>", *(f'<b class="column">{escape(name)}</b>' for name in sheet.columns)]
    width = len(sheet.columns)
    for k, row in enumerate(sheet.rows):
        lines.append(f'<b class="row">{escape(row)}</b>')
        lines += [_tile(model, sheet, i, measure) for i in range(k * width, (k + 1) * width)]
    hint = '<p class="hint" role="status" aria-live="polite">Point at a tile: its difference from the baseline.</p>'
    about = f'class="tiles" style="--columns:{width}" tabindex="0" role="group" aria-label="Tiles"'
    tiles = f"<div {about}>{''.join(lines)}</div>"
    section = f'<section class="sheet" aria-busy="{busy}">{head}{tiles}{hint}</section>'
    return f'<div class="sheet-and-tile">{section}<aside class="beside" aria-label="The tile" hidden></aside></div>'


def _tile(model: AnyModel, sheet: Sheet, i: int, measure: str) -> str:
    tile, view_request = sheet.tiles[i] if sheet.tiles else None, sheet.view_requests[i]
    if tile is None:
        return '<figure><div class="empty"></div><figcaption>&nbsp;</figcaption></figure>'
    name = name_of(model, view_request.label)
    label = f"{name}, seed {view_request.seeds[0]}, {sheet.labels[i]}"
    about = {
        "label": label,
        "query": "?" + urlencode(view_requests.to_query(model, view_request)),
        "caption": view_requests.caption(view_request, model.kind),
        "named": tile.named,
        "isBaseline": sheet.is_baseline(i),
        "numbers": {name: sheet_files.number(sheet, i, name) for name in sheet_files.MEASURES},
    }
    size = model.image_size
    source = view_models.data_uri(view_models.thumb(tile.picture))
    picture = f'<img src="{source}" alt="{escape(label)}" width="{size}" height="{size}">'
    data = f'data-index="{i}" data-baseline="{sheet.baselines[i]}" data-tile="{escape(json.dumps(about))}"'
    caption = f"<figcaption>{sheet_files.number(sheet, i, measure)}</figcaption>"
    return f'<figure><button type="button" class="tile" {data}>{picture}</button>{caption}</figure>'


def saved_links(model: AnyModel, sheet: Sheet) -> str:
    """A finished sheet to take away."""
    measure = sheet_files.first_measure(sheet)
    files = {
        "png": (sheet_files.as_figure(model, sheet, measure, "png"), "image/png"),
        "svg": (sheet_files.as_figure(model, sheet, measure, "svg"), "image/svg+xml"),
        "csv": (sheet_files.as_csv(model, sheet).encode(), "text/csv;charset=utf-8"),
        "json": (sheet_files.as_json(model, sheet).encode(), "application/json"),
    }
    return "".join(
        study.file_link(sheet_files.file_name(model, sheet, ending), data, kind, f"Save {ending.upper()}")
        for ending, (data, kind) in files.items()
    )
