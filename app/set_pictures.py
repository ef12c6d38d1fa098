"""The pictures of a set as they are drawn: thumbnails by class, with the address that opens each. Without Gradio."""

import io
import zipfile
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image

from app.distill_requests import DistillRequest
from app.jobs import Job
from app.names import name_of
from app.view_requests import ViewRequest, to_query
from hieramp import Model, open_set
from hieramp.distillation.plan import MAX_IPC
from hieramp.errors import UserError

MOST = 1000  # pictures that the page holds
MOST_CLASSES = 100
AT_ONCE = 60  # in one answer
SIDE = 64  # pixels; larger pictures are made smaller


def shown_per_class(distill_request: DistillRequest) -> int:
    """The first so many pictures of each class are shown."""
    classes = min(MOST_CLASSES, len(distill_request.labels))
    return min(distill_request.ipc, max(1, MOST // classes))


def frame(model: Model, job: Job) -> dict[str, Any]:
    """What holds the pictures: a row for each class, and the address of each picture but for its seed."""
    asked = job.distill_request
    rows = []
    for label in asked.labels[:MOST_CLASSES]:
        query = to_query(model, ViewRequest(label, (0,), asked.settings))
        del query["seed"]
        rows.append([name_of(model, label), "?" + urlencode(query)])
    return {
        "job": job.id,
        "name": asked.name,
        "rows": rows,
        "ipc": asked.ipc,
        "shown": shown_per_class(asked),
        "classes": len(asked.labels),
    }


def pictures(job: Job, have: Iterable[int]) -> tuple[list[list[Any]], bool]:
    """Pictures that are drawn and not among `have`, as [index, row, column, seed, data: address]; whether more wait.

    An index is a picture's place in the set, class after class.
    """
    asked = job.distill_request
    rows, columns = min(MOST_CLASSES, len(asked.labels)), shown_per_class(asked)
    wanted = {row * asked.ipc + column for row in range(rows) for column in range(columns)} - set(have)
    found = []
    for index, png in _drawn(job, wanted):
        row, column = divmod(index, asked.ipc)
        found.append([index, row, column, asked.seed * MAX_IPC + column, thumbnail(png)])
        if len(found) == AT_ONCE:
            return found, True
    return found, False


def _drawn(job: Job, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    if job.path.exists():
        with suppress(UserError, OSError), open_set(job.path) as held:
            for index, name in enumerate(held.file_names):
                if index in wanted:
                    yield index, held.read(name)
        return
    for batch in sorted(Path(f"{job.path}.part").glob("*.batch")):
        with (
            suppress(OSError, zipfile.BadZipFile, KeyError),
            zipfile.ZipFile(batch) as file,
        ):  # gone when it is put away
            for name in file.namelist():
                if name.endswith(".png") and int(name[:-4]) in wanted:
                    yield int(name[:-4]), file.read(name)


def thumbnail(png: bytes) -> str:
    """A picture as a data: address, at most `SIDE` pixels wide."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        if picture.width <= SIDE:
            return "data:image/png;base64," + b64encode(png).decode()
        picture.thumbnail((SIDE, SIDE))
        small = io.BytesIO()
        picture.convert("RGB").save(small, "JPEG", quality=88)
    return "data:image/jpeg;base64," + b64encode(small.getvalue()).decode()
