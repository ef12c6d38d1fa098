"""What the page calls a class: its name; where another class has the same, with its ImageNet id or its number."""

from collections.abc import Sequence
from functools import lru_cache

from app.kinds import AnyModel
from hieramp.class_names import short_name
from hieramp.imageset.layout import unique_names


def full_names(model: AnyModel) -> list[str]:
    """Of all classes by label, as ImageNet has them: "tench, Tinca tinca"; no two alike."""
    return unique_names(model.class_names, _ids(model))


def name_of(model: AnyModel, label: int) -> str:
    """Of one class, for a heading: "tench", and "crane (n03126707)", the machine, beside "crane (n02012849)"."""
    return _short(tuple(model.class_names), _ids(model))[label]


def _ids(model: AnyModel) -> tuple[str, ...]:
    return tuple(model.wnids) if len(model.wnids) == len(model.class_names) else ("",) * len(model.class_names)


@lru_cache(maxsize=8)
def _short(class_names: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(unique_names([short_name(name) for name in class_names], ids))
