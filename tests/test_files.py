"""Files are written whole or not at all; a run half done comes back as it was."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from hieramp.errors import UserError
from hieramp.files import atomic, csv_text, markdown_table, write_text
from hieramp.state_file import SaveTimer, load_state, read_about, save_state


def write_half(path: Path) -> None:
    with atomic(path) as part:
        part.write_text("tw")
        raise RuntimeError("cut off")


def test_a_file_is_whole_or_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one")
    with pytest.raises(RuntimeError, match="cut off"):
        write_half(path)
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    with atomic(path) as part:
        part.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two" and list(tmp_path.iterdir()) == [path]


def test_tables_are_read_back() -> None:
    rows = [["name", "share"], ['a "cat", sitting', 0.5], ["line\nbreak", 1]]
    assert list(csv.reader(csv_text(rows).splitlines(keepends=True))) == [[str(v) for v in row] for row in rows]
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def a_run(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.arange(15.0).view(5, 3)).square().sum().backward()
    optimizer.step()


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "state.safetensors"
    module, optimizer = a_run(0)
    step(module, optimizer)
    save_state(path, {"net": module, "opt": optimizer}, {"step": 1}, {"random": torch.arange(4)})
    other, its_optimizer = a_run(1)
    tensors = load_state(path, {"net": other, "opt": its_optimizer})
    assert read_about(path) == {"step": 1} and torch.equal(tensors["random"], torch.arange(4))
    for run in ((module, optimizer), (other, its_optimizer)):
        step(*run)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values()))


def test_weights_under_two_names_are_saved(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    save_state(tmp_path / "s", {"net": module}, {})
    found = load_state(tmp_path / "s", {"net": module})
    assert torch.equal(found["net/0.weight"], found["net/1.weight"])


def test_states_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    module, optimizer = a_run(0)
    step(module, optimizer)
    save_state(path, {"net": module}, {})
    with pytest.raises(UserError, match="no state of the optimiser"):
        load_state(path, {"net": module, "opt": optimizer})
    with pytest.raises(UserError, match="a model of other sizes"):
        load_state(path, {"net": nn.Linear(2, 2)})
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is damaged: remove it to begin anew"):
        read_about(path)


def test_saving_takes_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    timer = SaveTimer(60.0)
    assert not timer.is_due
    now = 60.0
    assert timer.is_due
    with timer.saving():
        now = 65.0
    now = 65.0 + 249
    assert not timer.is_due
    now = 65.0 + 250
    assert timer.is_due
    with timer.saving():
        now += 0.1
    now += 60
    assert timer.is_due
