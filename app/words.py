"""Sentences on their way to a visitor: nothing in them is a tag, or a folder of this machine."""

import re
from html import escape

FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s'\"/]+/)+|\b[A-Za-z]:\\(?:[^\s'\"\\]+\\)*")


def without_folders(text: str) -> str:
    """A sentence without the folders of this machine; names of files stay."""
    return FOLDERS.sub("", text)


def shown(text: str) -> str:
    """A sentence as a toast shows it, which is HTML to Gradio."""
    text = without_folders(text)
    return escape(text[:1].upper() + text[1:], quote=False)
