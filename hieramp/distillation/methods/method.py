"""What a method of distillation is: its options, what it prepares, and the parts that it adds to the drawing of a set.

A part belongs to an item, never to a batch: an image depends on what was prepared and on its item alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

from torch import Tensor

from hieramp import fields as knobs
from hieramp.classifier import Classifier
from hieramp.diffusion.levels import NoiseLevel, nearest_level
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.sampler import Denoiser, Guide
from hieramp.distillation.methods.images import RealImages
from hieramp.distillation.methods.noise_levels import GRIDS, levels_of
from hieramp.distillation.methods.store import Store
from hieramp.distillation.plan import Item
from hieramp.errors import UserError
from hieramp.fields import Choice, Field, Knob, Number, check_fields
from hieramp.generation.model import Model
from hieramp.settings import MODEL_KINDS, Settings

VAR, DIT = ("var",), ("dit",)
EITHER = (*VAR, *DIT)


@dataclass(frozen=True)
class Parts:
    """What a method adds; None is as without. Made of tensors and numbers, so that it travels to other machines."""

    levels: tuple[NoiseLevel, ...] | None = None  # to draw along
    first: int = 0  # of the levels: where `start` is
    start: Callable[[Sequence[Item]], Tensor] | None = None  # latents noised to levels[first], (B, C, h, w)
    guide: Callable[[Sequence[Item]], Guide] | None = None
    refine: Callable[[Denoiser, Tensor, Sequence[Item]], Tensor] | None = None  # clean latents, before decoding
    offsets: Mapping[int, int] | None = None  # by the item's index: what is added to its seed
    weights: Mapping[int, float] | None = None  # by the item's index: the share of its class that it stands for
    # of a VAR: the tokens of the first scales, per scale (B, n²), which are taken instead of drawn
    prefix: Callable[[Sequence[Item]], list[Tensor]] | None = None


@dataclass(frozen=True)
class Work:
    """What a method may look at: the set that is wanted, the model that draws it, and real images."""

    model: Model | DiffusionModel
    settings: Settings
    ipc: int
    classes: tuple[int, ...]
    seed: int  # of the set
    image_size: int  # of its pictures
    items: tuple[Item, ...]  # of the set, class after class
    store: Store
    images: RealImages | None = None
    judge: Classifier | None = None
    draw: Callable[[Sequence[Item]], list[Tensor]] | None = None  # items to the judge's logits, (K,) each

    @property
    def diffusion(self) -> DiffusionModel:
        """The model, for methods that were told to take no other kind."""
        assert isinstance(self.model, DiffusionModel)
        return self.model

    @property
    def real(self) -> RealImages:
        """The images, for methods that need some."""
        assert self.images is not None
        return self.images


@dataclass(frozen=True)
class Method:
    """A method and its options: a dataclass whose fields have knobs, as the settings have.

    Raises:
        UserError: an option that is out of range.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # for the help
    kinds: ClassVar[tuple[str, ...]] = DIT  # of models that can do it
    because: ClassVar[str] = ""  # why the others cannot
    needs_data: ClassVar[bool] = True
    weighs: ClassVar[bool] = False  # whether its images have weights

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def table(cls, model_kind: str | None = None) -> dict[str, Field]:
        """The options by their names."""
        return knobs.table(cls, model_kind)

    @classmethod
    def own(cls) -> dict[str, Field]:
        """The options that the methods do not share."""
        shared = {field.name for field in fields(OfImages)}
        return {name: row for name, row in cls.table().items() if name not in shared}

    @property
    def pool(self) -> int:
        """Pictures that are drawn for each one of the set; a classifier chooses among them."""
        return 1

    def check_kind(self, model: Model | DiffusionModel) -> None:
        """Raise UserError where a model of this kind cannot do it, or does not have an option that is set."""
        if model.kind not in self.kinds:
            kinds = " or ".join(MODEL_KINDS[kind] for kind in self.kinds)
            raise UserError(
                f"{self.name} {self.because}, and {model.name} is {MODEL_KINDS[model.kind]}: take {kinds} (--model, "
                "--kind), or another --method"
            )
        for name, row in self.table().items():
            if model.kind not in row.models and getattr(self, name) != row.default:
                theirs = " or ".join(MODEL_KINDS[kind] for kind in row.models)
                kind = MODEL_KINDS[model.kind]
                raise UserError(f"{row.spoken} of {self.name} is for {theirs}: leave it out for {kind}")

    def check(self, work: Work) -> None:
        """Raise UserError where the set cannot be made so; nothing is written before."""

    def to_json(self, model_kind: str) -> dict[str, Any]:
        """As it is stored with the set: every option, also at its default."""
        return {name: row.kind.to_json(getattr(self, name)) for name, row in self.table(model_kind).items()}

    def prepare(self, work: Work) -> Parts:
        """The parts; what takes long is kept in the store, and taken up by a further run."""
        return Parts()


@dataclass(frozen=True)
class OfImages(Method):
    """A method that looks at real images; the options that such methods share."""

    images_per_class: Annotated[
        int,
        Knob(
            Number(0, 10_000_000, unit="count", whole=True),
            "Images per class",
            "So many real images of each class, chosen by the seed; 0: all.",
            "methods",
            EITHER,
        ),
    ] = 0
    grid: Annotated[
        str,
        Knob(
            Choice(GRIDS),
            "Noise levels",
            "vp: spaced as DDPM's, which the papers' windows are made for; even: evenly in t.",
            "methods",
            DIT,
        ),
    ] = "vp"

    def check(self, work: Work) -> None:
        levels_of(work.diffusion.denoiser, work.settings.steps, self.grid)
        work.real.check_count(work.ipc, self.images_per_class, self.name)

    def levels(self, work: Work) -> tuple[NoiseLevel, ...]:
        return levels_of(work.diffusion.denoiser, work.settings.steps, self.grid)


def first_at(levels: Sequence[NoiseLevel], log_snr: float) -> int:
    """Of the levels the one nearest to a log-SNR; not the last one, which is clean."""
    return nearest_level(levels[:-1], log_snr)
