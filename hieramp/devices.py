"""Where to compute, and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hieramp.errors import UserError

CPU_HALF = ("avx512_bf16", "amx_bf16")  # instructions of CPUs that multiply bfloat16 themselves


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device of this name; None is a GPU where there is one.

    Raises:
        UserError: it is not to be had here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {str(device)!r} is not to be had here: try cpu") from error
    if found.type == "meta":
        raise UserError("device 'meta' computes nothing: try cpu")
    return found


def supports_fast_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies in bfloat16 itself, so that training in it is faster than in float32.

    A CPU without such instructions emulates them, hundreds of times slower; so do GPUs before Ampere (T4, V100), which
    answer that they support it.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in CPU_HALF)


def autocast_bf16_if_fast(device: torch.device) -> torch.autocast:
    """A context that computes in bfloat16 where `device` does so itself, else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=supports_fast_bf16(device))


def flush_denormals() -> None:
    """From here on numbers below 1.2e-38 are 0, in this thread and those that it begins; on CPUs alone.

    They are what is left of exp(2x) in GELU by tanh where x is far below 0, as it often is in a trained transformer,
    and a CPU takes many times as long over them: without them the shipped VAR draws 1.3 to 1.5 times as fast, to the
    same bit (docs/notebook/2026-11-28-denormals.md). It holds for a whole process, so commands and the page call it,
    not the library.
    """
    torch.set_flush_denormal(True)


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """cuDNN tries a few algorithms for each convolution and keeps the fastest: for batches of one shape.

    The choice depends on timing, so it must not last: a set distilled in the same process would depend on it too.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.benchmark_limit
    cudnn.benchmark, cudnn.benchmark_limit = True, 4  # all ten take 5 to 15 s at the start of a run
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.benchmark_limit = before


def prefer_flash() -> None:
    """Leave attention on CUDA to the flash and memory-efficient kernels.

    PyTorch 2.11 and later ask cuDNN first on Hopper, which builds a plan for every new shape, some 0.4 s each, in every
    thread anew: a drawing has up to thirty shapes.
    """
    if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
        torch.backends.cuda.enable_cudnn_sdp(False)


def to_device_async(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on `device`, without waiting for what the device has still to do."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
