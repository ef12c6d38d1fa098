"""Part profile: which kernels a drawing and training steps launch, dearest first, as tables in text files."""

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.card.graphs import plain
from benchmarks.card.models import draw, stand_in
from benchmarks.card.part import Part
from benchmarks.card.train import stepper
from hieramp import SCHEDULES

ROWS = 60  # of a table


def run(part: Part) -> None:
    with part.attempt("profile of a drawing"):
        model = plain(stand_in(part, class_tokens=True).to(part.device, torch.bfloat16))
        for batch in (1, 2) if part.tiny else (1, 25):
            draw(model, batch, SCHEDULES["all"])
            with profile(activities=activities(part)) as found:
                draw(model, batch, SCHEDULES["all"]).sum().item()
            write(part, found, "draw", f"batch {batch}")
        del model
    torch.backends.cudnn.benchmark = True
    for of in ("var",) if part.tiny else ("var", "vqvae"):
        part.forget()
        if part.left < 10 and not part.tiny:
            return
        with part.attempt(f"profile of training, {of}"):
            _, step = stepper(part, of)
            step(), step()
            with profile(activities=activities(part)) as found:
                step().item()
            write(part, found, "train", of)


def activities(part: Part) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if part.on_card else [])]


def write(part: Part, found: profile, kind: str, title: str) -> None:
    order = "self_device_time_total" if part.on_card else "self_cpu_time_total"
    table = found.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=90)
    with (part.folder / f"profile_{kind}.txt").open("a") as file:
        file.write(f"{title}\n{table}\n")
    events = found.events() or []
    kernels = [event for event in events if str(event.device_type).endswith("CUDA")] if part.on_card else list(events)
    took = sum(e.self_device_time_total if part.on_card else e.self_cpu_time_total for e in kernels) / 1e3
    part.emit(f"profile, {kind}, {title}", kernels=len(kernels), total_ms=took)
