"""What a person can mend is one sentence; a fault of ours keeps its traceback."""

import logging
import re
from pathlib import Path

import gradio as gr
import pytest

from app.context import sentences
from hieramp.commands.main import main
from hieramp.errors import UserError

TOO_LITTLE = "there is too little memory: take smaller images, fewer at once, or another machine"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("no such class: name another"), 2, "no such class: name another"),
        (OSError("No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, TOO_LITTLE),
    ],
)
def test_what_a_person_can_mend_is_one_sentence(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    verify_raises(error, monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        main(["verify", "set.zip"])
    assert stopped.value.code == code and capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize("error", [ValueError("could not broadcast"), RuntimeError("no such shape"), KeyError("seed")])
def test_a_fault_of_ours_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    verify_raises(error, monkeypatch)
    with pytest.raises(type(error)) as raised:
        main(["verify", "set.zip"])
    assert raised.value is error


def verify_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr("hieramp.commands.verify.open_set", fail)


def test_a_visitor_sees_what_they_can_mend(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as shown, sentences():
        raise UserError("top_p is <b>2</b>")
    assert shown.value.message == "Top_p is &lt;b&gt;2&lt;/b&gt;" and not caplog.records


def test_a_visitor_sees_a_reference_to_what_they_cannot(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as shown, sentences():
        raise ValueError("operands of /srv/secret could not be broadcast")
    found = re.search(r"reference ([0-9a-f]{8})", shown.value.message)
    assert found and "broadcast" not in shown.value.message
    (record,) = caplog.records
    assert found[1] in record.getMessage() and record.exc_info and "broadcast" in str(record.exc_info[1])


def test_an_error_for_the_visitor_stays_as_it_is() -> None:
    error = gr.Error("nothing to show")
    with pytest.raises(gr.Error) as shown, sentences():
        raise error
    assert shown.value is error
