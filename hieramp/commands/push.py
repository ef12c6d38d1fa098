"""python -m hieramp push: a distilled set or a model to the Hugging Face Hub, with its card."""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hieramp.checkpoints import model_folder, read_config
from hieramp.commands import COMMANDS
from hieramp.errors import UserError
from hieramp.imageset.card import dataset_card
from hieramp.imageset.layout import CARD, MANIFEST
from hieramp.imageset.reader import ImageSet, open_set
from hieramp.imageset.verify import problems

# what a model folder holds for its owner alone
KEPT_BACK = ["training/*", "logs/*", "*.part", ".*"]
MODEL_HEAD = "---\nlibrary_name: hieramp\ntags:\n- visual-autoregressive\n- dataset-distillation\n---\n\n"


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("push", help=COMMANDS["push"])
    parser.add_argument("what", metavar="SET|MODEL", help="a set (zip, folder, shards), a model folder or its name")
    parser.add_argument("name", metavar="NAME", help="on the Hub, like me/my-set")
    parser.add_argument("--private", action="store_true", help="for nobody else to see")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    print(push(args.what, args.name, args.private))


def push(what: str, name: str, private: bool = False) -> str:
    """Upload a set or a model; the address of what was uploaded. A set is verified first.

    Raises:
        UserError: it is neither set nor model, it is damaged, or the name cannot be one.
        OSError: the Hub cannot be reached, or does not let us in.
    """
    path = Path(what)
    if path.suffix.lower() == ".zip" or (path / MANIFEST).is_file():
        with open_set(path) as image_set, tempfile.TemporaryDirectory() as temporary:
            _unpack(image_set, Path(temporary), name)
            return _upload(Path(temporary), name, "dataset", private)
    folder = model_folder(what)
    if not (folder / "config.json").is_file():
        raise UserError(f"{what} is neither a distilled set nor a model folder: give one of them")
    read_config(folder)
    return _upload(folder, name, "model", private)


def _unpack(image_set: ImageSet, folder: Path, name: str) -> None:
    """The files of a set, with a card that shows how to load it by its name.

    A zip is unpacked, since the Hub shows the images of folders and shards alone.
    """
    if wrong := next(problems(image_set), None):
        raise UserError(f"{image_set.path} is damaged, and was not uploaded: {wrong}")
    files = list(image_set.manifest["files"])
    if image_set.format == "webdataset":
        files += [shard.name for shard in image_set.path.glob("*.tar")]
    else:
        files += image_set.file_names
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if image_set.path.is_dir():
            path.symlink_to((image_set.path / file).resolve())
        else:
            path.write_bytes(image_set.tree.read(file))
    manifest: dict[str, Any] = dict(image_set.manifest)
    manifest["storage"] = "folder" if image_set.format == "zip" else image_set.format
    card = dataset_card(manifest, name)
    entry = {"bytes": len(card), "sha256": hashlib.sha256(card).hexdigest()}
    manifest["files"] = {**manifest["files"], CARD: entry}
    (folder / CARD).unlink(missing_ok=True)
    (folder / CARD).write_bytes(card)
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=0), encoding="utf-8")


def _upload(folder: Path, name: str, kind: str, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    unreachable: tuple[type[Exception], ...] = (OfflineModeIsEnabled, OSError, *_transport_errors())
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        repository = api.create_repo(name, repo_type=kind, private=private or None, exist_ok=True)
        message = f"Upload by HierAmp: {kind}"
        api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            repo_type=kind,
            commit_message=message,
            ignore_patterns=KEPT_BACK if kind == "dataset" else [*KEPT_BACK, CARD],
        )
        if kind == "model":
            api.upload_file(
                path_or_fileobj=_model_card(folder, repository.repo_id),
                path_in_repo=CARD,
                repo_id=repository.repo_id,
                repo_type=kind,
                commit_message="Its card",
            )
    except ValueError as error:  # a name that cannot be one, a card whose head is no YAML
        raise UserError(f"the Hub does not take {name!r}: {str(error).strip().splitlines()[0]}") from error
    except LocalTokenNotFoundError as error:
        raise OSError("you are not logged in to the Hub: run hf auth login, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no"
        way_out = "run hf auth login, with a token that may write" if code in (401, 403) else "try again later"
        raise OSError(f"the Hub refused {name} (status {code}): {way_out}") from error
    except unreachable as error:
        raise OSError(
            f"the Hub cannot be reached, and {name} was not uploaded: try again when you are online"
        ) from error
    return str(repository)


def _transport_errors() -> list[type[Exception]]:
    """What the client that huggingface_hub uses raises where there is no way through; older ones raise OSError."""
    return [sys.modules[name].TransportError for name in ("httpx", "httpx2") if name in sys.modules]


def _model_card(folder: Path, name: str) -> bytes:
    """README.md of the folder, with the front matter that the Hub wants and a line that loads the model."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {name}\n\nA model of HierAmp.\n"
    if text.startswith("---\n"):
        return text.encode()
    load = f"    hf download {name} --local-dir {name.split('/')[-1]}\n"
    use = f"    python -m hieramp generate --model {name.split('/')[-1]} --class 0 --out picture.png\n"
    return (MODEL_HEAD + text.rstrip() + "\n\n## Use it\n\n" + load + use).encode()
