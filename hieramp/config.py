"""Sizes of the networks: one frozen dataclass per component."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hieramp.errors import UserError
from hieramp.scales import OFFICIAL_SIDES, Scales


@dataclass(frozen=True)
class VQVAEConfig:
    """A multi-scale residual VQ-VAE. The defaults are the official 256 px geometry."""

    sides: tuple[int, ...] = OFFICIAL_SIDES
    num_codes: int = 4096  # V
    code_dim: int = 32  # width of a code
    channels: int = 160
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # channels of each level, in units of `channels`
    num_res_blocks: int = 2  # per level in the encoder; the decoder has one more
    attention: bool = True  # self-attention in the blocks of the lowest level
    patch: int = 1  # pixel-unshuffle before the encoder; 1 is the official, more keeps work off full resolution
    num_groups: int = 32  # of GroupNorm
    num_phi: int = 4  # convolutions φ shared over the scales
    phi_ratio: float = 0.5  # ρ_q in φ(h) = (1-ρ_q)·h + ρ_q·conv(h)

    @property
    def scales(self) -> Scales:
        return Scales(self.sides)

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.sides[-1] * 2 ** (len(self.multipliers) - 1) * self.patch


@dataclass(frozen=True)
class VARConfig:
    """A VAR transformer, with or without class tokens. The defaults are var-d16's."""

    sides: tuple[int, ...] = OFFICIAL_SIDES
    num_codes: int = 4096
    code_dim: int = 32
    num_classes: int = 1000
    depth: int = 16
    width: int = 1024
    num_heads: int = 16
    ffn_ratio: float = 4.0
    l2_attention: bool = True  # q and k normalised, with a learned temperature per head
    shared_adaln: bool = False
    class_token_scales: tuple[int, ...] = ()  # scales that have a class token
    read_only_class_tokens: bool = False  # image tokens may not attend to the class token
    # "shared": class tokens take part in every block, with its projections (the paper's); "own": they read at one
    # block, with projections of their own (hieramp.var.class_tokens)
    class_token_attention: Literal["shared", "own"] = "shared"
    class_token_block: int | None = None  # that block; None: depth - 2
    class_token_width: int | None = None  # of their keys and values; None: the transformer's
    last_passes: int = 1  # in how many passes the last scale is drawn: 1, as in VAR, 2 or 4 (hieramp.var.passes)

    def __post_init__(self) -> None:
        if self.last_passes not in (1, 2, 4):
            raise UserError(f"last_passes is {self.last_passes}; the last scale is drawn in 1, 2 or 4 passes")
        if self.class_token_attention not in ("shared", "own"):
            raise UserError(f"class_token_attention is {self.class_token_attention!r}: give shared or own")
        if self.own_class_tokens and not self.read_only_class_tokens:
            raise UserError("class tokens with projections of their own only read: set read_only_class_tokens")
        if not 0 <= self.watched_block < max(1, self.depth):
            raise UserError(f"class_token_block is {self.class_token_block}: there are blocks 0 to {self.depth - 1}")
        if self.own_width % self.num_heads:
            raise UserError(f"class_token_width is {self.own_width}: give a multiple of the {self.num_heads} heads")

    @property
    def scales(self) -> Scales:
        return Scales(self.sides)

    @property
    def watched_block(self) -> int:
        """Where saliency is read: depth - 2 (docs/method.md) unless class tokens of their own name another block."""
        return max(0, self.depth - 2) if self.class_token_block is None else self.class_token_block

    @property
    def own_class_tokens(self) -> bool:
        """Whether class tokens have projections of their own."""
        return self.class_token_attention == "own"

    @property
    def own_width(self) -> int:
        """Width of the keys and values of class tokens that have their own."""
        return self.class_token_width or self.width

    @property
    def input_dim(self) -> int:
        """Width of the transformer's input: f_hat, and with more than one pass the known codes and which they are."""
        return self.code_dim if self.last_passes == 1 else 2 * self.code_dim + 1


@dataclass(frozen=True)
class ClassifierConfig:
    """A ResNet of basic blocks; the defaults are the ResNet-18 for CIFAR of docs/protocols.md."""

    image_size: int = 32
    num_classes: int = 10
    layers: tuple[int, ...] = (2, 2, 2, 2)
    channels: tuple[int, ...] = (64, 128, 256, 512)
    # "cifar": 3×3, stride 1, no max-pool; "half": the same with stride 2; "imagenet": 7×7, stride 2, max-pool
    stem: str = "cifar"


@dataclass(frozen=True)
class DiTConfig:
    """A diffusion transformer on the latents of a VQ-VAE, one token per position; the defaults are DiT-S's."""

    side: int = 16  # of the latent
    channels: int = 8  # of the latent, in the basis of its principal components
    num_classes: int = 1000
    depth: int = 12
    width: int = 384
    num_heads: int = 6
    ffn_ratio: float = 4.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % (4 * self.num_heads):
            raise UserError(f"width is {self.width}; it must be a multiple of 4 times {self.num_heads}, the heads")


T = TypeVar("T", VQVAEConfig, VARConfig, ClassifierConfig, DiTConfig)
# sizes that models of before do not name: they have the default
LATER = {"last_passes", "class_token_attention", "class_token_block", "class_token_width"}


def to_json(config: VQVAEConfig | VARConfig | ClassifierConfig | DiTConfig) -> dict[str, Any]:
    return asdict(config)


# what is built one by one: a file that names a billion of them would fill the memory before its weights are looked at
MOST = {"depth": 1000, "num_phi": 1000, "num_res_blocks": 1000, "sides": 512, "layers": 1000, "multipliers": 1000}
MOST_OF_ANY = 2**24


def from_json(kind: type[T], values: dict[str, Any]) -> T:
    """Rebuild a config from its JSON; unknown or missing sizes are a foreign file.

    Raises:
        UserError: the keys are not exactly the fields of `kind`, or a value has a wrong type or is out of range.
    """
    if not isinstance(values, dict):
        raise UserError(f"not a {kind.__name__}: its sizes are {_short(values)}, not names with a value each")
    fields = set(kind.__dataclass_fields__)
    odd_ones = (fields ^ set(values)) - (fields & LATER)
    if odd_ones:
        odd = ", ".join(sorted(odd_ones))
        raise UserError(f"not a {kind.__name__} of this version: {odd} is missing or unknown")
    sizes: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    types = get_type_hints(kind)
    for name, value in sizes.items():
        if not _is_size(name, value, types[name]):
            raise UserError(f"{name} of a {kind.__name__} is {_short(value)}, which it cannot be")
    return kind(**sizes)


def _is_size(name: str, value: Any, wanted: Any) -> bool:
    """Whether a value has the type of its field, and a whole number is in its range."""
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if get_origin(wanted) is tuple:
        low = 0 if name == "class_token_scales" else 1
        is_list = isinstance(value, tuple) and (bool(value) or not low) and len(value) <= MOST.get(name, 1000)
        return is_list and all(_is_whole(each, low, MOST.get(name, 1000)) for each in value)
    if value is None:
        return type(None) in get_args(wanted)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST_OF_ANY
    if wanted is bool or wanted is str:
        return isinstance(value, wanted)
    return _is_whole(value, 0 if name == "class_token_block" else 1, MOST.get(name, MOST_OF_ANY))


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
