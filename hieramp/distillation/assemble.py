"""From the batches on disk to the finished set: one pass in the set's order, then a rename."""

import hashlib
import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from hieramp.distillation.parts import PartFolder
from hieramp.distillation.plan import Plan
from hieramp.files import csv_text, flush
from hieramp.imageset.card import SHEET_CLASSES, SHEET_IMAGES, contact_sheet, dataset_card
from hieramp.imageset.layout import (
    CARD,
    CLASS_MAP,
    CONTACT,
    MANIFEST,
    SHARD_INFO,
    class_map,
    metadata_rows,
    places,
    shard_info,
)
from hieramp.imageset.pngtext import with_settings
from hieramp.imageset.storage import Sink, create_tree
from hieramp.version import __version__


def assemble(plan: Plan, folder: PartFolder) -> None:
    """Write the whole set beside and rename it to its place.

    Raises:
        ValueError: a batch was damaged meanwhile.
        OSError: the disk is full.
    """
    unfinished = plan.part / ("set" + (".zip" if plan.format == "zip" else ""))
    sink = create_tree(unfinished, plan.format)
    try:
        _write(plan, folder, sink)
    finally:
        sink.close()
    flush(unfinished)
    unfinished.replace(plan.out)


def _write(plan: Plan, folder: PartFolder, sink: Sink) -> None:
    images: list[dict[str, Any]] = []
    logits: list[bytes] = []
    shown: dict[int, list[bytes]] = {label: [] for label in plan.classes[:SHEET_CLASSES]}
    for index in range(len(plan)):
        item, made = plan.item(index), folder.read(index)
        seed = item.seed + made.chosen
        png = with_settings(made.png, _picture_settings(plan, item.label, seed)) if plan.model else made.png
        sink.write(item.file, png)
        if plan.format == "webdataset":
            sink.write(item.file.removesuffix(".png") + ".cls", str(item.label).encode())
        hashed = hashlib.sha256(png).hexdigest()
        row = {"file": item.file, "label": item.label, "seed": seed, "bytes": len(png), "sha256": hashed}
        images.append(row if made.weight is None else row | {"weight": made.weight})
        if made.logits is not None:
            logits.append(made.logits)
        if item.label in shown and len(shown[item.label]) < SHEET_IMAGES:
            shown[item.label].append(made.png)
    manifest = plan.manifest_head | {"images": images, "files": {}}
    contact = contact_sheet([(plan.class_names[label], pngs) for label, pngs in shown.items()])
    where, names = places(plan.format), class_map(plan.class_names, plan.folders)
    files = {where.metadata: _metadata(plan, images), CONTACT: contact, CARD: dataset_card(manifest), CLASS_MAP: names}
    if plan.format == "webdataset":
        files[SHARD_INFO] = shard_info(len(images))
    if logits:
        files[where.soft_labels] = _soft_labels(plan, logits)
    for name, data in files.items():
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        sink.write(name, data)
    sink.write(MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=0).encode())


# settings of a whole set that do not tell how one of its pictures is drawn
_NOT_OF_A_PICTURE = ("device", "batch_size", "soft_labels", "candidates", "chosen_by")


def _picture_settings(plan: Plan, label: int, seed: int) -> dict[str, Any]:
    """What a picture was drawn with, under the names that `python -m hieramp generate` stores."""
    assert plan.model is not None
    return {
        "model": plan.model["name"],
        "class": plan.class_names[label],
        "label": label,
        "seeds": [seed],
        **{name: value for name, value in plan.settings.items() if name not in _NOT_OF_A_PICTURE},
        "hieramp": __version__,
    }


def _metadata(plan: Plan, images: list[dict[str, Any]]) -> bytes:
    return csv_text(metadata_rows(images, plan.class_names, plan.format)).encode()


def _soft_labels(plan: Plan, logits: list[bytes]) -> bytes:
    values = torch.from_numpy(np.frombuffer(b"".join(logits), dtype="<f2").reshape(len(logits), -1).copy())
    labels = torch.tensor([plan.item(index).label for index in range(len(plan))])
    about = {"class_names": plan.class_names, "classifier": plan.settings["soft_labels"]}
    # one entry: safetensors writes several in an order of chance
    return save({"logits": values, "labels": labels}, metadata={"about": json.dumps(about)})
