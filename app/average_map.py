"""How much of a model's maps is position: its average maps, for the switch "Against the average map"."""

from typing import Any

from app.kinds import AnyModel
from hieramp import Model
from hieramp.analysis import average_map


def view_of(model: AnyModel) -> dict[str, Any] | None:
    """Per scale the average map and what is said of it; None where it was not measured with the model's weights.

    Raises:
        UserError: the file of it is damaged.
    """
    if not isinstance(model, Model):
        return None
    found = average_map.load(model)
    if found is None:
        return None
    words = [
        position_words(side, share, found.images)
        for side, share in zip(model.var.scales.sides, found.fixed_share, strict=True)
    ]
    return {"maps": [list(m) for m in found.maps], "words": words}


def position_words(side: int, share: float, images: int) -> str:
    """How much of the maps of a scale is the same for every picture."""
    if side == 1:
        return "This scale has one position, so its map is the same for every picture."
    return (
        f"At {side}×{side}, {100 * share:.0f} % of what the maps hold is position: one pattern, the same for every "
        f"picture (over {images} drawings)."
    )
