"""Where to compute."""

import torch


def device_of(device: str | torch.device | None) -> torch.device:
    """The device of this name; None is a GPU where there is one.

    Raises:
        ValueError: it is not to be had here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r} is not to be had here: try cpu") from error
    return found


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on `device`, without waiting for what the device has still to do."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
