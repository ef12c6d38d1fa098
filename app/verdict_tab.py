"""The verdict at the end of a set, in the fourth tab (app/set_verdict.py says what it is made of)."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from html import escape
from typing import Any

import gradio as gr

from app import study
from app.context import AppContext, html, sentences, stale_note
from app.jobs import Job
from app.set_verdict import SetVerdict, Students
from hieramp.errors import UserError
from hieramp.files import write_text

NOTHING = "A verdict is given when a set is finished."
BEGUN = "Judging the set …"
STORED = "verdict.json"
OTHER = "This is of another set than the one on screen."


def build(context: AppContext) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """The buttons that begin and end it, and the place of its words."""
    with gr.Row(elem_classes="ask"):
        button = gr.Button("Judge the set", scale=0, min_width=130, elem_id="judge-set")
        end = gr.Button("Stop judging", scale=0, min_width=120, interactive=False, elem_id="stop-verdict")
    return button, end, html(study.said(NOTHING), elem_classes="prose-line", elem_id="verdict")


def connect(
    context: AppContext,
    parts: tuple[gr.Button, gr.Button, gr.HTML],
    job_of: Callable[[dict[Any, Any]], Job | None],
    remembered: gr.BrowserState,
    finished: Any,
) -> None:
    """Judge the set on screen when the button is pressed, or when `finished` says that it has come to its end."""
    button, end, words = parts

    def judged(given: dict[Any, Any]) -> Iterator[study.Answer]:
        with sentences():
            job = job_of(given)
            if job is None or job.state != "done":
                raise UserError("there is no finished set to judge")
            path = job.folder / STORED
            if path.exists():
                found = read(path.read_text())
                yield found.of, found.of, as_html(job, found), ()
                return
            for found in context.study("verdict", job.distill_request, job.path, context.data):
                if found.is_finished:
                    write_text(path, json.dumps(asdict(found)))
                yield found.done, found.of, as_html(job, found), ()

    study.run(context, "verdict", (button, end), judged, {remembered}, [], [words], NOTHING, BEGUN, [finished])


def read(text: str) -> SetVerdict:
    """A stored verdict."""
    stored: dict[str, Any] = json.loads(text)
    if stored["students"]:
        stored["students"] = Students(**stored["students"])
    return SetVerdict(**stored)


def as_html(job: Job, found: SetVerdict) -> str:
    """What is known so far, a line each."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in in_words(found))
    links = ""
    if found.is_finished:
        about = {"set": job.path.name, "made by": json.loads(job.distill_request.to_json()), "verdict": asdict(found)}
        data = json.dumps(about, ensure_ascii=False, indent=1).encode()
        links = study.file_link(f"{job.distill_request.name}-verdict.json", data, "application/json", "Save JSON")
    head = f"<h3>Verdict on {escape(job.path.name)}</h3>"
    note = stale_note({}, OTHER)
    words = f'{head}{note}<dl class="set-verdict">{lines}</dl><p class="plain links">{links}</p>'
    return study.answering("verdict", [job.id], words)  # web/pictures.js tells which set is on screen


def in_words(found: SetVerdict) -> list[tuple[str, str]]:
    """Each part of a verdict by its name."""
    said = []
    if found.agreement is not None:
        text = f"calls {found.agreement:.1%} of {found.images:,} images what they should be, "
        said.append(("Classifier", text + f"mean probability {found.confidence:.2f}"))
    for name, tokens in (("Tokens", found.tokens), ("Tokens of random real", found.tokens_of_real)):
        parts = [f"{stage} {entropy:.2f} nats, {coverage:.1%}" for stage, (entropy, coverage) in tokens.items()]
        if parts:
            said.append((name, "entropy and coverage: " + "; ".join(parts)))
    if found.nearest is not None:
        text = f"median distance {found.nearest:.3f} (RMS of pixels) among {found.real_images:,}"
        text += f"; real test images have theirs at {found.nearest_of_test:.3f}. "
        text += f"{found.share_close:.0%} are nearer than 99 % of test images are: " if found.share_close else ""
        text += "look for copies." if found.share_close else "None is suspiciously near."
        said.append(("Nearest real image", text))
    elif found.is_finished:
        said.append(("Nearest real image, student", "need real images: start with python app.py --data FOLDER"))
    if found.students:
        said.append(("Student", student_words(found.students)))
    return said


def student_words(students: Students) -> str:
    how = f"{students.name}, {students.epochs} of the {students.of_epochs} epochs of {students.protocol.upper()}"
    how += f", {students.test_images:,} test images: "
    if students.accuracy is None:
        return how + "training …"
    real = students.accuracy_of_real
    if real is None:
        return how + f"{students.accuracy:.1%} from this set; the one on random real images is training …"
    return how + f"{students.accuracy:.1%} from this set, {real:.1%} from as many random real images. One run: a hint."
