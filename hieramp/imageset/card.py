"""The card of a set: README.md with its settings in words, and a contact sheet.

The sheet is an SVG that carries a JPEG: loaders of image folders would take a picture beside train/ for an example.
"""

import base64
import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from hieramp.figures import enlarged, sheet

SHEET_CLASSES, SHEET_IMAGES, SHEET_TILE = 10, 10, 64
LOADERS = """```python
from datasets import load_dataset
images = load_dataset("imagefolder", data_files="THIS.zip")["train"]     # or data_dir="UNZIPPED"

from torchvision.datasets import ImageFolder
images = ImageFolder("UNZIPPED/train")

import hieramp
images = hieramp.open_set("THIS.zip")
```"""


def contact_sheet(rows: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
    """An SVG with a row of PNGs for each (class name, images)."""
    picture = sheet([(name.split(",")[0][:24], [_tile(png) for png in pngs]) for name, pngs in rows])
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><title>the first images of each class</title>'
        f'<image {size} href="data:image/jpeg;base64,{data}"/></svg>\n'
    ).encode()


def _tile(png: bytes) -> Image.Image:
    with Image.open(BytesIO(png)) as opened:
        picture = enlarged(opened.convert("RGB"), SHEET_TILE)
    return picture if picture.width < 2 * SHEET_TILE else picture.resize((SHEET_TILE, SHEET_TILE))


def dataset_card(manifest: dict[str, Any]) -> bytes:
    """README.md, with the front matter of the Hugging Face Hub."""
    settings, model = manifest["settings"], manifest.get("model")
    num_images, num_classes = len(manifest["images"]), len(settings["classes"])
    origin = (
        f"Drawn by {model['name']} (SHA-256 of its weights {model['sha256'][:16]}…)."
        if model
        else f"Real images of {settings['data']}, chosen by the method {manifest['method']}."
    )
    soft = "\n\n`labels/soft_labels.safetensors` holds the classifier's logits, one row an image, in the order of "
    parts = [
        f"---\ntask_categories:\n- image-classification\nsize_categories:\n- {_size_category(num_images)}\n"
        "tags:\n- dataset-distillation\n- hieramp\n---",
        f"# A distilled set: {num_images} images of {num_classes} classes",
        f"{origin} {settings['ipc']} images a class, {manifest['image_size']}×{manifest['image_size']} pixels, "
        f"lossless PNG. Made by HierAmp {manifest['versions']['hieramp']}, method {manifest['method']}."
        + (soft + "`dataset.json`." if settings.get("soft_labels") else ""),
        "![the first images of each class](contact.svg)",
        "## Load it\n\n" + LOADERS,
        "## Settings\n\n```json\n" + json.dumps(settings, indent=1, ensure_ascii=False) + "\n```",
        "`python -m hieramp verify` compares every file with the SHA-256 in `dataset.json`.",
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _size_category(num_images: int) -> str:
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in bounds if num_images < bound), "1M<n<10M")
