"""`python -m hieramp` with one more preset, small enough for a test; run as a script or imported for PRESET."""

import sys

import torch

from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, DiTConfig, VARConfig, VQVAEConfig
from hieramp.training.presets import PRESETS, Preset
from hieramp.training.recipe import Recipe

SIDES = (1, 2, 3, 4, 6, 8)
PRESET = Preset(
    vqvae=VQVAEConfig(
        sides=SIDES, num_codes=16, code_dim=8, channels=32, multipliers=(1, 1), num_res_blocks=1, patch=2
    ),
    var=VARConfig(sides=SIDES, num_codes=16, code_dim=8, depth=2, width=32, num_heads=2, last_passes=4),
    classifier=ClassifierConfig(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8)),
    dit=DiTConfig(depth=2, width=32, num_heads=2),
    vqvae_recipe=Recipe(16, 10, 2e-3, "muon"),
    var_recipe=Recipe(16, 8, 2e-3, "muon"),
    class_token_recipe=Recipe(16, 4, 2e-3),
    classifier_recipe=Recipe(16, 12, 2e-3, "muon"),
    dit_recipe=Recipe(16, 8, 2e-3, "muon"),
)
PRESET_NAME = "tiny"
PRESETS[PRESET_NAME] = PRESET

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
