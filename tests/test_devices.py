"""In which precision a device trains."""

import pytest
import torch

from hieramp.devices import half_where_native, has_half

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
    assert has_half(CPU) == half
    weight = torch.ones(2, 2)
    with half_where_native(CPU):
        assert (weight @ weight).dtype == (torch.bfloat16 if half else torch.float32)


def test_an_older_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_half(CPU)


def test_gpus_have_it() -> None:
    assert has_half(torch.device("cuda"))
