"""The files of `analyse`: tables as CSV, figures as PNG and SVG, a summary as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from hieramp import figures
from hieramp.analysis.bootstrap import UsageDifference, direction, over_classes
from hieramp.analysis.differenceplots import classes_figure
from hieramp.analysis.judged import Closeness, Judged
from hieramp.analysis.setplots import histogram_figure
from hieramp.analysis.settokens import SetUsage, changed, differences, place_name, risen
from hieramp.analysis.tokenplots import changed_figure, risen_figure, usage_figure
from hieramp.analysis.tokens import changed_rows
from hieramp.captions import in_words
from hieramp.errors import UserError
from hieramp.evaluation.images import LabeledImages
from hieramp.figures import save_figure
from hieramp.files import atomic, csv_text, with_settings, write_text
from hieramp.scales import STAGES
from hieramp.settings import Settings

SHOWN = 10  # closest pairs
ENDS = ("", "_low", "_high")


@dataclass(frozen=True)
class Subject:
    """A set with all that was found in it."""

    name: str
    held: LabeledImages
    usage: SetUsage
    judged: Judged
    near: dict[str, Closeness] = field(default_factory=dict)  # features, pixels; {} without real images
    distances: dict[str, float | None] = field(default_factory=dict)  # FID and its reference


@dataclass(frozen=True)
class Real:
    """Real images to compare with."""

    held: LabeledImages
    judged: Judged
    held_out: Judged | None  # of the test split, where there is one


@dataclass(frozen=True)
class Pair:
    """A set against its baseline: what the tokens of each class differ by."""

    ours: Subject
    baseline: Subject
    is_paired: bool  # images of one seed were drawn again together
    differences: dict[str, list[UsageDifference]]  # stage → of each class

    @property
    def classes(self) -> list[str]:
        return [self.ours.held.class_names[label] for label in self.ours.usage.labels]

    @property
    def count(self) -> int:
        """Images of a class."""
        return len(self.ours.usage.tokens[0][0])

    @property
    def title(self) -> str:
        kind = "pairs of one seed" if self.is_paired else "images of each set, not paired"
        seeds = [side.held.settings.get("seed") for side in (self.ours, self.baseline)]
        told = "" if None in seeds else f". Seeds of the sets: {seeds[0]} and {seeds[1]}"
        return f"{self.ours.name} minus {self.baseline.name}: {self.count} {kind} a class{told}."

    @property
    def amplified(self) -> list[str]:
        """The stages that are amplified in the set and not in its baseline."""
        ours, base = (_amplified(side.held.settings) for side in (self.ours, self.baseline))
        return [stage for stage in self.differences if stage in ours and not base]

    @property
    def sentences(self) -> list[str]:
        """What differs over the classes; where a stage is amplified, whether the paper's direction holds."""
        said = []
        for stage, found in self.differences.items():
            interval, of = over_classes([one.entropy for one in found])
            if stage in self.amplified:
                said.append(direction(stage, interval, of))
            else:
                said.append(f"{stage} entropy: {interval.text('nats', of)}")
        return said


def pair(ours: Subject, baseline: Subject, is_paired: bool) -> Pair:
    return Pair(ours, baseline, is_paired, differences(baseline.usage, ours.usage, is_paired))


def _amplified(settings: dict[str, Any]) -> set[str]:
    """The stages that the settings of a set amplify; none where it was not drawn by such."""
    stages, neutral = settings.get("stages"), 1.0 if settings.get("mode") == "attention" else 0.0
    if not isinstance(stages, dict):
        return set()
    return {stage for stage, value in stages.items() if value and value[1] > neutral}


def write_files(out: Path, subjects: Sequence[Subject], real: Real | None, against: Pair | None = None) -> None:
    """Everything but the summary."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "tokens.csv", csv_text(_token_rows(subjects)))
    write_text(out / "images.csv", csv_text(_image_rows(subjects, real)))
    about, words = {s.name: s.held.settings for s in subjects}, " ".join(filter(None, map(_in_words, subjects)))
    count, classes = len(subjects[0].usage.tokens[0][0]), len(subjects[0].usage.labels)
    title = f"Tokens of images as the VQ-VAE encodes them, {count} images a class, mean of {classes} classes. {words}"
    plain_first = subjects[::-1]  # as on the page
    _save(usage_figure({s.name: s.usage.means() for s in plain_first}, title), out / "tokens", about)
    if against:
        _write_differences(out, against, about, words)
    confidences = {s.name: s.judged.confidence_N for s in subjects}
    label = "the classifier's confidence in the own class"
    _save(histogram_figure(confidences, label, f"How sure the classifier is. {words}"), out / "confidence", about)
    if real is None:
        return
    for space in ("features", "pixels"):
        distances = {s.name: s.near[space].nearest.distance for s in subjects}
        held_out = subjects[0].near[space].held_out_N
        if held_out is not None:
            distances["real test images"] = held_out
        label, title = f"distance to the nearest real image, {space}", f"How near real images are. {words}"
        _save(histogram_figure(distances, label, title), out / space, about)
    for subject in subjects:
        with atomic(out / f"closest-{subject.name}.png") as part:
            closest_pairs(subject, real).save(part, "PNG")


def _save(figure: Figure, path: Path, about: dict[str, Any]) -> None:
    """A plot as PNG and SVG, each with the settings of the sets inside."""
    for kind in ("png", "svg"):
        save_figure(figure, path.with_name(f"{path.name}.{kind}"), about)


def _in_words(subject: Subject) -> str:
    """The settings that a set was drawn by, in a line; nothing where it was not."""
    stored = subject.held.settings
    try:
        settings = Settings.from_json(stored, beside=list(stored)) if "stages" in stored else None
    except UserError:  # of a later version
        settings = None
    return f"{subject.name}: {in_words(settings, 'dit' if 'solver' in stored else 'var')}" if settings else ""


def _is_stage(place: tuple[str, Any]) -> bool:
    """By which scales come before the stages."""
    return place[0] in STAGES


def _write_differences(out: Path, against: Pair, about: dict[str, Any], words: str) -> None:
    """The plots that the page's What changed has, and their figures; a CSV begins with the settings, after a #."""
    shares = risen(against.baseline.usage, against.ours.usage)
    over = f"{against.ours.name} over {against.baseline.name}"
    title = f"In how many of {len(against.classes)} classes entropy and coverage rose, {against.title} {words}"
    scales, ordered = against.ours.usage.scales, sorted(shares.items(), key=_is_stage)
    grouped = {place_name(place, scales): {over: share} for place, share in ordered}
    _save(risen_figure(grouped, title, "scales, and the stages they make up"), out / "risen", about)
    head = {**about, "images_of_a_class": against.count, "is_paired": against.is_paired}
    if against.is_paired:
        maps = changed(against.baseline.usage, against.ours.usage)
        title = f"Where the tokens of a pair differ, encoded by the VQ-VAE: {against.title} {words}"
        _save(changed_figure(maps, title), out / "changed", about)
        write_text(out / "changed.csv", with_settings(csv_text(changed_rows(maps)), head))
    found = {
        f"{stage}, amplified" if stage in against.amplified else stage: {
            name: one.entropy for name, one in zip(against.classes, of_stage, strict=True)
        }
        for stage, of_stage in against.differences.items()
    }
    name = f"differences-{against.ours.name}-minus-{against.baseline.name}"
    _save(classes_figure(found, f"Entropy of the tokens, {against.title} {words}"), out / name, about)
    rows: list[list[Any]] = [
        ["class", "stage", *(f"{what}{end}" for what in ("entropy_nats", "coverage") for end in ENDS)]
    ]
    for stage, of_stage in against.differences.items():
        for label, one in zip(against.classes, of_stage, strict=True):
            values = [x for side in (one.entropy, one.coverage) for x in (side.value, side.low, side.high)]
            rows.append([label, stage, *values])
    write_text(out / f"{name}.csv", with_settings(csv_text(rows), head))


def closest_pairs(subject: Subject, real: Real) -> Image.Image:
    """The images nearest to a real one, each above that one; once by features, once by pixels."""
    rows = []
    for space, close in subject.near.items():
        order = close.nearest.distance.argsort()[:SHOWN].tolist()
        pairs = [(subject.judged.images_NCHW[i], real.judged.images_NCHW[close.nearest.index[i]]) for i in order]
        ours, theirs = ([figures.enlarged(figures.to_picture(x / 255), 96) for x in side] for side in zip(*pairs))
        rows += [(f"set, by {space}", ours), ("nearest real", theirs)]
    return figures.sheet(rows)


def _token_rows(subjects: Sequence[Subject]) -> list[list[Any]]:
    rows: list[list[Any]] = [["set", "class", "place", "entropy_nats", "coverage", "tokens"]]
    for subject in subjects:
        names = [subject.held.class_names[label] for label in subject.usage.labels]
        for place, usages in subject.usage.places.items():
            rows += [
                [subject.name, name, place, u.entropy, u.coverage, u.num_tokens]
                for name, u in zip(names, usages, strict=True)
            ]
    return rows


def _image_rows(subjects: Sequence[Subject], real: Real | None) -> list[list[Any]]:
    near = [f"{space}_{what}" for space in ("features", "pixels") for what in ("nearest", "distance")]
    rows: list[list[Any]] = [["set", "image", "class", "named", "confidence", *(near if real else [])]]
    for subject in subjects:
        names, judged = subject.held.class_names, subject.judged
        for i, (label, named) in enumerate(zip(judged.labels_N.tolist(), judged.named_N.tolist(), strict=True)):
            image = subject.held.files[i] if subject.held.files else str(i)
            row: list[Any] = [subject.name, image, names[label], names[named], round(judged.confidence_N[i].item(), 4)]
            if real:
                for close in subject.near.values():
                    j = int(close.nearest.index[i])
                    row += [real.held.files[j] if real.held.files else j, round(close.nearest.distance[i].item(), 5)]
            rows.append(row)
    return rows


def summary(subjects: Sequence[Subject], against: Pair | None = None) -> dict[str, Any]:
    """The figures of analysis.json; with two sets, in how many classes the first rose over the second, and by what."""
    found: dict[str, Any] = {"sets": {subject.name: _of_one(subject) for subject in subjects}}
    if against:
        shares = risen(against.baseline.usage, against.ours.usage)
        found["risen"] = {place: vars(share) for place, share in shares.items()}
        found["differences"] = {"is_paired": against.is_paired, "images_of_a_class": against.count}
        found["differences"]["sentences"] = against.sentences
    return found


def _of_one(subject: Subject) -> dict[str, Any]:
    means = {place: subject.usage.mean(place) for place in subject.usage.places}
    return {
        "sha256": subject.held.sha256,
        "settings": subject.held.settings,
        "images": len(subject.judged.labels_N),
        "tokens": {place: {"entropy_nats": h, "coverage": c} for place, (h, c) in means.items()},
        "named_right": subject.judged.accuracy,
        "mean_confidence": subject.judged.confidence_N.mean().item(),
        **subject.distances,
        "nearest_real": {
            space: {"median": c.median, "of_test_images": c.held_out_median, "share_suspiciously_close": c.share_close}
            for space, c in subject.near.items()
        },
    }


def report(found: dict[str, Any]) -> str:
    """The summary for the terminal."""
    lines = []
    for name, one in found["sets"].items():
        lines.append(f"{name}: {one['images']} images, {one['named_right']:.1%} accuracy, ")
        lines[-1] += f"mean confidence {one['mean_confidence']:.2f}"
        for place, tokens in one["tokens"].items():
            lines.append(f"  {place}: entropy {tokens['entropy_nats']:.3f} nats, coverage {tokens['coverage']:.2%}")
        for key, text in {
            "fid": "FID",
            "fid_of_test_images": "FID of as many test images",
            "fid_inception": "Inception FID",
        }.items():
            if one.get(key) is not None:
                lines.append(f"  {text}: {one[key]:.2f}")
        for space, close in one["nearest_real"].items():
            line = f"  nearest real image by {space}: median {close['median']:.4f}"
            if close["of_test_images"] is not None:
                line += f" (test images {close['of_test_images']:.4f}); nearer than 99 % of test images have theirs: "
                line += f"{close['share_suspiciously_close']:.1%}"
            lines.append(line)
    for place, share in found.get("risen", {}).items():
        lines.append(
            f"rose in {place}: entropy in {share['entropy']:.0%}, coverage in {share['coverage']:.0%} of classes"
        )
    lines += found.get("differences", {}).get("sentences", [])
    return "\n".join(lines)
