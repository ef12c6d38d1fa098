"""The average saliency map of a model: what is position in its maps, the same for every picture.

A small file in the model folder, average_maps.json, which `measure --only saliency` writes. It names the weights that
the maps were measured with; with others it counts for nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hieramp.analysis.faithfulness import FAMILIES, Maps, fixed_share
from hieramp.checkpoints import class_token_part, class_token_variants, part_fingerprint
from hieramp.errors import UserError
from hieramp.files import write_text
from hieramp.generation.model import Model

FILE = "average_maps.json"
DIGITS = 6


@dataclass(frozen=True)
class AverageMaps:
    """What the maps of many drawings have in common, per scale."""

    images: int  # how many drawings
    maps: tuple[tuple[float, ...], ...]  # per scale L numbers that sum to 1
    fixed_share: tuple[float, ...]  # per scale, in [0, 1]: `faithfulness.fixed_share`


def save(model: Model, maps: Maps) -> None:
    """Write the average of a model's maps into its folder, with what it was measured on."""
    assert model.folder is not None
    families: dict[str, Any] = {}
    for family, per_scale in maps.by_family.items():
        families[family] = {
            "images": len(per_scale[0]),
            "fixed_share": [round(fixed_share(m_NL), DIGITS) for m_NL in per_scale],
            "maps": [[round(x, DIGITS) for x in m_NL.double().mean(0).tolist()] for m_NL in per_scale],
        }
    stored = {"format": 1, "of": _weights(model.folder), "families": families}
    write_text(model.folder / FILE, json.dumps(stored) + "\n")


def load(model: Model) -> AverageMaps | None:
    """The average of the maps that the model shows by default; None where it was not measured with these weights.

    Class tokens that share the blocks' projections have another map in every block, and no average.

    Raises:
        UserError: the file is damaged.
    """
    path = model.folder / FILE if model.folder else None
    if path is None or not path.is_file() or (model.has_class_tokens and not model.var.config.own_class_tokens):
        return None
    family = FAMILIES[0] if model.has_class_tokens else FAMILIES[1]
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["of"] != _weights(path.parent) or family not in stored["families"]:
            return None
        found = stored["families"][family]
        maps = tuple(tuple(map(float, m)) for m in found["maps"])
        shares, images = tuple(map(float, found["fixed_share"])), int(found["images"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: measure it again with measure --only saliency ({error})") from error
    sizes = [side * side for side in model.var.scales.sides]
    if [len(m) for m in maps] != sizes or len(shares) != len(sizes):
        raise UserError(
            f"{path} has maps of other sizes than {model.name}: measure it again with measure --only saliency"
        )
    return AverageMaps(images, maps, shares)


def _weights(folder: Path) -> dict[str, str]:
    """The fingerprints of what decides a folder's maps: its transformer, and its class tokens by default."""
    variants = class_token_variants(folder)
    parts = ["var", *(class_token_part(folder, condition) for condition in list(variants)[:1])]
    return {part: part_fingerprint(folder, part) for part in parts}
