"""ZeroGPU of Hugging Face Spaces: `gpu` borrows a GPU for one call there, and does nothing anywhere else.

Import this before torch, as the `spaces` package asks.
"""

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    import spaces
except ImportError:
    spaces = None


def gpu(function: F) -> F:
    return function if spaces is None else spaces.GPU(function)
