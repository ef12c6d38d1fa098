"""What a setting is: one line in its class says all that flags, the page, addresses, pictures and JSON need to know.

    guidance: Annotated[float, Knob(Number(0, shown=(0, 10)), "Guidance", "At the last scale.", "sampling")] = 4.0

The kind of a knob checks its value and reads and writes it; a value that has several controls on the page (one for each
stage, say) is split into parts. Errors name a value by its name, with spaces for underscores.
"""

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hieramp.errors import UserError
from hieramp.scales import STAGES

T = TypeVar("T")
RHO = 0.5  # what a control shows for the share of a stage that is off


class Kind:
    """How a value is checked, read and written. What reads raises ValueError, in one sentence."""

    def check(self, name: str, value: Any) -> Any:
        """A Python value, or what a control of the page holds, as it is kept."""
        raise NotImplementedError

    def parse(self, name: str, text: str) -> Any:
        """The value that a flag or an address gives."""
        raise NotImplementedError

    def text(self, value: Any) -> str:
        """The text that `parse` reads."""
        return str(value)

    def to_json(self, value: Any) -> Any:
        return value

    def from_json(self, name: str, stored: Any) -> Any:
        return self.check(name, stored)

    @property
    def type(self) -> Any:
        """Of the value at the endpoints; kinds that have no type there are written as text."""
        return str

    @property
    def metavar(self) -> str:
        """What the help of a flag calls the value."""
        return "TEXT"

    def parts(self, field: "Field") -> "tuple[Part, ...]":
        """The controls that a setting of this kind has."""
        return (Part(field.name, self, field.label, field.help),)

    def split(self, value: Any, settings: Any) -> tuple[Any, ...]:
        """The value as its controls hold it; `settings` are those that it belongs to."""
        return (value if self.type is not str else self.text(value),)

    def join(self, name: str, shown: Sequence[Any]) -> Any:
        """The value that its controls hold."""
        (only,) = shown
        return self.check(name, only) if self.type is not str else self.parse(name, str(only or ""))


@dataclass(frozen=True)
class Number(Kind):
    """A number from `low` to `high`; `over`: `low` itself is not allowed.

    `shown` is what the slider of the page spans, in steps of `step`; the other doors take more. `upto` names a number
    of the model's VQ-VAE at which the slider ends, if that is more.
    """

    low: float = -math.inf
    high: float = math.inf
    shown: tuple[float, float] = (0.0, 1.0)
    step: float = 0.01
    unit: str = "number"
    whole: bool = False
    over: bool = False
    upto: str = ""

    @property
    def type(self) -> Any:
        return int if self.whole else float

    @property
    def metavar(self) -> str:
        return self.unit.upper()

    @property
    def wanted(self) -> str:
        """ "a whole number of at least 0"."""
        low = "" if self.low == -math.inf else f" {'over' if self.over else 'of at least'} {self.low:g}"
        high = "" if self.high == math.inf else f"{' and' if low else ' of'} at most {self.high:g}"
        return f"a{' whole' if self.whole else ''} number{low}{high}"

    def check(self, name: str, value: Any) -> float | int:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise UserError(f"{name} is {'empty' if value is None else repr(value)[:80]}; give a number")
        number = float(value)
        if not math.isfinite(number):
            raise UserError(f"{name} is {number:g}; it must be a finite number")
        too_low = number <= self.low if self.over else number < self.low
        if too_low or number > self.high or (self.whole and number != int(number)):
            raise UserError(f"{name} is {number:g}; it must be {self.wanted}")
        return int(number) if self.whole else number

    def parse(self, name: str, text: str) -> float | int:
        try:
            number = float(text)
        except ValueError as error:
            raise UserError(f"{name} is {text[:40]!r}; give a number") from error
        return self.check(name, number)

    def text(self, value: float) -> str:
        """The shortest text that is exactly this number."""
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)


@dataclass(frozen=True)
class Choice(Kind):
    """One of several words; each with what the page calls it."""

    options: tuple[tuple[str, str], ...]  # word, its name on the page

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(word for word, _ in self.options)

    @property
    def type(self) -> Any:
        return Literal[self.words]

    def check(self, name: str, value: Any) -> str:
        if value not in self.words:
            *others, last = map(repr, self.words)
            raise UserError(f"{name} is {str(value)[:80]!r}; it must be {', '.join(others)} or {last}")
        return str(value)

    def parse(self, name: str, text: str) -> str:
        return self.check(name, text)


@dataclass(frozen=True)
class Indices(Kind):
    """Distinct whole numbers in order, like 4,5; None for what is meant where none are named: `default`."""

    default: str

    @property
    def metavar(self) -> str:
        return "4,5"

    def check(self, name: str, value: Any) -> tuple[int, ...] | None:
        if value is None:
            return None
        try:
            found = tuple(sorted({int(index) for index in value if int(index) == index}))
            if isinstance(value, str) or len(found) < len(set(value)):
                raise ValueError
        except (TypeError, ValueError) as error:
            raise UserError(f"{name} are {value!r}; name whole numbers, like (4, 5)") from error
        if not found:
            raise UserError(f"no {name} are named; name at least one, or leave {name} out for {self.default}")
        return found

    def parse(self, name: str, text: str) -> tuple[int, ...] | None:
        if not text.strip():
            return None
        if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text.replace(" ", "")):
            raise UserError(f"{text[:40]!r} is not a list of {name} like 4,5")
        return self.check(name, map(int, text.split(",")))

    def text(self, value: tuple[int, ...] | None) -> str:
        return ",".join(map(str, value or ()))

    def to_json(self, value: tuple[int, ...] | None) -> list[int] | None:
        return None if value is None else list(value)


@dataclass(frozen=True)
class Positions(Kind):
    """Positions of scales, row by row from 0, kept as ((scale, (position, …)), …) or None.

    As text "3:1f;4:ff0": per scale a hexadecimal number, whose bit i is position i.
    """

    @property
    def metavar(self) -> str:
        return "3:1f;4:ff0"

    def check(self, name: str, value: Any) -> tuple[tuple[int, tuple[int, ...]], ...] | None:
        if value is None:
            return None
        try:
            pairs = value.items() if isinstance(value, Mapping) else value
            named = [(int(scale), tuple(sorted(set(map(int, positions))))) for scale, positions in pairs]
        except (TypeError, ValueError) as error:
            raise UserError(f"{name} are {str(value)[:80]!r}; give {{scale: [position, …]}}") from error
        return tuple(sorted(pair for pair in named if pair[1])) or None

    def parse(self, name: str, text: str) -> tuple[tuple[int, tuple[int, ...]], ...] | None:
        found: dict[int, list[int]] = {}
        for item in filter(None, text.split(";")):
            scale, _, mask = item.partition(":")
            try:
                number, bits = int(scale), int(mask, 16) if len(mask) <= 4096 else -1
            except ValueError:
                bits = -1
            if bits < 0:
                raise UserError(f"cannot read the positions {item[:40]!r}: write scale:bits, like 3:1f")
            found[number] = [i for i in range(bits.bit_length()) if bits >> i & 1]
        return self.check(name, found)

    def text(self, value: Any) -> str:
        return ";".join(f"{scale}:{sum(1 << i for i in positions):x}" for scale, positions in value or ())

    def to_json(self, value: Any) -> dict[str, list[int]] | None:
        return {str(scale): list(positions) for scale, positions in value} if value else None

    def from_json(self, name: str, stored: Any) -> Any:
        return self.parse(name, stored) if isinstance(stored, str) else self.check(name, stored)


@dataclass(frozen=True)
class PerStage(Kind):
    """A number for each stage; a single one is that of all three."""

    number: Number
    rest: float  # of a stage that a text leaves out

    @property
    def metavar(self) -> str:
        return self.number.metavar

    def check(self, name: str, value: Any) -> tuple[float, ...]:
        alike = not isinstance(value, Sequence) or isinstance(value, str)
        given = (value,) * len(STAGES) if alike else tuple(value)
        if len(given) != len(STAGES):
            raise UserError(f"{len(given)} values of {name} are given; give one, or three: of {', '.join(STAGES)}")
        return tuple(self.number.check(f"{stage} {name}", one) for stage, one in zip(STAGES, given, strict=True))

    def parse(self, name: str, text: str) -> tuple[float, ...]:
        named = [item.partition("=")[::2] for item in text.split(",")] if "=" in text else [(s, text) for s in STAGES]
        try:
            values = {stage.strip(): float(value) for stage, value in named}
        except ValueError:
            values = {}
        if not values or not values.keys() <= set(STAGES):
            raise UserError(f"{text[:40]!r} is no {name}: give a number, or coarse=1,mid=1,fine=0.6")
        return self.check(name, [values.get(stage, self.rest) for stage in STAGES])

    def text(self, value: tuple[float, ...]) -> str:
        texts = list(map(self.number.text, value))
        if len(set(texts)) == 1:
            return texts[0]
        return ",".join(f"{stage}={text}" for stage, text in zip(STAGES, texts, strict=True))

    def to_json(self, value: tuple[float, ...]) -> list[float]:
        return list(value)

    def parts(self, field: "Field") -> "tuple[Part, ...]":
        label = f"{{stage}} {field.label.lower()} ({{scales}})"
        return tuple(
            Part(f"{stage}_{field.name}", self.number, label, f"{field.help} At the {stage} scales.", stage)
            for stage in STAGES
        )

    def split(self, value: tuple[float, ...], settings: Any) -> tuple[Any, ...]:
        return value

    def join(self, name: str, shown: Sequence[Any]) -> tuple[float, ...]:
        return self.check(name, list(shown))


@dataclass(frozen=True)
class ShareStrength(Kind):
    """(share ρ of the positions, strength) at one stage, or None where it is off; as text "50%:5" or "off"."""

    share: Number
    strength: Number

    @property
    def metavar(self) -> str:
        return "50%:5"

    def check(self, name: str, value: Any) -> tuple[float, float] | None:
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
            raise UserError(f"{name} is {str(value)[:80]!r}; give (rho, strength) or None")
        return self.share.check(f"{name} rho", value[0]), self.strength.check(f"{name} strength", value[1])

    def parse(self, name: str, text: str) -> tuple[float, float] | None:
        if text.strip().lower() == "off":
            return None
        share, found, strength = text.partition(":")
        try:
            if not found:
                raise ValueError
            rho = float(share.strip().removesuffix("%")) / (100 if share.strip().endswith("%") else 1)
            value = rho, float(strength)
        except ValueError as error:
            raise UserError(f"cannot read {text[:40]!r}: write share:strength, like 50%:5, or off") from error
        return self.check(name, value)

    def text(self, value: tuple[float, float] | None) -> str:
        if value is None:
            return "off"
        percent = f"{100 * value[0]:.10g}"
        share = f"{percent}%" if float(percent) / 100 == value[0] else repr(value[0])
        return f"{share}:{self.strength.text(value[1])}"

    def to_json(self, value: tuple[float, float] | None) -> list[float] | None:
        return None if value is None else list(value)

    def parts(self, field: "Field") -> "tuple[Part, ...]":
        stage = field.name
        return (
            Part(
                f"{stage}_rho",
                self.share,
                "{stage} ρ ({scales})",
                f"Share of the positions that is amplified at the {stage} scales.",
                stage,
            ),
            Part(
                f"{stage}_strength",
                self.strength,
                "{stage} {greek} ({scales})",
                f"Strength at the {stage} scales: β (mode logit, 0 is off) or γ (mode attention, 1 is off).",
                stage,
            ),
        )

    def split(self, value: tuple[float, float] | None, settings: Any) -> tuple[Any, ...]:
        return value or (RHO, settings.neutral)

    def join(self, name: str, shown: Sequence[Any]) -> tuple[float, float] | None:
        return self.check(name, tuple(shown))


@dataclass(frozen=True)
class Knob:
    """What is said of a setting beside its name, type and default."""

    kind: Kind
    label: str  # on the page
    help: str  # a sentence, for flags and endpoints
    group: str  # settings of one group stand together on the page
    models: tuple[str, ...] = ("var",)  # kinds of model that have it
    always: bool = False  # stored also at its default; what came later is not, so that older sets keep their bytes
    inside: str = ""  # the entry of the JSON that holds it, if not an entry of its own
    was: str = ""  # a name it was stored under before


@dataclass(frozen=True)
class Field(Knob):
    """A row of the table of settings."""

    name: str = ""
    default: Any = None

    @property
    def parts(self) -> "tuple[Part, ...]":
        return self.kind.parts(self)

    @property
    def spoken(self) -> str:
        """The name as errors say it."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Part:
    """One control of the page, parameter of an address or argument of an endpoint."""

    name: str
    kind: Kind
    label: str  # may name {stage}, its {scales} and the {greek} letter of the mode
    help: str
    stage: str | None = None


_TABLES: dict[tuple[type, str | None], dict[str, Field]] = {}


def table(cls: type, model_kind: str | None = None) -> dict[str, Field]:
    """The settings of a class by their names, in order; those that models of a kind have, or all."""
    if (cls, model_kind) not in _TABLES:
        _TABLES[cls, model_kind] = _rows(cls, model_kind)
    return _TABLES[cls, model_kind]


def _rows(cls: type, model_kind: str | None) -> dict[str, Field]:
    hints, rows = get_type_hints(cls, include_extras=True), {}
    for field in fields(cls):
        hint = hints[field.name]
        knobs = [extra for extra in get_args(hint) if isinstance(extra, Knob)] if get_origin(hint) is Annotated else []
        assert len(knobs) == 1 and field.default is not MISSING, f"{field.name} needs a Knob and a default"
        if model_kind is None or model_kind in knobs[0].models:
            rows[field.name] = Field(**vars(knobs[0]), name=field.name, default=field.default)
    return rows


def check_fields(settings: Any) -> None:
    """Check every field, and put it into the form in which it is kept.

    Raises:
        UserError: a value of the wrong type or out of range.
    """
    for field in table(type(settings)).values():
        checked = field.kind.check(field.spoken, getattr(settings, field.name))
        object.__setattr__(settings, field.name, checked)


def part_of(cls: type[T], settings: Any) -> T:
    """The fields of `cls` out of settings that have more."""
    return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})  # type: ignore[arg-type]


def to_json(settings: Any, model_kind: str | None = None) -> dict[str, Any]:
    """Ready for JSON, those of a kind of model or all; what came later is named only where it is not its default.

    Where no kind is named, so is what a VAR does not have.
    """
    stored: dict[str, Any] = {}
    for field in table(type(settings), model_kind).values():
        value = getattr(settings, field.name)
        if value != field.default or (field.always and (model_kind or "var") in field.models):
            place = stored.setdefault(field.inside, {}) if field.inside else stored
            place[field.name] = field.kind.to_json(value)
    return stored


def from_json(cls: type[T], stored: Mapping[str, Any], beside: Sequence[str] = ()) -> T:
    """Settings as they were stored; what is not named is at its default, entries of the names `beside` are others'.

    Raises:
        UserError: a value that no setting could have, or a setting that this version does not know.
    """
    rows, values = table(cls), {}
    known = {name for row in rows.values() for name in (row.inside or row.name, row.was)} | set(beside)
    for name in stored:
        if name not in known:
            raise UserError(f"{name!r} is no setting of this version of hieramp, so it cannot be followed")
    for row in rows.values():
        place = stored.get(row.inside) if row.inside else stored
        if place is None:
            continue
        if not isinstance(place, Mapping):
            raise UserError(f"{row.inside} is {str(place)[:80]!r}; it should name {row.name}")
        name = row.name if row.name in place else row.was
        if name and name in place:
            values[row.name] = row.kind.from_json(row.spoken, place[name])
    return cls(**values)
