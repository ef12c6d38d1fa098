"""The models that one server offers, and what a visitor takes along from one to another. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app import kinds, view_requests
from app.kinds import AnyModel
from app.view_requests import ViewRequest
from hieramp import Settings
from hieramp.checkpoints import has_part, model_folder, shipped
from hieramp.diffusion.official import OFFICIAL as OFFICIAL_DITS
from hieramp.errors import UserError
from hieramp.loading import OFFICIAL as OFFICIAL_VARS

WORDS = {"var": "VAR", "dit": "diffusion transformer"}
MODEL = "model"  # the parameter of an address


@dataclass(frozen=True)
class Offered:
    """A model by the name that addresses have for it."""

    name: str
    source: str  # what `hieramp.load` takes
    kind: str  # "var" or "dit"

    @property
    def title(self) -> str:
        """What the picker calls it."""
        return f"{self.name} ({WORDS[self.kind]})"

    @property
    def path(self) -> str:
        """Where its page asks the server, below the root."""
        return "/models/" + re.sub(r"[^\w.-]+", "-", self.name)


def offered(sources: Sequence[str]) -> tuple[Offered, ...]:
    """The models given, in their order, and then those that ship.

    Raises:
        UserError: two of those given have one name.
    """
    given = [_of(source) for source in dict.fromkeys(sources)]
    for i, one in enumerate(given):
        twin = next((other for other in given[:i] if other.path == one.path), None)
        if twin:
            raise UserError(f"{twin.source} and {one.source} are both called {one.name}: rename one of the folders")
    taken = {one.path for one in given}
    return (*given, *(one for one in map(_of, shipped()) if one.path not in taken))


def _of(source: str) -> Offered:
    if source in OFFICIAL_VARS or source in OFFICIAL_DITS:
        return Offered(source, source, "dit" if source in OFFICIAL_DITS else "var")
    folder = model_folder(source)
    is_dit = has_part(folder, "dit") and not has_part(folder, "var")
    return Offered(folder.resolve().name, source, "dit" if is_dit else "var")


def carried(model: AnyModel, view_request: ViewRequest, kind: str) -> dict[str, str]:
    """The parameters of an address by which a model of this kind goes on from a request of another.

    Class, seed and number of pictures; of the settings those that were set by hand, where the other kind has them too.
    Strengths mean something else in the other kind: there the schedule of that name takes their place.
    """
    values, fresh = view_requests.values_of(model, view_request), view_requests.defaults(model)
    query = {
        name: text
        for name, text in view_requests.to_query(model, view_request).items()
        if name in ("class", "seed", "count")
    }
    scheduled = kinds.schedule_name(view_request.settings, model.kind) if kind != model.kind else None
    strengths = (
        view_requests.schedule_values(scheduled, kind) if scheduled and scheduled in kinds.schedules(kind) else {}
    )
    for part in Settings.parts(kind):
        is_strength = "{greek}" in part.label
        if kind != model.kind and is_strength:
            if scheduled != "all" and part.name in strengths:
                query[view_requests.in_address(part.name)] = part.kind.text(strengths[part.name])
        elif part.name in values and values[part.name] != fresh[part.name]:
            value = values[part.name]
            query[view_requests.in_address(part.name)] = value if isinstance(value, str) else part.kind.text(value)
    return query
