"""The classes of a model, by name, ImageNet id or number."""

import difflib
import re
from collections.abc import Sequence


def label_of(name: str | int, class_names: Sequence[str], wnids: Sequence[str], model: str) -> int:
    """The label of a class name, ImageNet id or number; a name that looks like a number is a name first.

    Raises:
        ValueError: there is no such class; names the nearest ones.
    """
    text = str(name).strip()
    found = None if isinstance(name, int) else _named(text.lower(), class_names, wnids)
    if found is not None:
        return found
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        if 0 <= int(text) < len(class_names):
            return int(text)
        raise ValueError(f"class {text} does not exist: {model} has classes 0 to {len(class_names) - 1}")
    near = difflib.get_close_matches(text.lower(), [n.lower() for n in class_names], n=3, cutoff=0.4)
    hint = ", ".join(near or class_names[:10])
    raise ValueError(f"unknown class {text!r}; {'the nearest are' if near else 'there are'}: {hint}")


def _named(text: str, class_names: Sequence[str], wnids: Sequence[str]) -> int | None:
    """The label of the class of this name, in lower case."""
    for names in (class_names, wnids):
        lowered = [entry.lower() for entry in names]
        if text in lowered:
            return lowered.index(text)
        # ImageNet names list synonyms: "tench, Tinca tinca"
        for i, entry in enumerate(lowered):
            if text in (part.strip() for part in entry.split(",")):
                return i
    return None


def check_labels(labels: Sequence[int], num_classes: int, model: str) -> tuple[int, ...]:
    """The labels as whole numbers.

    Raises:
        ValueError: there are none, or one that the model does not have.
    """
    if not len(labels):
        raise ValueError("no labels: name at least one class to draw")
    for label in labels:
        if not 0 <= int(label) < num_classes:
            raise ValueError(f"class {int(label)} does not exist: {model} has 0 to {num_classes - 1}")
    return tuple(map(int, labels))
