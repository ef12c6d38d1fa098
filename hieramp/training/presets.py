"""Presets: the sizes of the five networks and the recipe of each, under one name.

What a preset reached is told in the card of the model that was trained with it (assets/*/README.md).
"""

from dataclasses import dataclass, replace

from hieramp.config import ClassifierConfig, DiTConfig, VARConfig, VQVAEConfig
from hieramp.scales import OFFICIAL_SIDES
from hieramp.training.recipe import Recipe
from hieramp.training.vqvae import LookOptions

PIXELS = LookOptions()
# VQGAN's: a network that knows ImageNet, and a discriminator for the second half of the run
PHOTOS = LookOptions(perceptual="timm/vgg16.tv_in1k", adversarial=0.1, adversarial_from=0.5)


@dataclass(frozen=True)
class Preset:
    vqvae: VQVAEConfig
    var: VARConfig  # num_classes is replaced by the data's, as the classifier's is
    classifier: ClassifierConfig
    dit: DiTConfig  # so are its classes, and the size of the VQ-VAE's latents
    vqvae_recipe: Recipe
    var_recipe: Recipe
    class_token_recipe: Recipe
    classifier_recipe: Recipe
    dit_recipe: Recipe
    look: LookOptions = PIXELS  # of the VQ-VAE's reconstructions, besides their pixels


MIN_STEPS = 100  # of a part: fewer teach it nothing, however small the folder is
SMALL_SIDES = (1, 2, 3, 4, 6, 8)

PRESETS = {
    # 32×32, the ten official scales: meant for one H100-class GPU and half an hour for all parts, which has not been
    # run yet; sized so that all weights, 22 MB of ResNet-18 among them, stay under 64 MB in float16
    "cifar10": Preset(
        vqvae=VQVAEConfig(channels=64, multipliers=(1, 2), num_codes=4096, code_dim=32, sides=OFFICIAL_SIDES),
        var=VARConfig(depth=8, width=384, num_heads=6, ffn_ratio=3.5, shared_adaln=True),
        classifier=ClassifierConfig(),
        dit=DiTConfig(depth=12, width=384, num_heads=6, dropout=0.1),
        vqvae_recipe=Recipe(256, 40, 2e-3, "muon", hold=0.4, decay="linear"),
        var_recipe=Recipe(256, 100, 2e-3, "muon", hold=0.3, decay="linear", final=0.02, shift=2),
        class_token_recipe=Recipe(256, 5, 4e-3, weight_decay=0.05, shift=2),
        classifier_recipe=Recipe(256, 30, 2e-3, "muon", hold=0.2, decay="linear"),
        dit_recipe=Recipe(512, 150, 2e-3, "muon", hold=0.4, decay="linear", final=0.02),
    ),
    # 32×32, six scales, 130 tokens: two CPU cores, a few hours
    "cifar10-small": Preset(
        vqvae=VQVAEConfig(
            sides=SMALL_SIDES, num_codes=1024, code_dim=16, channels=64, multipliers=(1, 2), num_res_blocks=1, patch=2
        ),
        var=VARConfig(sides=SMALL_SIDES, num_codes=1024, code_dim=16, depth=6, width=256, num_heads=4, last_passes=4),
        classifier=ClassifierConfig(layers=(1, 1, 1, 1), channels=(64, 256, 256, 256), stem="half"),
        dit=DiTConfig(depth=8, width=256, num_heads=4),
        vqvae_recipe=Recipe(64, 2, 2e-3, "muon", hold=0.4, decay="linear"),
        var_recipe=Recipe(64, 3, 2e-3, "muon", hold=0.3, decay="linear", final=0.02),
        class_token_recipe=Recipe(64, 1, 4e-3, weight_decay=0.05, shift=2),
        classifier_recipe=Recipe(256, 10, 2e-3, "muon", hold=0.2, decay="linear"),
        dit_recipe=Recipe(64, 12, 2e-3, "muon", hold=0.4, decay="linear", final=0.02),
    ),
    # 64×64 photographs: a VQ-VAE that halves three times, 130 tokens. By count (docs/training.md), not yet trained
    "photos64-small": Preset(
        vqvae=VQVAEConfig(
            sides=SMALL_SIDES,
            num_codes=4096,
            code_dim=32,
            channels=64,
            multipliers=(1, 2, 2),
            num_res_blocks=1,
            patch=2,
        ),
        var=VARConfig(sides=SMALL_SIDES, num_codes=4096, code_dim=32, depth=12, width=384, num_heads=6, last_passes=4),
        classifier=ClassifierConfig(image_size=64, layers=(2, 2, 2, 2), channels=(64, 128, 256, 512), stem="half"),
        dit=DiTConfig(depth=12, width=384, num_heads=6, dropout=0.1),
        vqvae_recipe=Recipe(128, 20, 1e-3, "muon", hold=0.4, decay="linear"),
        var_recipe=Recipe(256, 100, 2e-3, "muon", hold=0.3, decay="linear", final=0.02, shift=4),
        class_token_recipe=Recipe(256, 5, 4e-3, weight_decay=0.05),
        classifier_recipe=Recipe(256, 30, 2e-3, "muon", hold=0.2, decay="linear"),
        dit_recipe=Recipe(256, 150, 2e-3, "muon", hold=0.4, decay="linear", final=0.02),
        look=PHOTOS,
    ),
    # 64×64 photographs: a VQ-VAE that halves twice, the ten official scales, 680 tokens
    "photos64": Preset(
        vqvae=VQVAEConfig(channels=96, multipliers=(1, 2), num_codes=4096, code_dim=32, sides=OFFICIAL_SIDES, patch=2),
        var=VARConfig(depth=12, width=512, num_heads=8, shared_adaln=True),
        classifier=ClassifierConfig(image_size=64, layers=(2, 2, 2, 2), channels=(64, 128, 256, 512), stem="half"),
        dit=DiTConfig(depth=12, width=512, num_heads=8, dropout=0.1),
        vqvae_recipe=Recipe(128, 20, 1e-3, "muon", hold=0.4, decay="linear"),
        var_recipe=Recipe(256, 100, 1.5e-3, "muon", hold=0.3, decay="linear", final=0.02, shift=4),
        class_token_recipe=Recipe(256, 5, 4e-3, weight_decay=0.05),
        classifier_recipe=Recipe(256, 30, 2e-3, "muon", hold=0.2, decay="linear"),
        dit_recipe=Recipe(256, 150, 2e-3, "muon", hold=0.4, decay="linear", final=0.02),
        look=PHOTOS,
    ),
    # the official geometry, with the recipe of the authors' release for the transformer
    "imagenet256": Preset(
        vqvae=VQVAEConfig(),
        var=VARConfig(),
        classifier=ClassifierConfig(image_size=224, stem="imagenet"),
        dit=DiTConfig(depth=12, width=768, num_heads=12),
        vqvae_recipe=Recipe(256, 16, 1e-4, betas=(0.5, 0.9), ema=0.9999),
        var_recipe=Recipe(768, 200, 3e-4, weight_decay=0.05, decay="linear", ema=0.9999),
        class_token_recipe=Recipe(768, 5, 3e-4, weight_decay=0.05, decay="linear"),
        classifier_recipe=Recipe(1024, 90, 1e-3, weight_decay=0.05),
        dit_recipe=Recipe(256, 80, 1e-4, hold=1.0, ema=0.9999),  # of DiT-B/2
        look=PHOTOS,
    ),
}


def _with_floor(preset: Preset) -> Preset:
    names = ("vqvae_recipe", "var_recipe", "class_token_recipe", "classifier_recipe")
    return replace(preset, **{name: replace(getattr(preset, name), min_steps=MIN_STEPS) for name in names})


PRESETS = {name: _with_floor(preset) for name, preset in PRESETS.items()}
