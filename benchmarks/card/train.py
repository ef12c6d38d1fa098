"""Part train: a step of every objective at its preset's size, on random images."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.card.part import Part
from hieramp.classifier import Classifier
from hieramp.training.classifier import ClassifierObjective
from hieramp.training.loop import Objective
from hieramp.training.presets import PRESETS, Preset
from hieramp.training.recipe import Recipe, build_optimizers
from hieramp.training.tokens import Tokenizer
from hieramp.training.var import ClassTokenObjective, VARObjective, only_class_tokens
from hieramp.training.vqvae import VQVAEObjective
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

BATCH = 256
DEFAULT_DEPTH = 12  # blocks that the default model is to have (docs/card.md)
Step = Callable[[], Tensor]


def run(part: Part) -> None:
    torch.backends.cudnn.benchmark = True
    measure(part, "var", "var")
    measure(part, "vqvae", "vqvae")
    with part.attempt("var, cuDNN's attention"):
        torch.backends.cuda.enable_cudnn_sdp(True)
        measure(part, "var, cuDNN's attention", "var")
        torch.backends.cuda.enable_cudnn_sdp(part.cudnn_attention)
    for name, of in (("var, compiled", "var"), ("default model's var, compiled", "default")):
        if part.left > 35 or part.tiny:  # compiling takes up to half a minute
            measure(part, name, of, is_compiled=True)
    for of in ("default", "classifier", "class-tokens"):
        if part.left > 8 or part.tiny:
            measure(part, of, of)


def objective_of(part: Part, of: str) -> tuple[Objective, Recipe]:
    """An untrained objective of the preset cifar10, or of the default model; tiny networks where the part is tiny."""
    preset = PRESETS["cifar10-small" if part.tiny or of == "default" else "cifar10"]
    if part.tiny:
        preset = shrunk(preset)
    elif of == "default":
        preset = replace(preset, var=replace(preset.var, depth=DEFAULT_DEPTH))
    torch.manual_seed(0)
    config = replace(preset.var, num_classes=10)
    if of in ("var", "default"):
        var = VAR(config)
        var.initialize()
        return VARObjective(var, Tokenizer(VQVAE(preset.vqvae), shift=2)), preset.var_recipe
    if of == "class-tokens":
        scales = tuple(range(len(config.sides)))
        var = VAR(replace(config, class_token_scales=scales, read_only_class_tokens=True))
        var.initialize()
        only_class_tokens(var)
        return ClassTokenObjective(var, Tokenizer(VQVAE(preset.vqvae)), "kept"), preset.class_token_recipe
    if of == "vqvae":
        return VQVAEObjective(VQVAE(preset.vqvae)), preset.vqvae_recipe
    network = Classifier(replace(preset.classifier, num_classes=10)).to(memory_format=torch.channels_last)
    return ClassifierObjective(network), preset.classifier_recipe


def shrunk(preset: Preset) -> Preset:
    return replace(
        preset,
        vqvae=replace(preset.vqvae, channels=32, num_codes=64),
        var=replace(preset.var, depth=2, width=64, num_heads=2, num_codes=64),
        classifier=replace(preset.classifier, channels=(8, 8, 8, 8)),
    )


def stepper(part: Part, of: str, is_compiled: bool = False) -> tuple[Objective, Step]:
    """The objective, and a training step of it as training/loop.py takes it, returning the loss."""
    objective, recipe = objective_of(part, of)
    objective.to(part.device).train()
    if is_compiled:
        objective.compile_parts("inductor" if part.on_card else "aot_eager")
    optimizers = build_optimizers(objective, recipe, objective.matrices())
    batch, size = (4 if part.tiny else BATCH), 32
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=part.device)
    labels = torch.randint(0, 10, (batch,), device=part.device)

    def step() -> Tensor:
        with torch.autocast(part.device.type, torch.bfloat16, enabled=part.on_card):
            losses = objective(images, labels)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        objective.after_step(0.5)
        return losses["loss"].detach()

    return objective, step


def measure(part: Part, name: str, of: str, is_compiled: bool = False) -> None:
    """The first step (libraries set themselves up), one alone, the host's share of it, and many one after the other."""
    part.forget()
    with part.attempt(name):
        _, step = stepper(part, of, is_compiled)
        rounds = 2 if part.tiny else 6
        part.start_peak()
        first, second = part.seconds(step), part.seconds(step)
        asked, whole = [], []
        for _ in range(rounds):
            part.wait()
            started = time.perf_counter()
            loss = step()
            asked.append(time.perf_counter() - started)
            part.wait()
            whole.append(time.perf_counter() - started)

        def several() -> None:
            for _ in range(rounds):
                step()

        part.check(
            f"step of {name}",
            bool(loss.isfinite()),
            step_ms=1e3 * part.seconds(several) / rounds,
            alone_ms=1e3 * statistics.median(whole),
            host_ms=1e3 * statistics.median(asked),
            first_s=first,
            second_s=second,
            loss=loss.item(),
            **part.peak_gib(),
        )
