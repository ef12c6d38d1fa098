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
