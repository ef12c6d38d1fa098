"""python -m benchmarks.training: what a training step takes in float32 and in bfloat16, side by side.

The objectives, optimisers and batch sizes of a preset on random images; the precisions take turns in one process.
"""

import argparse
import statistics
import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.measuring import in_turns
from hieramp.classifier import Classifier
from hieramp.devices import resolve_device, supports_fast_bf16
from hieramp.training.classifier import ClassifierObjective
from hieramp.training.loop import Objective
from hieramp.training.presets import PRESETS, Preset
from hieramp.training.recipe import Recipe, build_optimizers
from hieramp.training.tokens import Tokenizer
from hieramp.training.var import VARObjective
from hieramp.training.vqvae import VQVAEObjective
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def objectives(preset: Preset) -> dict[str, tuple[Objective, Recipe]]:
    """The trainings of a preset that take most of its time, each untrained, with its recipe."""
    var = VAR(replace(preset.var, num_classes=preset.classifier.num_classes))
    var.initialize()
    classifier = Classifier(preset.classifier).to(memory_format=torch.channels_last)
    return {
        "vqvae": (VQVAEObjective(VQVAE(preset.vqvae)), preset.vqvae_recipe),
        "var": (VARObjective(var, Tokenizer(VQVAE(preset.vqvae))), preset.var_recipe),
        "classifier": (ClassifierObjective(classifier), preset.classifier_recipe),
    }


class Stepper:
    """Takes training steps of an objective on one batch of noise."""

    def __init__(self, objective: Objective, recipe: Recipe, image_size: int, device: torch.device) -> None:
        self.objective, self.device = objective.to(device).train(), device
        self.optimizers = build_optimizers(objective, recipe, objective.matrices())
        shape = (recipe.batch_size, 3, image_size, image_size)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self.labels = torch.randint(0, 10, (recipe.batch_size,), device=device)

    def step(self, dtype: torch.dtype) -> float:
        """Seconds of one step, forward, backward and the optimisers'."""
        started = time.perf_counter()
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            losses: dict[str, Tensor] = self.objective(self.images, self.labels)
        losses["loss"].backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.objective.after_step(0.0)
        losses["loss"].item()  # waits for the device
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cifar10-small")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device")
    args = parser.parse_args()
    torch.manual_seed(0)
    device, preset = resolve_device(args.device), PRESETS[args.preset]
    native = "its own" if supports_fast_bf16(device) else "emulated"
    print(f"preset {args.preset}, {device}, {torch.get_num_threads()} threads, {args.rounds} rounds, medians;")
    print(f"bfloat16 is {native} here\n\n| part | batch | float32 | bfloat16 | float32 over bfloat16 |")
    print("| --- | --- | --- | --- | --- |")
    for part, (objective, recipe) in objectives(preset).items():
        stepper = Stepper(objective, recipe, preset.vqvae.image_size, device)
        seconds = in_turns({name: partial(stepper.step, dtype) for name, dtype in PRECISIONS.items()}, args.rounds)
        single, half = (statistics.median(seconds[name]) for name in PRECISIONS)
        print(f"| {part} | {recipe.batch_size} | {single:.3f} s | {half:.3f} s | {single / half:.2f} |", flush=True)


if __name__ == "__main__":
    main()
