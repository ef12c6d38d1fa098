"""The files that the viewer saves (app/exports.py), made piece by piece. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from app import exports, grown_pair, view_models
from app.handlers import Memory
from app.kinds import AnyModel
from app.pieces import Piece
from app.view_requests import ViewRequest
from hieramp.errors import UserError

# how the name of a file ends, and its media type
KINDS = {
    "figure": ("figure.png", "image/png"),
    "growth": ("growth.gif", "image/gif"),
    "maps": ("maps.zip", "application/zip"),
}


def saving(
    model: AnyModel, view_request: ViewRequest, asked: Mapping[str, Any], memory: Memory | None = None
) -> Iterator[Piece]:
    """A file of one of KINDS; the last piece has its name, its media type and its bytes.

    Raises:
        UserError: there is no such kind, or what is looked at is not there.
    """
    what = str(asked.get("what"))
    if what not in KINDS:
        raise UserError(f"{what[:40]!r} cannot be saved: choose {', '.join(KINDS)}")
    ending, media = KINDS[what]
    shown = grown_pair.read_shown(model, view_request, asked)
    drawn = yield from grown_pair.draw(model, view_request, shown, memory)
    if what == "growth":
        frames = []
        for frame in exports.frames(model, view_request, shown, drawn):
            frames.append(frame)
            yield Piece("making the frames", len(frames), len(drawn.titles))
        data = exports.growth(model, view_request, shown, frames)
    elif what == "maps":
        data = exports.maps(model, view_request, shown, drawn)
    else:
        data = exports.figure_png(model, view_request, shown, drawn)
    seed = view_request.seeds[shown.sample]
    name = view_models.file_name(model.class_names[view_request.label], f"seed{seed}-{ending}")
    yield Piece("done", 1, 1, {"name": name, "media": media, "bytes": data})
