"""In which precision a device trains."""

from contextlib import nullcontext

import pytest
import torch

from hieramp.devices import autocast_bf16_if_fast, fastest_convolutions, resolve_device, supports_fast_bf16
from hieramp.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("known", "half"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_f": True, "amx_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_a_cpu_needs_instructions_of_its_own(known: dict, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert supports_fast_bf16(CPU) == half
    weight = torch.ones(2, 2)
    with autocast_bf16_if_fast(CPU):
        assert (weight @ weight).dtype == (torch.bfloat16 if half else torch.float32)


def test_an_older_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not supports_fast_bf16(CPU)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_emulates_bfloat16_does_not_have_it(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A T4 says that it supports bfloat16; asked without emulation, it says that it does not."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert supports_fast_bf16(torch.device("cuda")) == native


@pytest.mark.parametrize("name", ["meta", "cdua", "cuda:99", ""])
def test_a_device_that_computes_nothing_here_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"device '{name}'"):
        resolve_device(name)


def test_the_choice_of_convolutions_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.backends.cudnn.benchmark_limit
    with pytest.raises(KeyboardInterrupt):
        interrupted_inside()
    assert not torch.backends.cudnn.benchmark and torch.backends.cudnn.benchmark_limit == before


def interrupted_inside() -> None:
    with fastest_convolutions():
        assert torch.backends.cudnn.benchmark
        raise KeyboardInterrupt
