"""Part info: the card, what it does in a second, and which attention PyTorch chooses."""

import os

import torch
from torch.nn.attention import SDPBackend

from benchmarks.card.part import Part
from benchmarks.reference import measured_rates


def run(part: Part) -> None:
    versions = {
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": torch.backends.cudnn.version() or 0,
    }
    part.emit("machine", cpus=os.cpu_count() or 0, threads=torch.get_num_threads(), **versions)
    if part.on_card:
        card = torch.cuda.get_device_properties(part.device)
        memory, processors = card.total_memory / 2**30, card.multi_processor_count
        part.emit("card", card=card.name, memory_gib=memory, multiprocessors=processors)
    attention(part)
    with part.attempt("rates"):
        rates = measured_rates(part.device.type, torch.bfloat16, 256 if part.tiny else 8192)
        part.emit("rates, bfloat16", tflops=rates.operations / 1e12, copy_gb_s=rates.num_bytes / 1e9)


def attention(part: Part) -> None:
    """Which kernel the chooser takes, with cuDNN allowed and not."""
    for allowed in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(allowed)
        for dtype in (torch.bfloat16, torch.float32):
            q = torch.randn(2, 4, 16, 64, device=part.device, dtype=dtype)
            mask = torch.zeros(16, 16, device=part.device, dtype=dtype)
            with part.attempt("attention chosen"):
                chosen = [SDPBackend(torch._fused_sdp_choice(q, q, q, m)).name for m in (None, mask)]
                part.emit("attention chosen", cudnn=allowed, dtype=str(dtype), without=chosen[0], with_mask=chosen[1])
    torch.backends.cuda.enable_cudnn_sdp(part.cudnn_attention)
