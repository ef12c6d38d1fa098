"""What a picture is drawn with, in one place: `Settings`, and the table of its fields.

Every field is declared once, where its mathematics is: in `Sampling` and in `Amplification`. From those lines come the
flags of the command line, the controls of the page, its addresses and endpoints, the settings inside pictures and sets,
and the jobs of the page; whoever adds a setting adds one line there, and what it does. The walk is our own: the classes
are plain dataclasses whose errors are sentences and whose flags have shorthands (`--stages`, `--temperature`), which
tyro or pydantic would have to be taught, while the generators are a few lines each.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from hieramp import fields as knobs
from hieramp.amplification.settings import OFF, OUTPUT_SCHEDULES, SCHEDULES, Amplification
from hieramp.diffusion.settings import GUIDANCE, Solving
from hieramp.errors import UserError
from hieramp.fields import Field, Part, part_of
from hieramp.generation.sampling import Sampling

MODEL_KINDS = {"var": "a VAR", "dit": "a diffusion transformer"}


@dataclass(frozen=True)
class Settings(Sampling, Solving, Amplification):
    """What a picture is drawn with, besides model, label and seed: what `Amplification`, `Solving` and `Sampling` have.

    `Settings()` amplifies nothing; `PAPER` is what the paper distills with.

    Raises:
        UserError: a field that is out of range or of the wrong type.
    """

    def __post_init__(self) -> None:
        Amplification.__post_init__(self)

    @classmethod
    def of(cls, *given: "Amplification | Sampling | None", **options: Any) -> "Settings":
        """The fields of those given, the later ones first, and options by their names; the rest is at its default.

        Raises:
            TypeError: an option that is no setting.
            UserError: a field that is out of range.
        """
        values: dict[str, Any] = {}
        for some in given:
            values |= {} if some is None else {field.name: getattr(some, field.name) for field in fields(some)}
        return cls(**values | options)

    @classmethod
    def table(cls, model_kind: str | None = None) -> dict[str, Field]:
        """All fields by their names, or those that models of a kind have, in the order of every door."""
        return knobs.table(cls, model_kind)

    @property
    def amplification(self) -> Amplification:
        return part_of(Amplification, self)

    @property
    def sampling(self) -> Sampling:
        return part_of(Sampling, self)

    @property
    def plain(self) -> "Settings":
        """The same without amplification: what a comparison calls the baseline."""
        return Settings.of(self, OFF)

    def check_kind(self, model_kind: str) -> None:
        """Raise UserError where something is set that models of this kind do not have."""
        for name, row in self.table().items():
            if model_kind not in row.models and getattr(self, name) != row.default:
                kinds = " and ".join(row.models)
                raise UserError(f"{row.spoken} is set, which is for {kinds} models: leave it out for {model_kind}")

    def resolved(self, depth: int) -> "Settings":
        """With the blocks that are amplified in a model of this depth, by their numbers."""
        return replace(self, blocks=self.resolved_blocks(depth))

    def to_json(self, model_kind: str | None = None) -> dict[str, Any]:
        """As pictures, sets and jobs store it, for a model of this kind."""
        return knobs.to_json(self, model_kind)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], beside: Sequence[str] = ()) -> "Settings":
        """Settings as they were stored, also by earlier versions; `beside` are names of other entries.

        Raises:
            UserError: a value that no setting could have, or a setting of a later version.
        """
        return knobs.from_json(cls, stored, beside)

    @classmethod
    def parts(cls, model_kind: str | None = None) -> tuple[Part, ...]:
        """The controls of the page, parameters of an address and arguments of an endpoint, in their order."""
        return tuple(part for field in cls.table(model_kind).values() for part in field.parts)

    def to_parts(self, model_kind: str | None = None) -> dict[str, Any]:
        """The values of those, by their names."""
        values: dict[str, Any] = {}
        for field in self.table(model_kind).values():
            shown = field.kind.split(getattr(self, field.name), self)
            values |= dict(zip((part.name for part in field.parts), shown, strict=True))
        return values

    @classmethod
    def from_parts(cls, values: Mapping[str, Any], model_kind: str | None = None) -> "Settings":
        """Settings as controls hold them.

        Raises:
            UserError: a value that is missing, of the wrong type or out of range.
        """
        return cls(
            **{
                field.name: field.kind.join(field.spoken, [values.get(part.name) for part in field.parts])
                for field in cls.table(model_kind).values()
            }
        )


# what is drawn with where nothing is said and the model has no default settings of its own, and what sets are
DEFAULTS = {"var": Settings(), "dit": Settings(guidance=GUIDANCE)}
PAPER = Settings.of(SCHEDULES["all"])  # Section 4: half of the positions with β 5, in all stages
FOR_SETS = {"var": PAPER, "dit": Settings.of(DEFAULTS["dit"], OUTPUT_SCHEDULES["all"])}
CONFIG_KEY = "default_settings"  # in config.json of a model folder: by the kind of model, settings by their names
SettingsLike = Settings | Amplification | Sequence[Settings | Amplification | None] | None


def defaults_in(config: Mapping[str, Any], model_kind: str, what: str = "config.json") -> Settings:
    """What a model is drawn with where nothing is said: what its config.json names, the rest as in `DEFAULTS`.

        "default_settings": {"var": {"guidance": 2.0, "temperature": [1.0, 1.0, 0.6]}}

    What is amplified is no matter of a model: only what samples or solves can be named.

    Raises:
        UserError: something else is named, or a value is out of range; `what` is the file that the sentence names.
    """
    stored, rows = config.get(CONFIG_KEY, {}), knobs.table(Settings, model_kind)
    named = stored.get(model_kind, {}) if isinstance(stored, Mapping) and stored.keys() <= MODEL_KINDS.keys() else None
    if not isinstance(named, Mapping):
        raise UserError(f'{CONFIG_KEY} in {what} must name settings by the kind of model, like {{"var": {{…}}}}')
    able = {name: row for name, row in rows.items() if name not in knobs.table(Amplification)}
    for name in named:
        if name not in able:
            raise UserError(f"{CONFIG_KEY} in {what} names {name!r}; it may name {', '.join(able)}")
    try:
        values = {name: able[name].kind.from_json(able[name].spoken, value) for name, value in named.items()}
    except UserError as error:
        raise UserError(f"{CONFIG_KEY} in {what}: {error}") from error
    return Settings.of(DEFAULTS[model_kind], **values)


def set_settings(model_kind: str, default: Settings) -> Settings:
    """What sets are drawn with where nothing is said, by a model of these default settings."""
    return Settings.of(default, FOR_SETS[model_kind].amplification)


def read(given: SettingsLike, options: Mapping[str, Any], default: Settings) -> Settings | list[Settings]:
    """The settings that a call means: `given`, or `default`, with options by their names; one, or one for each image.

    An option may also be `amplification`, which is then what is given. What an amplification leaves open is as in
    `default`.

    Raises:
        UserError: settings and an amplification, or a value out of range.
        TypeError: an option that is no setting.
    """
    options = dict(options)
    if "amplification" in options:
        if given is not None:
            raise UserError("settings and an amplification are both given: put the amplification into the settings")
        given = options.pop("amplification") or OFF
    if given is None:
        return Settings.of(default, **options)
    if isinstance(given, Sampling | Amplification):
        return Settings.of(default.plain, given, **options)
    return [Settings.of(default.plain, one, **options) for one in given]


def for_images(
    given: SettingsLike,
    options: Mapping[str, Any],
    default: Settings,
    labels: Sequence[int],
    seeds: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[Settings, ...]]:
    """The seed of each image, drawn at random where none are given, and its settings as `read` understands them.

    Raises:
        ValueError: as `read`; counts that differ, or settings that differ in more than their amplification.
        TypeError: as `read`.
    """
    drawn = (secrets.randbelow(2**32) for _ in labels)
    seeds = tuple(drawn if seeds is None else map(int, seeds))
    found = read(given, options, default)
    per_image = (found,) * len(labels) if isinstance(found, Settings) else tuple(found)
    if not len(seeds) == len(per_image) == len(labels):
        counts = f"{len(labels)} labels, {len(seeds)} seeds, {len(per_image)} settings"
        raise UserError(f"counts differ: {counts}; give one of each per image")
    if len({one.plain for one in per_image}) > 1:
        raise UserError("the images of one call may differ in their amplification alone: draw the others apart")
    return seeds, per_image
