"""HierAmp: generative dataset distillation you can see."""

from hieramp.amplification.settings import OFF, SCHEDULES, Amplification, parse_stages
from hieramp.generation.loop import Step
from hieramp.generation.model import Drawing, Model
from hieramp.loading import load
from hieramp.official import from_official

__version__ = "0.1.0"
__all__ = [
    "OFF",
    "SCHEDULES",
    "Amplification",
    "Drawing",
    "Model",
    "Step",
    "from_official",
    "load",
    "parse_stages",
]
