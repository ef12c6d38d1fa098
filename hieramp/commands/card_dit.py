"""What the model card tells of a diffusion transformer."""

from pathlib import Path
from typing import Any

from hieramp.files import markdown_table

SHEETS = {"samples-dit.png": "at the default settings", "samples-dit-clearest.png": "where accuracy is highest"}


def dit_section(measured: dict[str, Any] | None, config: dict[str, Any], folder: Path) -> str:
    """Its sizes, a table over guidance and steps, and its sheets; nothing where none was measured."""
    if not measured:
        return ""
    sizes = config["dit"]
    rows = measured["rows"]
    body = [
        [
            row["setting"],
            f"{row['accuracy']:.1%}",
            f"{row['fid']:.2f}",
            f"{row['nearest']:.3f}",
            str(row["images"]),
            f"{row['seconds_per_image']:.2f}" if "seconds_per_image" in row else "–",
        ]
        for row in rows
    ]
    table = markdown_table(["images", "accuracy", "FID", "nearest real", "images", "s an image"], body)
    drawn = [row for row in rows[1:] if not row["amplified"]]
    named, fid = max(drawn, key=lambda row: row["accuracy"]), min(drawn, key=lambda row: row["fid"])
    classes = zip(config["class_names"], named["accuracy_per_class"], strict=True)
    shown = [f"Uncurated, {at}:\n\n![samples {at}]({name})" for name, at in SHEETS.items() if (folder / name).exists()]
    parts = [
        "## Diffusion transformer",
        f"{sizes['depth']} blocks of width {sizes['width']} on {sizes['side']}×{sizes['side']} latents of "
        f"{sizes['channels']} components. Guidance g is (1 + g)·conditional - g·unconditional. FID against "
        f"{measured['test_images']} test images in the classifier's features; nearest real: median root mean square "
        "difference (pixels from 0 to 1) to the nearest real training image, of test images in the first row.",
        table,
        f"Highest accuracy: **{named['accuracy']:.1%}** at {named['setting']}. Best FID: **{fid['fid']:.2f}** at "
        f"{fid['setting']}. Per class at {named['setting']}: "
        + ", ".join(f"{name} {share:.0%}" for name, share in classes)
        + ".",
        *shown,
    ]
    return "\n\n".join(parts)
