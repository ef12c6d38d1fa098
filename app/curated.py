"""The curated pairs of a model as they lie beside its weights, in examples.json: class, seed, schedule and notice.

`notice` is the name of the observation that is made on a pair (app/examples.py).
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.kinds import AnyModel
from hieramp import SCHEDULES
from hieramp.class_names import short_name
from hieramp.errors import UserError

FILE = "examples.json"
TITLES = {
    "all": "all stages", "early": "a coarse token", "late": "details alone", "peak": "where it looks",
    "same": "one picture grows",
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One curated pair."""

    class_name: str
    seed: int
    schedule: str
    notice: str

    @property
    def title(self) -> str:
        """What its button says."""
        return f"{short_name(self.class_name)}: {TITLES[self.notice]}"


def examples_of(model: AnyModel) -> tuple[Example, ...]:
    """The curated pairs of a model; none where its folder has no file of them.

    Raises:
        UserError: the file is damaged, or names what there is not.
    """
    path = model.folder / FILE if model.folder else None
    if path is None or not path.is_file():
        return ()
    return _read(path, path.stat().st_mtime_ns, model.class_names)


@lru_cache(maxsize=8)
def _read(path: Path, changed_at: int, class_names: tuple[str, ...]) -> tuple[Example, ...]:
    try:
        found = tuple(Example(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: choose the pairs anew with python -m app.examples") from error
    for one in found:
        for value, known in ((one.class_name, class_names), (one.notice, TITLES), (one.schedule, SCHEDULES)):
            if value not in known:
                raise UserError(f"{path} names {value!r}; it may name {', '.join(known)}")
        if not isinstance(one.seed, int) or one.seed < 0:
            raise UserError(f"{path} names the seed {one.seed!r}; give a whole number of at least 0")
    return found


def opening(model: AnyModel) -> dict[str, Any]:
    """The class and the seed that a fresh page shows, where pairs are curated: those of the first."""
    curated = examples_of(model)
    return {"class_name": model.class_names.index(curated[0].class_name), "seed": curated[0].seed} if curated else {}
