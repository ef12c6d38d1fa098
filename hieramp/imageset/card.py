"""The card of a set: README.md with its settings in words, and a contact sheet.

The sheet is an SVG that carries a JPEG: loaders of image folders would take a picture beside train/ for an example.
"""

import base64
import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from hieramp.class_names import short_name
from hieramp.figures import enlarged, sheet
from hieramp.imageset.layout import places, unique_names

SHEET_CLASSES, SHEET_IMAGES, SHEET_TILE = 10, 10, 64

_NAMED = """from datasets import ClassLabel, load_dataset
images = load_dataset("imagefolder", data_files="THIS.zip", split="train")
names = zipfile.ZipFile("THIS.zip").read("class_map.txt").decode().splitlines()
images = images.cast_column("label", ClassLabel(names=names))"""
_FOLDER = """from datasets import load_dataset
images = load_dataset("THIS", split="train")  # label is a ClassLabel

from torchvision.datasets import ImageFolder
images = ImageFolder("THIS/train")

from timm.data import create_dataset
images = create_dataset("", root="THIS/train")"""
LOADERS = {
    "zip": f"""import zipfile
{_NAMED}

from torchvision.datasets import ImageFolder
zipfile.ZipFile("THIS.zip").extractall("THIS")
images = ImageFolder("THIS/train")

import hieramp
images = hieramp.open_set("THIS.zip")""",
    "folder": f"""{_FOLDER}

import hieramp
images = hieramp.open_set("THIS")""",
    "webdataset": """from datasets import load_dataset
images = load_dataset("THIS", split="train")  # png, and cls, a ClassLabel

import webdataset
from glob import glob
images = webdataset.WebDataset(sorted(glob("THIS/*.tar")), shardshuffle=False).decode("pil").to_tuple("png", "cls")

from timm.data import create_dataset
images = create_dataset("wds/", root="THIS", split="train")

import hieramp
images = hieramp.open_set("THIS")""",
    "rded": """# RDED (github.com/LINs-lab/RDED): put the folder where synthesize/main.py writes; run validation/main.py
# mkdir -p exp/EXP_NAME && cp -r THIS exp/EXP_NAME/syn_data

from torchvision.datasets import ImageFolder
images = ImageFolder("THIS")

import hieramp
images = hieramp.open_set("THIS")""",
}


def contact_sheet(rows: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
    """An SVG with a row of PNGs for each (class name, images)."""
    picture = sheet([(short_name(name)[:24], [_tile(png) for png in pngs]) for name, pngs in rows])
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


def dataset_card(manifest: dict[str, Any], name: str | None = None) -> bytes:
    """README.md, with the front matter of the Hugging Face Hub; `name` is what a set on the Hub is called there."""
    settings, side = manifest["settings"], manifest["image_size"]
    num_images, num_classes = len(manifest["images"]), len(settings["classes"])
    storage = manifest.get("storage", "zip")
    soft = f"\n\n`{places(storage).soft_labels}` holds the classifier's logits, one row an image, in the order of "
    parts = [
        _front_matter(manifest, storage, num_images),
        f"# A distilled set: {num_images} images of {num_classes} classes",
        f"{_origin(manifest)} {_per_class(settings)} images a class, {side}×{side} pixels, "
        f"lossless PNG. Made by HierAmp {manifest['versions']['hieramp']}, method {manifest['method']}."
        + (soft + "`dataset.json`." if settings.get("soft_labels") else ""),
        "![the first images of each class](contact.svg)",
        "## Load it\n\n```python\n" + _lines(storage, name) + "\n```\n\n" + _TIMM_ORDER,
        "## Settings\n\n```json\n" + json.dumps(settings, indent=1, ensure_ascii=False) + "\n```",
        "`python -m hieramp verify` compares every file with the SHA-256 in `dataset.json`.",
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _origin(manifest: dict[str, Any]) -> str:
    """Where the images come from, in a sentence."""
    settings, model, method = manifest["settings"], manifest.get("model"), manifest["method"]
    drawn = f"by {model['name']} (SHA-256 of its weights {model['sha256'][:16]}…)" if model else ""
    if "recovered_from" in settings:
        return f"Drawn anew from the set {settings['recovered_from']['name']} {drawn}."
    if model:
        return f"Drawn {drawn}."
    if method == "dm":
        return f"Made of real images of {settings['data']} by distribution matching."
    return f"Real images of {settings['data']}, chosen by the method {method}."


def _per_class(settings: dict[str, Any]) -> str:
    counts = settings.get("per_class") or [settings["ipc"]]
    return str(settings["ipc"]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _lines(storage: str, name: str | None) -> str:
    """The lines that load a set, as they are for its format and place."""
    if name is None:
        return LOADERS[storage]
    there, rest = LOADERS["folder" if storage == "zip" else storage].replace("THIS", name.split("/")[-1]), ""
    first, *others = there.split("\n\n")
    if "load_dataset" in first:
        first, rest = first.replace(f'"{name.split("/")[-1]}"', f'"{name}"'), "\n\n".join(others)
    else:
        rest = there
        first = f'from datasets import load_dataset\nimages = load_dataset("{name}", split="train")'
    return f"{first}\n\n# hf download {name} --repo-type dataset --local-dir {name.split('/')[-1]}\n{rest}"


_TIMM_ORDER = (
    "Labels are those that torchvision and `datasets` give the same classes in folders of your own, which they sort by "
    'their bytes. timm sorts class_2 before class_10: give it `class_map="class_map.txt"` with such folders.'
)


def _front_matter(manifest: dict[str, Any], storage: str, num_images: int) -> str:
    """YAML that the Hugging Face Hub and `datasets` read: what the files are, and the names of the classes."""
    head = [
        "---",
        "task_categories:",
        "- image-classification",
        "size_categories:",
        f"- {_size_category(num_images)}",
        "tags:",
        "- dataset-distillation",
        "- hieramp",
    ]
    path = {"webdataset": "*.tar", "zip": "train/**", "folder": "train/**", "rded": "**"}[storage]
    configs = ["configs:", "- config_name: default", "  data_files:", "  - split: train", f'    path: "{path}"']
    names = _label_names(manifest)
    named = [f"        '{label}': {json.dumps(name, ensure_ascii=False)}" for label, name in enumerate(names)]

    def feature(name: str, kind: str) -> list[str]:
        return [f"  - name: {name}", f"    dtype: {kind}"]

    def label(name: str) -> list[str]:
        return [
            f"  - name: {name}",
            "    dtype:",
            "      class_label:",
            "        names:",
            *(f"  {row}" for row in named),
        ]

    if storage == "webdataset":  # `datasets` takes the features of shards from here, those of folders from the config
        columns = [
            *feature("png", "image"),
            *label("cls"),
            *feature("__key__", "string"),
            *feature("__url__", "string"),
        ]
        return "\n".join([*head, *configs, "dataset_info:", "  features:", *columns, "---"])
    columns = [*feature("image", "image"), *label("label"), *feature("class_name", "string"), *feature("seed", "int64")]
    return "\n".join([*head, *configs, "  features:", *columns, "---"])


def _label_names(manifest: dict[str, Any]) -> list[str]:
    """Names of a ClassLabel. `datasets` reads the numbers of a table as texts, and would take 2 for a class called "2"
    though it is label 8: such names are written "class 2"."""
    names = unique_names(manifest["class_names"], manifest["class_folders"])
    if all(not name.isdecimal() or name == str(label) for label, name in enumerate(names)):
        return names
    return [f"class {name}" if name.isdecimal() else name for name in names]


def _size_category(num_images: int) -> str:
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in bounds if num_images < bound), "1M<n<10M")
