"""What to draw, image by image, and up to which scale two images are still the same."""

from dataclasses import dataclass

from hieramp.amplification.settings import Amplification
from hieramp.generation.sampling import Sampling
from hieramp.var.model import VAR

PrefixTokens = tuple[tuple[int, ...], ...]  # tokens of the first scales of one image, scale by scale


@dataclass(frozen=True)
class Request:
    """What to draw: one entry per image."""

    labels: tuple[int, ...]
    seeds: tuple[int, ...]
    amplifications: tuple[Amplification, ...]
    sampling: Sampling
    return_attention: bool = (
        False  # return the attention of every block and head, and the class tokens' logits, as well
    )
    prefix_tokens: tuple[PrefixTokens, ...] = ()  # not drawn but taken from here; as many scales for every image

    def uses_cfg(self, var: VAR) -> bool:
        """Whether there is an unconditional half: for guidance, or for a saliency that is made of it or read there."""
        reads_conditional = bool(var.config.class_token_scales) and not var.config.own_class_tokens
        return self.sampling.guidance > 0 or not reads_conditional

    def prefix_keys(self, scale: int, var: VAR) -> list[object]:
        """Per image, all that it depends on up to and including `scale`, besides the sampling."""
        depth = var.config.depth
        keys: list[object] = []
        per_image = zip(
            self.labels, self.seeds, self.amplifications, self.prefix_tokens or ((),) * len(self.labels), strict=True
        )
        for label, seed, amp, prefix_tokens in per_image:
            strengths = tuple(amp.at(s, var.scales) for s in range(scale + 1))
            how = (amp.mode, amp.resolved_blocks(depth)) if any(strengths) else None
            keys.append((label, seed, strengths, how, amp.read_block(depth), prefix_tokens[: scale + 1]))
        return keys

    def group_by_prefix(self, scale: int, var: VAR) -> list[int]:
        """For every image the first one that is the same as it up to and including `scale`."""
        first: dict[object, int] = {}
        return [first.setdefault(key, i) for i, key in enumerate(self.prefix_keys(scale, var))]
