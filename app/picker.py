"""The choice among the models of a server, above the other controls: another one is another page of the same view."""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from app import view_requests
from app.context import ASKING, AppContext, sentences
from app.controls import Controls
from app.models import MODEL, carried

GO = "query => window.hieramp.open(JSON.parse(query))"  # web/lecture.js


def build(context: AppContext) -> gr.Dropdown | None:
    """The choice; None where there is none."""
    if len(context.models) < 2:
        return None
    names = [(one.title, one.name) for one in context.models]
    return gr.Dropdown(names, value=context.model.name, label="Model", interactive=True, elem_id="model")


def connect(context: AppContext, controls: Controls, choice: gr.Dropdown | None) -> None:
    """Open the page of the model chosen, with what the two have in common."""
    if choice is None:
        return
    kinds = {one.name: one.kind for one in context.models}

    def switch(given: dict[Any, Any]) -> str:
        with sentences():
            view_request = view_requests.read_request(context.model, controls.values(given))
        name = given[choice]
        return json.dumps({MODEL: name} | carried(context.model, view_request, kinds[name]))

    target = gr.Textbox("{}", visible=False)
    chosen = choice.input(switch, {choice, *controls.inputs}, target, **ASKING)
    chosen.success(None, target, None, js=GO, api_visibility="private")


def missing(context: AppContext, query: Mapping[str, str]) -> str:
    """What an address gets wrong that names a model which this server does not offer; "" where it names none such."""
    name, known = query.get(MODEL), [one.name for one in context.models] or [context.model.name]
    return "" if name is None or name in known else f"there is no model {name!r} here, but {', '.join(known)}"
