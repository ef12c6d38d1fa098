"""Class names: ImageNet's ids and words, and how two lists of names are matched."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from hieramp.errors import UserError
from hieramp.imagenet import WORDS

WNID = re.compile(r"n\d{8}")


def described_classes(folders: Sequence[str]) -> dict[str, list[str]]:
    """Names of the classes; folders that are ImageNet ids get their words, and the ids are kept as "wnids"."""
    names = list(folders)
    if not all(WNID.fullmatch(name) for name in names):
        return {"class_names": names}
    return {"class_names": [WORDS.get(name, name) for name in names], "wnids": names}


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS writes the é of café as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


@cache
def _imagenet() -> dict[str, str]:
    """ImageNet's 1,000 descriptions (and their synonyms, where only one class has it) to their ids."""
    found: dict[str, set[str]] = {}
    for wnid, description in WORDS.items():
        for name in {description, *description.split(", ")}:
            found.setdefault(composed(name).casefold(), set()).add(wnid)
    return {name: next(iter(ids)) for name, ids in found.items() if len(ids) == 1}


def key_of(name: str) -> str:
    """What a class name is compared by: letter case and the form of accents are ignored, and an ImageNet id is its
    words ("n01440764" and "tench, Tinca tinca" are one class)."""
    plain = composed(name).casefold()
    return _imagenet().get(plain, plain)


def keys_of(names: Sequence[str]) -> list[tuple[str, int]]:
    """A key a class, no two alike.

    Names that differ in letter case alone are compared letter by letter, and two classes of one name (ImageNet has two
    cranes) are counted.
    """
    common = Counter(map(key_of, names))
    counts: Counter[str] = Counter()
    keys = []
    for name in names:
        key = key_of(name) if common[key_of(name)] == 1 else composed(name)
        keys.append((key, counts[key]))
        counts[key] += 1
    return keys


def ids_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a model's config, the ImageNet ids of its classes, or their names where they have none."""
    return tuple(about.get("wnids") or about.get("class_names", ()))


def keys_of_both(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Keys of two lists of names or ImageNet ids, by which they are matched.

    Where both are ids these are compared, which tells the two cranes apart; a list of ids beside one of names is
    compared by its words.
    """
    lists = [described_classes(ours), described_classes(theirs)]
    of = "wnids" if all("wnids" in each for each in lists) else "class_names"
    our_keys, their_keys = (keys_of(each[of]) for each in lists)
    return our_keys, their_keys


def short_name(name: str) -> str:
    """The first of ImageNet's synonyms ("tench" of "tench, Tinca tinca"); any other name whole, commas and all."""
    return name.split(",")[0] if composed(name).casefold() in _imagenet() else name


def slug(name: str) -> str:
    """A class or model as a part of a file's name that every system takes."""
    return re.sub("[^a-z0-9]+", "-", short_name(name).lower()).strip("-") or "class"


def split_names(text: str, known: Sequence[str]) -> list[str]:
    """A list of class names as a person writes it: parted by semicolons, or by commas where there are none.

    A name of `known` that has such characters in it ("a,b; c", "tench, Tinca tinca") may be written whole.
    """
    keys = {composed(name).casefold() for name in known}
    pieces = re.split(r"([;,])", text)  # names at even places, what parts them between
    apart = ";" if ";" in pieces[1::2] else ","
    found, unknown = [], ""
    start = 0
    while start < len(pieces):
        ends = range(len(pieces), start, -2)
        whole = next((end for end in ends if composed("".join(pieces[start:end]).strip()).casefold() in keys), None)
        if whole is not None and not unknown:
            found.append("".join(pieces[start:whole]).strip())
            start = whole + 1
            continue
        unknown += pieces[start]
        after = pieces[start + 1] if start + 1 < len(pieces) else apart
        if after == apart:
            found.append(unknown.strip())
            unknown = ""
        else:
            unknown += after
        start += 2
    return found


def label_of(name: str | int, class_names: Sequence[str], wnids: Sequence[str], model: str) -> int:
    """The label of a class name, ImageNet id or number; a name that looks like a number is a name first.

    Raises:
        ValueError: there is no such class; names the nearest ones.
    """
    text = str(name).strip()
    found = None if isinstance(name, int) else _named(composed(text).casefold(), class_names, wnids)
    if found is not None:
        return found
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        if 0 <= int(text) < len(class_names):
            return int(text)
        raise UserError(f"class {text} does not exist: {model} has classes 0 to {len(class_names) - 1}")
    near = difflib.get_close_matches(text.lower(), [n.lower() for n in class_names], n=3, cutoff=0.4)
    hint = ", ".join(near or class_names[:10])
    raise UserError(f"unknown class {text!r}; {'the nearest are' if near else 'there are'}: {hint}")


def _named(text: str, class_names: Sequence[str], wnids: Sequence[str]) -> int | None:
    """The label of the class of this name, composed and in lower case."""
    for names in (class_names, wnids):
        lowered = [composed(entry).casefold() for entry in names]
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
        raise UserError("no labels: name at least one class to draw")
    for label in labels:
        if not 0 <= int(label) < num_classes:
            raise UserError(f"class {int(label)} does not exist: {model} has 0 to {num_classes - 1}")
    return tuple(map(int, labels))
