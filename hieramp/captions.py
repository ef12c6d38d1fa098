"""Settings in words: under pictures, and in the titles of plots."""

from collections.abc import Sequence
from dataclasses import replace

from hieramp.scales import STAGES
from hieramp.settings import Settings

GREEK = {"logit": "β", "attention": "γ"}
OFF = "Amplification is off."


def caption(settings: Settings, seeds: Sequence[int], model_kind: str = "var", off: str = OFF, swept: str = "") -> str:
    """Seeds and settings in one line; `off` is what it says where nothing is amplified.

    `swept` is a stage that is another in each picture: its own values are left out.
    """
    return f"{seeds_in_words(seeds)}. {in_words(settings, model_kind, off, swept)}"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Of seeds that follow one another: "Seed 3" or "Seeds 3–6"."""
    first, last = seeds[0], seeds[-1]
    return f"Seed {first}" if first == last else f"Seeds {first}–{last}"


def in_words(settings: Settings, model_kind: str = "var", off: str = OFF, swept: str = "") -> str:
    """Settings in one line, as in `caption`."""
    how = settings
    start = f"Guidance {how.guidance:g}"
    if model_kind == "dit":
        start += f", {how.steps} steps"
    start += "".join(f", {words}" for words in unusual(how, "sampling", model_kind)) + "."
    if how.is_off and not swept:
        return f"{start} {off}"
    stages = [(stage, getattr(how, stage) or (0, how.neutral)) for stage in STAGES if stage != swept]
    said = ", ".join(f"{s} {v[1]:g} on {v[0]:.0%}" if v[1] != how.neutral else f"{s} off" for s, v in stages)
    by_hand = [str(scale) for scale in how.named_positions]
    painted = f" Painted by hand at scale {', '.join(by_hand)}." if by_hand else ""
    located = unusual(replace(how, positions=None), "location", model_kind)
    place = "".join(f" {words[0].upper()}{words[1:]}." for words in located)
    more = f", {swept} as swept" if swept else ""
    return f"{start} {greek_of(how.mode, model_kind)}: {said} of the positions{more}.{place}{painted}"


def signed(x: float, digits: int = 3) -> str:
    """With its sign, a minus as wide as the plus; what rounds to nothing has none."""
    text = f"{x:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def greek_of(mode: str, model_kind: str) -> str:
    """The letter of a strength."""
    return "α" if model_kind == "dit" else GREEK[mode]


def unusual(settings: Settings, group: str, model_kind: str = "var") -> list[str]:
    """The settings of a group that are not at their default, in words; guidance, which is always told, left aside."""
    rows = [row for row in Settings.table(model_kind).values() if row.group == group and row.name != "guidance"]
    values = [(row, getattr(settings, row.name)) for row in rows]
    return [f"{row.label.split(' (')[0].lower()} {row.kind.text(v)}" for row, v in values if v != row.default]
