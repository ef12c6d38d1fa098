"""Studies: tables of sets × students, as a file that says how each set is made and what was published."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hieramp.errors import UserError
from hieramp.evaluation.protocols import PROTOCOLS


@dataclass(frozen=True)
class Cell:
    """One entry of the table: a set, the teacher that labels it, the student that learns from it."""

    row: str
    column: str
    student: str
    teacher: str | None  # a name among the study's teachers; None for the one that is given
    set: str | None  # a path; None where `distill` tells how to make it
    distill: tuple[str, ...] = ()
    recover: tuple[str, ...] = ()  # arguments of `recover` that then draws the set anew; none: it does not
    make_teacher: tuple[str, ...] = ()  # arguments of `evaluate` that train the teacher, where the study has its own

    @property
    def set_slug(self) -> str:
        """Of how the set is made, not of the study, so that studies share their sets and results."""
        return slug(self.given_slug, *(("recover", *_plain(self.recover)) if self.recover else ()))

    @property
    def given_slug(self) -> str:
        """The same of the set before `recover`."""
        return slug(Path(self.set).stem) if self.set else slug(*_plain(self.distill))

    @property
    def slug(self) -> str:
        return slug(self.set_slug, (self.teacher or "") if self.make_teacher else "", self.student)

    @property
    def label(self) -> str:
        """What tells this cell from the others, for a person."""
        return " · ".join(filter(None, (self.row, self.column, self.teacher, self.student)))


@dataclass(frozen=True)
class Study:
    """A table. A row and a column together are the arguments of `distill`; students and teachers widen the columns."""

    name: str
    title: str
    about: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    students: tuple[str, ...] = ("resnet18",)
    teachers: Mapping[str, str | None] = field(default_factory=dict)  # name → arguments of `evaluate`, None: given
    protocol: str = "rded"
    runs: int = 3
    plot: Literal["bars", "lines"] = "bars"
    published: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # row → column → figure
    sets: Mapping[str, str] = field(default_factory=dict)  # row → path, instead of `rows`
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)  # row → columns in which it cannot be made
    recovered: Mapping[str, str] = field(default_factory=dict)  # row → how `recover` then draws its sets anew

    def cells(self) -> Iterator[Cell]:
        """Row by row within a column."""
        for column, more in self.columns.items():
            for row in self.sets or self.rows:
                if column in self.left_out.get(row, ()):
                    continue
                path = self.sets.get(row)
                arguments = () if path else (*shlex.split(self.rows[row]), *shlex.split(more))
                recover = tuple(shlex.split(self.recovered.get(row, "")))
                for teacher in self.teachers or [None]:
                    made = tuple(shlex.split((self.teachers.get(teacher) or "") if teacher else ""))
                    for student in self.students:
                        yield Cell(row, column, student, teacher, path, arguments, recover, made)

    def headings(self) -> list[str]:
        """Of the columns: what is asked of the sets, and the student where there are several."""
        return list(dict.fromkeys(self.heading(cell) for cell in self.cells()))

    def heading(self, cell: Cell) -> str:
        column = cell.column if len(self.columns) > 1 or len(self.students) == 1 else ""
        return " · ".join(filter(None, (column, cell.student if len(self.students) > 1 else ""))) or cell.student

    def row_names(self) -> list[str]:
        return list(dict.fromkeys(self.row_name(cell) for cell in self.cells()))

    def row_name(self, cell: Cell) -> str:
        return f"{cell.row}, teacher {cell.teacher}" if cell.teacher else cell.row


FIELDS = set(Study.__dataclass_fields__) - {"name", "sets"}


def read_study(path: Path) -> Study:
    """A study file (JSON).

    Raises:
        UserError: it is not there, damaged, or holds what no study has.
    """
    try:
        entries = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: give a study such as studies/methods.json") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not a readable study: {error}") from error
    if not isinstance(entries, dict) or not set(entries) <= FIELDS or not {"title", "rows"} <= set(entries):
        odd = sorted(set(entries) - FIELDS) if isinstance(entries, dict) else []
        raise UserError(f"{path} is no study: it must have title and rows" + (f"; unknown: {odd[0]}" if odd else ""))
    for name, is_right in ENTRIES.items():
        if name in entries and not is_right(entries[name]):
            raise UserError(f"{path} is no study: its {name} cannot be {str(entries[name])[:60]!r}")
    entries["students"] = tuple(entries.get("students", ("resnet18",)))
    return Study(name=path.stem, **entries)


def _plain(arguments: Sequence[str]) -> list[str]:
    """Without the names that are filled in."""
    return [argument for argument in arguments if "{" not in argument]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_command_line(value: Any) -> bool:
    try:
        return isinstance(value, str) and shlex.split(value) is not None
    except ValueError:  # a quote that is not closed
        return False


def _table_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and bool(value) and all(map(is_right, value.values()))


ENTRIES: dict[str, Callable[[Any], bool]] = {
    "title": _is_text,
    "about": _is_text,
    "rows": _table_of(_is_command_line),
    "columns": _table_of(_is_command_line),
    "students": lambda value: isinstance(value, list) and bool(value) and all(map(_is_text, value)),
    "teachers": _table_of(lambda value: value is None or _is_command_line(value)),
    "protocol": lambda value: isinstance(value, str) and value in PROTOCOLS,
    "runs": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
    "plot": lambda value: value in ("bars", "lines"),
    "recovered": _table_of(_is_command_line),
    "published": lambda value: value == {} or _table_of(_table_of(_is_text))(value),
}


def study_of_sets(paths: list[str], students: tuple[str, ...], protocol: str, runs: int) -> Study:
    """A table of sets that are there already.

    Raises:
        UserError: two of them have the same name.
    """
    sets: dict[str, str] = {}
    for path in paths:
        stem = Path(path).stem
        if stem in sets:
            raise UserError(f"{sets[stem]} and {path} have the same name: rename one, so that the table can tell them")
        sets[stem] = path
    return Study("sets", "Sets compared", sets=sets, students=students, protocol=protocol, runs=runs)


def filled(arguments: tuple[str, ...], values: Mapping[str, str | None]) -> list[str]:
    """Arguments with {names} replaced.

    Raises:
        UserError: a name that has no value.
    """
    known = {name: value for name, value in values.items() if value is not None}
    try:
        return [argument.format_map(known) for argument in arguments]
    except (AttributeError, IndexError, ValueError) as error:
        raise UserError(f"the study's {' '.join(arguments)!r} has braces that hold no plain name: {error}") from error
    except KeyError as error:
        name = error.args[0]
        way = f"--{name}" if name in ("data", "test", "teacher", "model") else f"--define {name}=…"
        raise UserError(f"the study needs {name}: give {way}") from error


def slug(*parts: str) -> str:
    """A name for a file, of letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


Results = Mapping[Cell, dict[str, Any] | None]
