"""From noise to latent by an ordinary differential equation, step by step, and back again.

Any model that predicts x0 and ε will do (`Denoiser`): the sampler knows noise levels, not schedules. With Euler's
method a step is a step of DDIM (Song et al., arXiv 2010.02502).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from hieramp.diffusion.levels import NoiseLevel
from hieramp.errors import UserError

Solver = Literal["euler", "heun"]
SOLVERS: tuple[Solver, ...] = ("euler", "heun")


# sees the number of a block and the tokens that enter it, (B, T, D)
Watch = Callable[[int, Tensor], None]


class Prediction(NamedTuple):
    """What a noised latent is made of, z = a·x0 + s·ε; both (B, C, h, w) float32."""

    x0: Tensor
    eps: Tensor

    @property
    def velocity(self) -> Tensor:
        """v = ε - x0, how the latent moves with t."""
        return self.eps - self.x0


class Denoiser(Protocol):
    """A class-conditional diffusion model on latents of `shape` (C, h, w)."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def token_side(self) -> int:
        """Its attention sees token_side² tokens, row by row."""
        ...

    @property
    def num_classes(self) -> int: ...

    @property
    def null_label(self) -> int: ...

    @property
    def depth(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def to(self, device: torch.device | str, dtype: torch.dtype) -> object: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def levels(self, steps: int) -> list[NoiseLevel]:
        """The steps + 1 noise levels of a sampling, from noise to the clean latent."""
        ...

    def predict(
        self,
        z_BCHW: Tensor,
        level: NoiseLevel,
        labels_B: Tensor,
        factors: Mapping[int, Tensor] | None = None,
        watch: Watch | None = None,
    ) -> Prediction:
        """`factors`: for some blocks, what the attention's output is multiplied by, (B, tokens)."""
        ...


class Moment(NamedTuple):
    """One step: where it began, what was predicted there, and where it led."""

    number: int  # of the step, from 0
    level: NoiseLevel
    z: Tensor  # (B, C, h, w), noised to `level`
    guided: Prediction
    conditional: Prediction
    unconditional: Prediction | None  # where neither guidance nor anything else asked for it
    after: Tensor  # (B, C, h, w), at the next level; the latent itself after the last step


class OutputHook(Protocol):
    """Changes the attention's output, from what it saw in earlier steps."""

    needs_unconditional: bool

    def factors(self, index: int, level: NoiseLevel) -> Mapping[int, Tensor] | None:
        """For some blocks a factor on the attention's output, (B, tokens)."""
        ...

    def watching(self, level: NoiseLevel) -> Watch | None:
        """What looks at the tokens of the unconditional half, the last rows of those it is shown."""
        ...

    def see(self, index: int, level: NoiseLevel, conditional: Prediction, unconditional: Prediction | None) -> None: ...


# What is added to ε before the step is made; x0 follows, so that z stays what it is. It is asked wherever there is some
# signal, that is not at t = 1, and sees the moment with `after` = z.
Guide = Callable[[Moment], Tensor]


def guided(conditional: Prediction, unconditional: Prediction | None, guidance: float) -> Prediction:
    """Classifier-free guidance, (1 + g)·conditional - g·unconditional: w = 1 + g. With g = 0 the conditional itself."""
    if unconditional is None or guidance == 0:
        return conditional
    pairs = zip(unconditional, conditional, strict=True)
    return Prediction(*(torch.lerp(without, having, 1 + guidance) for without, having in pairs))


def _predict(
    denoiser: Denoiser,
    z: Tensor,
    level: NoiseLevel,
    labels_B: Tensor,
    factors: Mapping[int, Tensor] | None,
    both: bool,
    together: bool,
    watch: Watch | None = None,
) -> tuple[Prediction, Prediction | None]:
    """Both halves of guidance, or the conditional one.

    `together`: in one call, where both are needed whatever else is asked. Otherwise each is a call of its own, so that
    the conditional half has the same bits whether or not somebody looks at the other.
    """
    null_B = torch.full_like(labels_B, denoiser.null_label)
    if both and together:
        doubled = None if factors is None else {block: torch.cat([factor] * 2) for block, factor in factors.items()}
        found = denoiser.predict(torch.cat([z, z]), level, torch.cat([labels_B, null_B]), doubled, **_watched(watch))
        conditional, unconditional = (Prediction(*half) for half in zip(*(x.chunk(2) for x in found), strict=True))
        return conditional, unconditional
    conditional = denoiser.predict(z, level, labels_B, factors)
    return conditional, denoiser.predict(z, level, null_B, factors, **_watched(watch)) if both else None


def _watched(watch: Watch | None) -> dict[str, Watch]:
    return {} if watch is None else {"watch": watch}  # only some denoisers can be watched


def _moved(z: Tensor, level: NoiseLevel, following: NoiseLevel, velocity: Tensor) -> Tensor:
    """Along the velocity to the next level: straight, in the coordinates in which a + s = 1."""
    here, there = level.signal + level.noise, following.signal + following.noise
    return there * (z / here + (following.t - level.t) * velocity)


def _step(
    denoiser: Denoiser,
    z: Tensor,
    index: int,
    level: NoiseLevel,
    following: NoiseLevel,
    labels_B: Tensor,
    solver: Solver,
    guidance: float,
    attention: OutputHook | None,
    guides: Sequence[Guide],
) -> Moment:
    both = guidance != 0 or (attention is not None and attention.needs_unconditional)
    factors = None if attention is None else attention.factors(index, level)
    watch = None if attention is None else attention.watching(level)
    conditional, unconditional = _predict(denoiser, z, level, labels_B, factors, both, guidance != 0, watch)
    now = guided(conditional, unconditional, guidance)
    moment = Moment(index, level, z, now, conditional, unconditional, z)
    for guide in guides if level.signal > 0 else ():
        change = guide(moment)
        eps, x0 = moment.guided.eps + change, moment.guided.x0 - (level.noise / level.signal) * change
        moment = moment._replace(guided=Prediction(x0, eps))
    velocity = moment.guided.velocity
    after = _moved(z, level, following, velocity)
    if solver == "heun" and following.noise > 0:  # the last step is Euler's (EDM, Karras et al., arXiv 2206.00364)
        is_guided = guidance != 0
        then = guided(*_predict(denoiser, after, following, labels_B, factors, is_guided, is_guided), guidance)
        after = _moved(z, level, following, (velocity + then.velocity) / 2)
    if attention is not None:
        attention.see(index, level, conditional, unconditional)
    return moment._replace(after=after)


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    labels_B: Tensor,
    *,
    solver: Solver = "euler",
    guidance: float = 0.0,
    attention: OutputHook | None = None,
    guides: Sequence[Guide] = (),
    first: int = 0,
) -> Iterator[Moment]:
    """From `z` (B, C, h, w), noised to levels[first], along the levels; yields every step, the last with the latent.

    `guidance` g is w - 1 of w·conditional - (w - 1)·unconditional; 0 is without. `guides` correct the prediction
    further, each in turn.
    """
    for index, (level, following) in enumerate(pairwise(levels[first:]), start=first):
        moment = _step(denoiser, z, index, level, following, labels_B, solver, guidance, attention, guides)
        z = moment.after
        yield moment


@torch.no_grad()
def invert(
    denoiser: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    labels_B: Tensor,
    *,
    solver: Solver = "euler",
    guidance: float = 0.0,
    until: int = 0,
    rounds: int = 5,
) -> Tensor:
    """The latent at levels[until] from which `sample` with the same settings comes to the clean latent `z`.

    Every step is undone by a fixed-point iteration on "one step from here leads there", which the step back that DDIM
    inversion takes is only the first round of. Each round costs one step of sampling; they converge as long as a step
    is small against how fast the velocity changes (with strong guidance: more steps).
    """
    if rounds < 1:
        raise UserError(f"rounds is {rounds}; inversion needs at least 1")
    for index in reversed(range(until, len(levels) - 1)):
        level, following = levels[index], levels[index + 1]
        ratio = (level.signal + level.noise) / (following.signal + following.noise)
        goal, z = z, ratio * z
        for _ in range(rounds):
            there = _step(denoiser, z, index, level, following, labels_B, solver, guidance, None, ()).after
            z = z + ratio * (goal - there)
    return z
