"""The words of the page and the docs, from one file: web/glossary.json.

Each entry has a term, what it says, and under `on` the beginnings or parts of labels that show it as a tooltip.
`python -m app.glossary` writes docs/glossary.md from it.
"""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

from app import theme
from hieramp.files import write_text

DOCS = Path(__file__).resolve().parent.parent / "docs" / "glossary.md"


@dataclass(frozen=True)
class Word:
    """A term and one or two sentences on it."""

    term: str
    says: str
    on: tuple[str, ...]  # labels of the page that show it


def words() -> tuple[Word, ...]:
    return tuple(Word(one["term"], one["says"], tuple(one["on"])) for one in json.loads(theme.read("glossary.json")))


def as_markdown() -> str:
    """docs/glossary.md."""
    lines = [f"- **{word.term}**: {word.says}" for word in sorted(words(), key=lambda word: word.term.lower())]
    return "# Words\n\n" + "\n".join(lines) + "\n\nThe page shows the same sentences (app/web/glossary.json).\n"


def as_html() -> str:
    """The list of the tab Learn."""
    shown = "".join(f"<dt>{escape(word.term)}</dt><dd>{escape(word.says)}</dd>" for word in words())
    return (
        f'<section id="words" aria-labelledby="words-title"><h2 id="words-title">Words</h2><dl>{shown}</dl></section>'
    )


def script() -> str:
    """The tooltips: what labels say when pointed at, and to a screen reader."""
    labels = {label: word.says for word in words() for label in word.on}
    return theme.read("glossary.js").replace("/* labels */{}", json.dumps(labels, ensure_ascii=False))


if __name__ == "__main__":
    write_text(DOCS, as_markdown())
    print(f"{DOCS} written")
