"""ZeroGPU of Hugging Face Spaces: `gpu` borrows a GPU for one call there, and does nothing anywhere else.

Import this before torch, as the `spaces` package asks. What it decorates must be a function of a module: for each a
worker process is kept, and Spaces looks for them when the page starts.
"""

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    import spaces
    from spaces.config import Config

    on_zero_gpu = bool(Config.zero_gpu)  # whether there is a GPU only inside of what `gpu` decorates
except ImportError:
    spaces, on_zero_gpu = None, False


def gpu(seconds: Callable[..., int]) -> Callable[[F], F]:
    """The decorator of a kind of work; `seconds` estimates from the arguments of a call how long it takes."""
    return (lambda function: function) if spaces is None else spaces.GPU(duration=seconds)
