"""The model card: README.md of a model folder, made of config.json and measured.json alone."""

from pathlib import Path
from typing import Any

from hieramp.analysis.faithfulness import CEILING, RIVALS
from hieramp.analysis.limits import Loss, losses, setting_of, worst_scale
from hieramp.analysis.measure import baselines, most_accurate, setting_name
from hieramp.checkpoints import read_config
from hieramp.commands.card_dit import dit_section
from hieramp.files import markdown_table, write_text
from hieramp.generation.sampling import Sampling
from hieramp.settings import defaults_in


def write_card(folder: Path, measured: dict[str, Any]) -> None:
    """Every figure comes from the two files; what was not measured is not mentioned."""
    config = read_config(folder)
    parts = [
        f"# {config.get('title', folder.name)}",
        config.get("about", ""),
        _training(config),
        _autoencoder(measured.get("autoencoder")),
        _transformer(measured.get("transformer"), config.get("var", {}).get("last_passes", 1)),
        _drawings(measured.get("drawings"), config["class_names"], defaults_in(config, "var").sampling),
        _limits(measured.get("limits"), measured.get("drawings"), measured.get("transformer")),
        _saliency(measured.get("saliency")),
        _samples(folder, measured.get("drawings")),
        dit_section(measured.get("dit"), config, folder),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text(folder / "README.md", text)


def _samples(folder: Path, drawings: dict[str, Any] | None) -> str:
    sheets = {"samples.png": "at the default settings"}
    if drawings:
        sheets["samples-clearest.png"] = f"at {most_accurate(drawings)}, where accuracy is highest"
    shown = [
        f"Uncurated, the same seeds of each class, {at}:\n\n![samples {at}]({name})"
        for name, at in sheets.items()
        if (folder / name).exists()
    ]
    return "\n\n".join(["## Samples", *shown]) if shown else ""


def _training(config: dict[str, Any]) -> str:
    rows = []
    for part, last in config.get("trained", {}).items():
        runs = [*last.get("before", []), last]  # a warm start goes on from earlier ones
        rows.append(
            [
                part,
                f"{sum(run['seconds'] for run in runs) / 60:.0f} min",
                " + ".join(f"{run['steps']} × {run['batch_size']}" for run in runs),
                f"{sum(run['steps'] * run['batch_size'] / run['images'] for run in runs):.2f}",
                "; ".join(dict.fromkeys(run["machine"] for run in runs)),
                str(last["seed"]),
            ]
        )
    table = markdown_table(["part", "time", "steps × batch", "epochs", "machine", "seed"], rows)
    return "## How it was trained\n\n" + "\n\n".join(filter(None, [config.get("commands", ""), table]))


def _autoencoder(row: dict[str, Any] | None) -> str:
    if not row:
        return ""
    per_scale = ", ".join(f"{use:.0%}" for use in row["code_usage_per_scale"])
    summed = ", ".join(f"{db:.1f}" for db in row.get("psnr_db_per_scale", []))  # older measurements have none
    first_scales = f" From the first scale alone, the first two, … to all: {summed} dB." if summed else ""
    looks = ""
    if "reconstruction_fid" in row:
        looks = (
            f" Against the images themselves the reconstructions have an FID of {row['reconstruction_fid']:.2f} and a "
            f"perceptual distance of {row['perceptual_distance']:.3f}, both in the features of the classifier."
        )
    return (
        f"## Autoencoder\n\nReconstruction PSNR on {row['images']} test images: **{row['psnr_db']:.2f} dB**."
        f"{first_scales}{looks} "
        f"Codes in use on them: **{row['code_usage']:.1%}** (per scale: {per_scale})."
    )


def _transformer(rows: list[dict[str, Any]] | None, last_passes: int) -> str:
    if not rows:
        return ""
    table = markdown_table(
        ["scale", "loss (nats per token)", "token accuracy"],
        [[str(row["scale"]), f"{row['loss']:.3f}", f"{row['accuracy']:.1%}"] for row in rows],
    )
    text = "## Transformer, on the tokens of test images\n\n" + table
    if last_passes > 1:
        text += f"\n\nThe last scale is drawn in {last_passes} passes; its figures are of each token in the pass"
        text += " that draws it."
    return text


def _drawings(rows: dict[str, Any] | None, class_names: list[str], default_sampling: Sampling) -> str:
    if not rows:
        return ""
    drawn = {name: row for name, row in rows.items() if name not in ("real", "classifier_on_test")}
    body = [[name, f"{row['accuracy']:.1%}", f"{row['fid']:.2f}", str(row["images"])] for name, row in drawn.items()]
    table = markdown_table(["setting", "accuracy", "FID", "images"], body)
    default = setting_name(default_sampling)
    shown = default if default in drawn else next(iter(drawn))
    names = ", ".join(f"{n} {a:.0%}" for n, a in zip(class_names, drawn[shown]["accuracy_per_class"], strict=False))
    return (
        "## Drawn images\n\n"
        f"The classifier (accuracy {rows['classifier_on_test']['accuracy']:.1%} on the test images) names them, "
        f"and its features give the FID against the test images; {rows['real']['images']} real training images score "
        f"**{rows['real']['fid']:.2f}** there.\n\n{table}\n\n{_best(drawn, shown, rows['real'])}"
        f"\n\nPer class at {shown}: {names}."
    )


def _best(drawn: dict[str, Any], shown: str, real: dict[str, Any]) -> str:
    """The best settings, and how far their FID is from that of real images."""
    swept = baselines(drawn)
    fid, named = min(swept, key=lambda n: swept[n]["fid"]), most_accurate(drawn)
    times = {name: f"{swept[name]['fid'] / real['fid']:.2f} times" for name in (fid, shown)}
    return (
        f"Best FID: **{swept[fid]['fid']:.2f}** at {fid}, {times[fid]} what {real['images']} real training images "
        f"score, with {swept[fid]['accuracy']:.1%} accuracy. Highest accuracy: **{swept[named]['accuracy']:.1%}** "
        f"at {named}, with FID {swept[named]['fid']:.2f}. At {shown}: {swept[shown]['accuracy']:.1%} accuracy, "
        f"FID {swept[shown]['fid']:.2f}, {times[shown]} the real images'."
    )


def _limits(
    limits: dict[str, Any] | None, drawings: dict[str, Any] | None, transformer: list[dict[str, Any]] | None
) -> str:
    if not limits:
        return ""
    num_scales = max(row["given"] or 0 for row in limits["rows"])
    body = [[_what(row["given"], num_scales), f"{row['accuracy']:.1%}", f"{row['fid']:.2f}"] for row in limits["rows"]]
    found = losses(limits, drawings)
    return (
        "## What limits it\n\n"
        f"{limits['images']} test images, their reconstructions, and images whose first scales are the real ones of "
        f"such an image of their class and whose others are drawn at {setting_of(limits)}; FID against the "
        f"{limits['others']} other test images.\n\n{markdown_table(['images', 'accuracy', 'FID'], body)}\n\n"
        f"{_verdict(found)} {_worst(limits, transformer)}\n\n"
        "The autoencoder's share is the step from test images to reconstructions, the sampling's what the best "
        "setting of the table above wins over the one in use, the transformer's the rest of the step from "
        "reconstructions to images drawn whole. A negative share is a gain."
    )


def _what(given: int | None, num_scales: int) -> str:
    if given is None:
        return "the test images"
    if given == num_scales:
        return f"all {given} scales real: the reconstructions"
    return f"first {given} scale{'s' * (given > 1)} real" if given else "all drawn"


def _worst(limits: dict[str, Any], transformer: list[dict[str, Any]] | None) -> str:
    """The scale that costs most names."""
    scale, cost = worst_scale(limits)
    if cost <= 0:
        return "No scale costs names where it is drawn instead of given."
    accuracy = f" (token accuracy under teacher forcing {transformer[scale]['accuracy']:.1%})" if transformer else ""
    costs = f"is scale {scale}: {_points(cost)}{accuracy}"
    return f"The scale that costs most names where it is drawn instead of given {costs}."


def _verdict(found: list[Loss]) -> str:
    """The part that costs most names and the one that costs most FID, each with all shares."""
    named = ", ".join(f"{loss.part} {_points(loss.accuracy)}" for loss in found)
    by_fid = sorted(found, key=lambda loss: loss.fid, reverse=True)
    fid = ", ".join(f"{loss.part} {loss.fid:+.2f}" for loss in by_fid)
    first = f"The **{found[0].part}** costs most names" if found[0].accuracy > 0 else "No names are lost"
    second = f"the **{by_fid[0].part}** most FID" if by_fid[0].fid > 0 else "the FID does not rise"
    return f"{first} ({named}), {second} ({fid})."


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def saliency_in_short(row: dict[str, Any]) -> str:
    """One scale of the saliency test for the terminal: each family, by each judge, in deletion."""
    said = []
    for family, fixed in row["fixed_share"].items():
        named = f", names {row['named']:.0%}" if family == "class tokens" and "named" in row else ""
        gains = [
            f"{judge}: {_over(figures, family, 'another picture', 'deletion')} over another picture's, "
            f"{_over(figures, family, 'centre', 'deletion')} over the centre"
            for judge, figures in row["judges"].items()
        ]
        said.append(f"{family}: fixed share {fixed:.2f}{named}; {'; '.join(gains)}")
    return " | ".join(said)


def _over(figures: dict[str, Any], family: str, rival: str, way: str) -> str:
    mean, error = figures["over"][family][rival][way]
    return f"{mean:+.3f} ± {error:.3f}"


def _saliency(measured: dict[str, Any] | None) -> str:
    """What the maps follow: a table of shares, then one of effects for each set of pictures and judge."""
    if not measured:
        return ""
    judges = ", ".join(f"{name} ({row['accuracy']:.1%} of the test images)" for name, row in measured["judges"].items())
    intro = (
        "## What the saliency follows\n\n"
        "Fixed share: how much of the maps' variance is one pattern of positions, the same for every picture; equal "
        "maps have 100%, maps with nothing in common 0%. Named: how many of the pictures the class token names by what "
        "it looks at, the class hidden from it. Effects are in nats of the picture's class, mean ± standard error of "
        f"the paired differences: by how much more it costs a classifier when the {measured['rho']:.0%} most salient "
        "positions are blurred (deletion), and by how much more it has when they alone are not (insertion), than with "
        "the same share by another ranking. The ceiling is the classifier's own attribution (integrated gradients). "
        f"Judges: {judges}."
    )
    parts = [intro]
    for what, found in measured["on"].items():
        parts.append(f"### On {found['images']} {what}")
        parts.append(_shares(found["rows"]))
        parts += [_effects(found["rows"], judge) for judge in measured["judges"]]
    return "\n\n".join(parts)


def _shares(rows: list[dict[str, Any]]) -> str:
    families = list(rows[0]["fixed_share"])
    body = []
    for row in rows:
        named = f"{row['named']:.1%}" if "named" in row else "–"
        body.append([_grid(row), *(f"{row['fixed_share'][family]:.0%}" for family in families), named])
    text = markdown_table(["scale", *(f"fixed share, {family}" for family in families), "named"], body)
    for row in rows:
        for family, shares in row.get("share_of_passes", {}).items():
            told = ", ".join(f"{share:.1%}" for share in shares)
            text += f"\n\nOf the finest maps ({family}), as much lies where each pass draws: {told}."
    return text


def _effects(rows: list[dict[str, Any]], judge: str) -> str:
    header = ["scale", "map", "way", "another picture's", "random", "centre", "the average map", "ceiling minus map"]
    body = []
    for row in rows:
        figures = row["judges"][judge]
        for family in figures["over"]:
            for way in ("deletion", "insertion"):
                rivals = [_over(figures, family, rival, way) for rival in RIVALS]
                left = f"{figures['means'][CEILING][way] - figures['means'][family][way]:.3f}"
                body.append([_grid(row), family, way, *rivals, left])
    return f"By {judge}, the map over …\n\n{markdown_table(header, body)}"


def _grid(row: dict[str, Any]) -> str:
    return f"{row['side']}×{row['side']}"
