"""python -m benchmarks.card.begin MODEL FOLDER: a model folder to train a transformer in.

It gets another model's VQ-VAE and classifier, and nothing of its transformer: `hieramp train var --warm-start MODEL`
brings that, as it is or grown.
"""

import argparse
import shutil
from pathlib import Path

from hieramp.checkpoints import model_folder, read_config, write_config

KEPT = ("vqvae", "classifier")


def begin(model: Path, folder: Path) -> None:
    """Copy what a transformer is trained on and judged by.

    Raises:
        FileExistsError: there is something at `folder`.
    """
    config = read_config(model)
    entries = {key: value for key, value in config.items() if key in (*KEPT, "class_names", "wnids")}
    entries["trained"] = {part: how for part, how in config.get("trained", {}).items() if part in KEPT}
    folder.mkdir(parents=True)
    write_config(folder, **entries)
    for part in KEPT:
        for file in model.glob(f"{part}*.safetensors"):
            shutil.copy(file, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=model_folder)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    begin(args.model, args.folder)


if __name__ == "__main__":
    main()
