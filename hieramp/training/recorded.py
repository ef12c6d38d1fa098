"""Training steps as CUDA graphs: forward, backward and clipping of a step are one launch instead of some thousands.

A small transformer is launched slower than it is computed: 72 ms of the host for 18 ms of an H200
(docs/notebook/2026-11-27-first-card.md). Optimisers and averages stay outside, so that rates may change at every step.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor, nn

from hieramp.errors import UserError
from hieramp.generation.captured import Recorder, poison

ComputeGradients = Callable[[Tensor, Tensor], dict[str, Tensor]]  # (images, labels) to losses; leaves gradients
ERROR = 0.02  # of the gradient's norm: sums of floats in another order


class RecordedGradients:
    """`compute` on a batch of one shape, recorded."""

    def __init__(
        self,
        compute: ComputeGradients,
        parameters: Iterable[nn.Parameter],
        recorder: Recorder,
        images: Tensor,
        labels: Tensor,
    ) -> None:
        self.parameters = list(parameters)
        self.images, self.labels = images.clone(), labels.clone()
        self.names: tuple[str, ...] = ()

        def run() -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
            for parameter in self.parameters:
                parameter.grad = None  # so that the gradients lie where the recording puts them
            losses = compute(self.images, self.labels)
            self.names = tuple(losses)
            values = tuple(value.detach() for value in losses.values())
            return values, tuple(parameter.grad for parameter in self.parameters)

        self._replay = recorder.record(run)

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The losses; the parameters have their gradients. Both are overwritten by the next call."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        losses, gradients = self._replay()
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return dict(zip(self.names, losses, strict=True))

    def poison(self) -> None:
        """Spoil what the last call left, so that a recording that computes nothing is found out."""
        poison(tuple(parameter.grad for parameter in self.parameters))


class StepRecorder:
    """Computes gradients by a recording for each variant of the step, or plainly where recording does not work."""

    def __init__(
        self,
        compute: ComputeGradients,
        module: nn.Module,
        new_recorder: Callable[[], Recorder],
        reseed: Callable[[], object],
    ) -> None:
        """`reseed` puts the random numbers of the step in hand back to their beginning."""
        self.compute, self.new_recorder, self.reseed = compute, new_recorder, reseed
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.variant: Hashable = None
        self.recorded: RecordedGradients | None = None
        self.is_plain = False

    def __call__(self, images: Tensor, labels: Tensor, variant: Hashable) -> dict[str, Tensor]:
        """Losses and gradients of the batch; a new `variant` of the step is recorded first.

        Raises:
            UserError: the step cannot be recorded. Nothing can be computed after that: the failed recording keeps
                CUDA's random numbers.
        """
        if not self.is_plain and (self.recorded is None or self.variant != variant):
            self.recorded, self.variant = None, variant
            try:
                self.recorded = self._record(images, labels)
            except RuntimeError as error:
                why = str(error).splitlines()[0]
                raise UserError(
                    f"a training step cannot be recorded as a CUDA graph ({why}): add --no-cuda-graphs, and --resume "
                    "to go on with an unfinished run"
                ) from error
            self.reseed()
        if self.recorded is None or images.shape != self.recorded.images.shape:
            return self.compute(images, labels)
        return self.recorded(images, labels)

    def _record(self, images: Tensor, labels: Tensor) -> RecordedGradients | None:
        """A recording that computes what the plain code does, on a batch that it was not recorded with."""
        # a recorder for each: the memory of a recording that was let go cannot be taken up again
        recorder = self.new_recorder()
        recorded = RecordedGradients(self.compute, self.parameters, recorder, 255 - images, labels.flip(0))
        recorded.poison()
        self.reseed()
        recorded(images, labels)
        found = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        self.reseed()
        self.compute(images, labels)
        gap = torch.zeros((), device=images.device)
        norm = torch.zeros((), device=images.device)
        for parameter, other in zip(self.parameters, found, strict=True):
            if (parameter.grad is None) != (other is None):
                self._give_up("it leaves other gradients")
                return None
            if parameter.grad is not None and other is not None:
                gap += (parameter.grad - other).square().sum()
                norm += parameter.grad.square().sum()
        for parameter in self.parameters:
            parameter.grad = None
        if not gap <= ERROR**2 * norm:  # so that NaN counts as wrong
            self._give_up(f"its gradients are {(gap / norm).sqrt().item():.2g} of their norm off")
            return None
        return recorded

    def _give_up(self, why: str) -> None:
        self.is_plain, self.recorded = True, None
        warnings.warn(f"training steps are not recorded as a CUDA graph, and take longer: {why}", stacklevel=2)
