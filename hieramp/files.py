"""Files that are written whole or not at all, and the texts of tables."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to. What was written there takes the place of `path`, or goes if anything fails.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; a file that was there stays as it was.
    """
    part = part_of(path)
    try:
        yield part
        flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Where a file is written before it is renamed."""
    return path.with_name(path.name + ".part")


def flush(path: Path) -> None:
    """Wait until a file, or a whole folder, is on the disk: a rename is no use while the data is still on its way."""
    if path.is_dir():
        for inner in path.iterdir():
            flush(inner)
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; every line ends with a newline alone, on every system."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def with_settings(table: str, about: Mapping[str, Any]) -> str:
    """A table of `csv_text` that says in lines before it, after a #, what it was made by."""
    return "".join(f"# {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in about.items()) + table


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a newline at its end."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
