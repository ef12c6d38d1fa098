"""HierAmp: generative dataset distillation you can see."""

# What OpenMP reads when torch is loaded.
from hieramp import cores  # isort: skip  # noqa: F401

from hieramp.amplification.settings import OFF, SCHEDULES, Amplification, parse_stages
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.distill import distill
from hieramp.distillation.production import Progress
from hieramp.distillation.recovery import recover
from hieramp.generation.loop import Step
from hieramp.generation.model import Drawing, Model
from hieramp.imageset.reader import ImageSet, open_set
from hieramp.loading import load
from hieramp.official import from_official
from hieramp.settings import Settings
from hieramp.version import __version__

__all__ = [
    "OFF",
    "SCHEDULES",
    "Amplification",
    "DiffusionModel",
    "Drawing",
    "ImageSet",
    "Model",
    "Progress",
    "Settings",
    "Step",
    "__version__",
    "distill",
    "from_official",
    "load",
    "open_set",
    "parse_stages",
    "recover",
]
