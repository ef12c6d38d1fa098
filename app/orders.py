"""What a visitor asks for: fields of the page ⇄ a checked order ⇄ an address, and the settings inside a picture.

Everything here is pure. The fields, in the order of `FIELDS`, are what the controls of the page hold and what
the endpoints take; an `Order` is what the model is asked to draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hieramp
from hieramp import SCHEDULES, Amplification, Model
from hieramp.amplification.settings import Mode, Stage
from hieramp.generation.sampling import PLAIN, Sampling, by_stage
from hieramp.scales import STAGES

MAX_COUNT = 8
MAX_SEED = 2**53 - 1  # a browser's numbers are exact up to here
RHO, STRENGTH = 0.5, 5.0
STAGE_FIELDS = tuple(f"{stage}_{part}" for stage in STAGES for part in ("rho", "strength"))
TEMPERATURES = tuple(f"{stage}_temperature" for stage in STAGES)
SAMPLING_FIELDS = ("guidance", "guidance_power", "top_k", "top_p", *TEMPERATURES)
DEFAULTS: dict[str, Any] = {
    "class_name": 0,
    "seed": 0,
    "count": 1,
    "guidance": 4.0,
    "guidance_power": 1.0,
    "top_k": 900,
    "top_p": 0.95,
    **dict(zip(TEMPERATURES, PLAIN, strict=True)),
    **{name: RHO if name.endswith("rho") else STRENGTH for name in STAGE_FIELDS},
    "mode": "logit",
    "painted": "",
}
FIELDS = tuple(DEFAULTS)
# of the sliders
RANGES: dict[str, tuple[float, float]] = {"guidance": (0, 10), "guidance_power": (0, 2), "top_p": (0, 1)}
RANGES |= dict.fromkeys(TEMPERATURES, (0, 1.5))
RANGES |= {name: (0.01, 1) if name.endswith("rho") else (0, 10) for name in STAGE_FIELDS}
IN_ADDRESS = {"class_name": "class", "painted": "paint"}  # the others go by their own names


@dataclass(frozen=True)
class Order:
    """What to draw: n baselines and n amplified pictures of one class, from the same n seeds."""

    label: int
    seeds: tuple[int, ...]
    sampling: Sampling
    amplification: Amplification

    @property
    def batch(self) -> tuple[list[int], tuple[int, ...], list[Amplification | None]]:
        """Labels, seeds and amplifications of one batch: the baselines first."""
        count = len(self.seeds)
        return [self.label] * 2 * count, self.seeds * 2, [None] * count + [self.amplification] * count


def read_order(model: Model, *fields: Any) -> Order:
    """The fields of the page, in the order of `FIELDS`, checked.

    Raises:
        ValueError: a field that is empty, out of range or no number, or a class the model does not have.
    """
    given = dict(zip(FIELDS, fields, strict=True))
    label = read_class(model, given["class_name"])
    first = whole("the seed", given["seed"], 0, MAX_SEED)
    seeds = tuple(range(first, first + whole("the number of images", given["count"], 1, MAX_COUNT)))
    top_k = whole("top-k", given["top_k"], 0, MAX_SEED)
    sampling = Sampling(
        number("guidance", given["guidance"]),
        top_k,
        number("top-p", given["top_p"]),
        by_stage([number(f"the temperature of {s}", given[f"{s}_temperature"]) for s in STAGES]),
        number("the power of guidance", given["guidance_power"]),
    )
    return Order(label, seeds, sampling, _amplification(model, given))


def read_class(model: Model, name: Any) -> int:
    """The label of a class field.

    Raises:
        ValueError: it is empty, or the model has no such class.
    """
    if name is None or not str(name).strip():
        raise ValueError("no class is chosen: choose one, or press Random")
    return model.label_of(str(name)[:200])


def _amplification(model: Model, given: Mapping[str, Any]) -> Amplification:
    coarse, mid, fine = (_stage(stage, given) for stage in STAGES)
    mode: Mode = given["mode"]  # Amplification says what it may be
    amplification = Amplification(coarse, mid, fine, mode, positions=read_painted(model, given["painted"]))
    amplification.check(model.var.scales, model.var.config.depth)
    return amplification


def _stage(stage: str, given: Mapping[str, Any]) -> Stage:
    rho, strength = given[f"{stage}_rho"], given[f"{stage}_strength"]
    return number(f"rho of {stage}", rho), number(f"the strength of {stage}", strength)


def number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {'empty' if value is None else repr(value)[:80]}; give a number")
    return float(value)


def whole(name: str, value: Any, low: int, high: int) -> int:
    found = number(name, value)
    if not low <= found <= high or found != int(found):
        raise ValueError(f"{name} is {found:g}; give a whole number from {low} to {high}")
    return int(found)


def read_painted(model: Model, text: Any) -> dict[int, list[int]]:
    """ "3:1f;4:ff0" → {scale: positions}: a hexadecimal number per scale, whose bit i is position i.

    Raises:
        ValueError: the text is of another form, or names a scale that has no stage.
    """
    positions: dict[int, list[int]] = {}
    for item in filter(None, str(text or "").split(";")):
        scale, _, mask = item.partition(":")
        try:
            number_of_scale, bits = int(scale), int(mask, 16) if len(mask) <= 4096 else -1
        except ValueError:
            bits = -1
        if bits < 0:
            raise ValueError(f"cannot read the painted map {item[:40]!r}: write scale:bits, like 3:1f")
        if model.var.scales.stage_of(number_of_scale) is None:
            last = len(model.var.scales) - 1
            raise ValueError(f"scale {number_of_scale} cannot be painted: give a scale from 1 to {last}")
        positions[number_of_scale] = [i for i in range(bits.bit_length()) if bits >> i & 1]
    return positions


def painted_text(amplification: Amplification) -> str:
    """The painted maps as `read_painted` reads them."""
    masks = ((scale, sum(1 << i for i in positions)) for scale, positions in amplification.named_positions.items())
    return ";".join(f"{scale}:{mask:x}" for scale, mask in masks)


def fields_of(order: Order) -> list[Any]:
    """An order as the fields that give it."""
    amp, how = order.amplification, order.sampling
    stages = [part for stage in STAGES for part in getattr(amp, stage) or (RHO, amp.neutral)]
    drawn = [how.guidance, how.guidance_power, how.top_k, how.top_p, *how.temperature]
    return [order.label, order.seeds[0], len(order.seeds), *drawn, *stages, amp.mode, painted_text(amp)]


def fields_on_page(model: Model, order: Order) -> list[Any]:
    """The same, for the controls of the page.

    Raises:
        ValueError: a value beyond what its slider shows; the endpoints take more.
    """
    fields = fields_of(order)
    for name, value in zip(FIELDS, fields, strict=True):
        low, high = range_of(model, name)
        if low is not None and not low <= value <= high:
            raise ValueError(f"{name} is {value:g}, but this page goes from {low:g} to {high:g}")
    return fields


def range_of(model: Model, name: str) -> tuple[float, float] | tuple[None, None]:
    """What the slider of a field shows; None where it has no slider, or one that is checked elsewhere."""
    if name == "top_k":
        return 0, max(model.vqvae.config.num_codes, DEFAULTS["top_k"])
    return RANGES.get(name, (None, None))


def first_order(model: Model) -> Order:
    """What a visitor sees without a click."""
    return read_order(model, *DEFAULTS.values())


def preset_fields(name: str) -> list[Any]:
    """A schedule of the paper as stage fields, mode and painted maps (none)."""
    amp = SCHEDULES[name]
    stages = [part for stage in STAGES for part in getattr(amp, stage) or (RHO, amp.neutral)]
    return [*stages, amp.mode, ""]


def preset_of(stage_fields: Sequence[Any]) -> str | None:
    """The schedule that these stage fields, mode and painted maps are, if they are one."""
    return next((name for name in SCHEDULES if preset_fields(name) == list(stage_fields)), None)


# Addresses


def to_query(model: Model, order: Order) -> dict[str, str]:
    """The settings as the parameters of an address."""
    query = {IN_ADDRESS.get(name, name): _text(value) for name, value in zip(FIELDS, fields_of(order), strict=True)}
    name = short_name(model.class_names[order.label])
    query["class"] = name if model.label_of(name) == order.label else str(order.label)  # ImageNet has two cranes
    plain = {"paint": ""} | dict.fromkeys(("guidance_power", *TEMPERATURES), "1")
    return {name: text for name, text in query.items() if plain.get(name) != text}


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def from_query(model: Model, query: Mapping[str, str]) -> Order:
    """The order that an address names; what it leaves out is as on a fresh page.

    Raises:
        ValueError: a value that no control could have.
    """
    fields = []
    for name, default in DEFAULTS.items():
        text = query.get(IN_ADDRESS.get(name, name))
        if text is None:
            fields.append(default)
        elif isinstance(default, str) or name == "class_name":
            fields.append(text)
        else:
            fields.append(_parsed(name, text))
    return read_order(model, *fields)


def _parsed(name: str, text: str) -> float:
    try:
        return int(text) if text.isdecimal() and len(text) < 20 else float(text)
    except ValueError as error:
        raise ValueError(f"{name} is {text[:40]!r} in this address; give a number") from error


# Pictures


def settings_of(model: Model, order: Order) -> dict[str, Any]:
    """What pictures are made with, under the names that `python -m hieramp generate` stores."""
    amp = order.amplification
    return {
        "model": model.name,
        "class": model.class_names[order.label],
        "label": order.label,
        "seeds": list(order.seeds),
        "stages": {stage: getattr(amp, stage) for stage in STAGES},
        "mode": amp.mode,
        "blocks": amp.resolved_blocks(model.var.config.depth),
        "painted": painted_text(amp),
        **order.sampling.options(),
        "hieramp": hieramp.__version__,
    }


def settings_of_one(settings: Mapping[str, Any], seed: int, side: int) -> dict[str, Any]:
    """The settings of one picture among many: its own seed, and for a baseline (side 0) nothing amplified."""
    stages = settings["stages"] if side else dict.fromkeys(settings["stages"])
    return {**settings, "seeds": [seed], "stages": stages, "painted": settings["painted"] if side else ""}


def from_settings(model: Model, settings: Mapping[str, Any]) -> Order:
    """The order that a saved picture was drawn by.

    Raises:
        ValueError: the settings lack something, or this model cannot draw by them.
    """
    try:
        mode, seeds = settings["mode"], [int(seed) for seed in settings["seeds"]]
        if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
            raise ValueError(f"the seeds of this picture do not follow one another: {seeds[:8]}")
        if settings.get("where", "salient") != "salient":
            raise ValueError(f"this picture amplifies {settings['where']} positions; this page only salient ones")
        off = (RHO, 1.0 if mode == "attention" else 0.0)
        stages = [part for stage in STAGES for part in settings["stages"].get(stage) or off]
        sampling = [settings.get(name, DEFAULTS[name]) for name in ("guidance", "guidance_power", "top_k", "top_p")]
        sampling += by_stage(settings.get("temperature", PLAIN))
        fields = [settings["class"], seeds[0], len(seeds), *sampling, *stages, mode, settings.get("painted", "")]
        return read_order(model, *fields)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError("the settings inside this picture are not complete") from error


# Words


def short_name(class_name: str) -> str:
    """The first of ImageNet's synonyms: "tench, Tinca tinca"."""
    return class_name.split(",")[0]


GREEK = {"logit": "β", "attention": "γ"}


def caption(order: Order) -> str:
    """An order in one line."""
    amp, first, last = order.amplification, order.seeds[0], order.seeds[-1]
    start = f"{f'Seed {first}' if first == last else f'Seeds {first}–{last}'}. Guidance {order.sampling.told_guidance}"
    start += f", temperature {told}." if (told := order.sampling.told_temperature) else "."
    if amp.is_off:
        return f"{start} Amplification is off, so the two are the same."
    stages = [(stage, getattr(amp, stage)) for stage in STAGES]
    said = ", ".join(f"{s} {v[1]:g} on {v[0]:.0%}" if v[1] != amp.neutral else f"{s} off" for s, v in stages)
    by_hand = [str(scale) for scale in amp.named_positions]
    painted = f" Painted by hand at scale {', '.join(by_hand)}." if by_hand else ""
    return f"{start} {GREEK[amp.mode]}: {said} of the positions.{painted}"


def temperature_label(model: Model, stage: str) -> str:
    return f"{stage} temperature ({scale_range(model, stage)})"


def scale_range(model: Model, stage: str) -> str:
    """Which scales a stage means: "scales 2–3"."""
    scales = model.var.scales.stages[stage]
    if not scales:
        return "no scale"
    return f"scale {scales[0]}" if len(scales) == 1 else f"scales {scales[0]}–{scales[-1]}"


def rho_label(model: Model, stage: str) -> str:
    return f"{stage} ρ ({scale_range(model, stage)})"


def strength_label(model: Model, stage: str, mode: str) -> str:
    return f"{stage} {GREEK[mode]} ({scale_range(model, stage)})"
