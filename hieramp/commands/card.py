"""The model card: README.md of a model folder, made of config.json and measured.json alone."""

from pathlib import Path
from typing import Any

from hieramp.checkpoints import read_config, write_text


def write_card(folder: Path, measured: dict[str, Any]) -> None:
    """Every figure comes from the two files; what was not measured is not mentioned."""
    config = read_config(folder)
    parts = [
        f"# {config.get('title', folder.name)}",
        config.get("about", ""),
        _training(config),
        _autoencoder(measured.get("autoencoder")),
        _transformer(measured.get("transformer")),
        _drawings(measured.get("drawings"), config["class_names"]),
        _deletion(measured.get("deletion"), config.get("compared")),
        "![uncurated samples: ten seeds of each class](samples.png)" if (folder / "samples.png").exists() else "",
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text(folder / "README.md", text)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _training(config: dict[str, Any]) -> str:
    rows = []
    for part, run in config.get("trained", {}).items():
        images = run["steps"] * run["batch_size"]
        epochs = images / run["images"]
        rows.append(
            [
                part,
                f"{run['seconds'] / 60:.0f} min",
                f"{run['steps']} × {run['batch_size']}",
                f"{epochs:.2f}",
                run["machine"],
                str(run["seed"]),
            ]
        )
    table = _table(["part", "time", "steps × batch", "epochs", "machine", "seed"], rows)
    return "## How it was trained\n\n" + "\n\n".join(filter(None, [config.get("commands", ""), table]))


def _autoencoder(row: dict[str, Any] | None) -> str:
    if not row:
        return ""
    per_scale = ", ".join(f"{use:.0%}" for use in row["code_usage_per_scale"])
    return (
        f"## Autoencoder\n\nReconstruction PSNR on {row['images']} test images: **{row['psnr_db']:.2f} dB**. "
        f"Codes in use on them: **{row['code_usage']:.1%}** (per scale: {per_scale})."
    )


def _transformer(rows: list[dict[str, Any]] | None) -> str:
    if not rows:
        return ""
    table = _table(
        ["scale", "loss (nats per token)", "token accuracy"],
        [[str(row["scale"]), f"{row['loss']:.3f}", f"{row['accuracy']:.1%}"] for row in rows],
    )
    return "## Transformer, on the tokens of test images\n\n" + table


def _drawings(rows: dict[str, Any] | None, class_names: list[str]) -> str:
    if not rows:
        return ""
    drawn = {name: row for name, row in rows.items() if name not in ("real", "classifier_on_test")}
    body = [
        [name, f"{row['accuracy']:.1%}", f"{row['fid']:.2f}", str(row["images"]), f"{row['seconds_per_image']:.2f}"]
        for name, row in drawn.items()
    ]
    table = _table(["setting", "named right", "FID", "images", "s an image"], body)
    first = next(iter(drawn.values()))
    names = ", ".join(f"{n} {a:.0%}" for n, a in zip(class_names, first["accuracy_per_class"], strict=False))
    return (
        "## Drawn images\n\n"
        f"The classifier (accuracy {rows['classifier_on_test']['accuracy']:.1%} on the test images) names them, "
        f"and its features give the FID against the test images; {rows['real']['images']} real training images score "
        f"**{rows['real']['fid']:.2f}** there.\n\n{table}\n\nPer class at the first setting: {names}."
    )


def _deletion(row: dict[str, Any] | None, compared: dict[str, Any] | None) -> str:
    if not row:
        return ""
    named = compared or {f"these, ρ {row['rho']:.0%}": row}
    body = [
        [name, stage, f"{s['salient']:.3f}", f"{s['random']:.3f}", f"{s['gain']:+.3f} ± {s['gain_std_over_seeds']:.3f}"]
        for name, result in named.items()
        for stage, s in result["stages"].items()
    ]
    table = _table(["class tokens", "stage", "salient removed", "random removed", "difference ± std over seeds"], body)
    return (
        "## Deletion test\n\n"
        "Fall of the classifier's confidence when the top ρ positions of a scale are blurred, against random ones, on "
        f"{row['images']} test images for each of {len(row['seeds'])} seeds.\n\n{table}"
    )
