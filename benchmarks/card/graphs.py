"""Recorded scales switched on and off: the one place of this folder that knows the names of generation/captured.py."""

from dataclasses import replace

from hieramp import Model
from hieramp.generation.captured import CudaGraphCache, CudaRecorder


def plain(model: Model) -> Model:
    """The same weights, every operation launched from Python."""
    return replace(model, captured=None)


def recorded(model: Model) -> Model:
    """The same weights, every scale recorded at the first drawing of a size; plainly on a CPU, which has no graphs."""
    if model.device.type != "cuda":
        return plain(model)
    return replace(model, captured=CudaGraphCache(lambda: CudaRecorder(model.device), after=0))


def is_recorded(model: Model) -> bool:
    """Whether drawings were recorded, and none of the recordings was given up."""
    return model.captured is not None and not any(buffers.is_eager for buffers in model.captured._buffers.values())
