"""Does a saliency map follow its picture? A test that a fixed pattern, or a map of the class, cannot pass.

Blurring where a map is high must cost a classifier more than blurring where other rankings are high: the map of another
picture of the class, chance, a centre prior, the mean of all maps. Keeping only those places must leave it more.
Deletion and insertion are those of RISE (arXiv 1806.07421), at one share; the same pictures are judged every time, so
differences are paired.

Letters: N pictures, L positions of a scale, K classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.amplification.saliency import guidance_saliency, num_salient, salient_positions
from hieramp.data import to_signed
from hieramp.generation.model import Model

FAMILIES = ("class tokens", "guidance")  # where a map comes from
RIVALS = ("another picture", "random", "centre", "average map")
CEILINGS = ("attribution", "CAM")  # the judge's own: a map cannot be expected to know them better
BATCH = 50
Judge = Callable[[Tensor], Tensor]  # pictures in [0, 1], (N, 3, H, W), to class logits (N, K)


@dataclass(frozen=True)
class Pictures:
    """Pictures with their tokens and the classes they are of, all on the CPU."""

    images: Tensor  # uint8 (N, 3, H, W)
    labels: Tensor  # (N,)
    tokens: tuple[Tensor, ...]  # per scale (N, L)


@torch.no_grad()
def with_tokens(model: Model, images_NCHW: Tensor, labels_N: Tensor) -> Pictures:
    """Real pictures, uint8, and the tokens that the VQ-VAE makes of them."""
    parts = [model.vqvae.encode(to_signed(part.to(model.device))) for part in images_NCHW.split(BATCH)]
    return Pictures(images_NCHW, labels_N, tuple(torch.cat(scale).cpu() for scale in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Maps:
    """What a model finds salient in pictures, by family; and whether its class tokens name them."""

    by_family: dict[str, tuple[Tensor, ...]]  # per scale (N, L), each row sums to 1
    named: tuple[float, ...] | None  # per scale the share of pictures whose class the class token finds


@torch.no_grad()
def maps_of(model: Model, pictures: Pictures) -> Maps:
    """The maps that the model has while it draws these tokens, with the label hidden from class tokens of their own.

    Where the finest scale is drawn in several passes they are the first one's, which is what is amplified.
    """
    var, parts, named = model.var, [], []
    for rows in torch.arange(len(pictures.labels)).split(BATCH):
        labels = pictures.labels[rows].to(model.device)
        inputs = model.vqvae.teacher_input([tokens[rows].to(model.device) for tokens in pictures.tokens])
        told = var(labels, inputs, watch=var.config.watched_block)
        untold = var(torch.full_like(labels, var.null_label), inputs, watch=var.config.watched_block)
        found: dict[str, list[Tensor]] = {"guidance": []}
        for span in var.scales.spans:
            found["guidance"].append(guidance_saliency(told.logits_BLV[:, span], untold.logits_BLV[:, span]).cpu())
        seeing = untold if var.config.own_class_tokens else told
        if seeing.weights_BHSL is not None and len(var.config.class_token_scales) == len(var.scales):
            mean_BSL = seeing.weights_BHSL.mean(1)
            found["class tokens"] = [mean_BSL[:, s, span].cpu() for s, span in enumerate(var.scales.spans)]
        if untold.class_logits_BSK is not None:
            named.append((untold.class_logits_BSK.argmax(-1) == labels[:, None]).float().cpu())
        parts.append(found)
    by_family = {
        family: tuple(torch.cat(scale) for scale in zip(*(part[family] for part in parts), strict=True))
        for family in FAMILIES
        if family in parts[0]
    }
    return Maps(by_family, tuple(torch.cat(named).mean(0).tolist()) if named else None)


def fixed_share(maps_NL: Tensor) -> float:
    """The share of the maps' variance that is one pattern for all pictures, in [0, 1]; uniform maps have none.

    Of the squared distances from uniform, what the mean map accounts for.
    """
    away_NL = maps_NL.double() - 1 / maps_NL.shape[1]
    total = away_NL.square().mean()
    within_rounding = total < (1e-6 / maps_NL.shape[1]) ** 2
    return 0.0 if within_rounding else float(away_NL.mean(0).square().mean() / total)


def centre_prior(side: int) -> Tensor:
    """A map that is highest in the middle, (side²,): what a photographer's habit alone would say."""
    at = torch.arange(side) - (side - 1) / 2
    return (-(at[:, None].square() + at[None].square()) / (side / 2) ** 2).exp().flatten()


def blurred(images_BCHW: Tensor) -> Tensor:
    """The images without detail: a Gaussian of an eighth of their side."""
    from torchvision.transforms.v2.functional import gaussian_blur  # takes seconds to load

    size = images_BCHW.shape[-1]
    kernel = size // 4 * 2 + 1
    return gaussian_blur(images_BCHW, [kernel, kernel], [size / 8, size / 8])


def delete(images_BCHW: Tensor, chosen_BL: Tensor, blurred_BCHW: Tensor | None = None) -> Tensor:
    """Replace the chosen positions of an n×n grid by the blur of the image; `blurred_BCHW` is that, where known."""
    side = int(chosen_BL.shape[1] ** 0.5)
    grid = chosen_BL.view(-1, 1, side, side).float()
    mask = F.interpolate(grid, size=images_BCHW.shape[-2:], mode="nearest")
    return torch.lerp(images_BCHW, blurred(images_BCHW) if blurred_BCHW is None else blurred_BCHW, mask)


def another_of_class(labels_N: Tensor) -> Tensor:
    """For each picture the next of its class, (N,); the only one of a class stands for itself."""
    other_N = torch.arange(len(labels_N))
    for label in labels_N.unique():
        mine = (labels_N == label).nonzero()[:, 0]
        other_N[mine] = mine.roll(1)
    return other_N


@torch.no_grad()
def log_chances(judge: Judge, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
    """The log probability that a judge gives to each picture's class, in nats, (N,)."""
    parts = [
        judge(images).float().log_softmax(-1).cpu().gather(1, labels[:, None])[:, 0]
        for images, labels in zip(images_NCHW.split(2 * BATCH), labels_N.split(2 * BATCH), strict=True)
    ]
    return torch.cat(parts)


@torch.no_grad()
def accuracy_of(judge: Judge, pictures: Pictures) -> float:
    """The share of pictures that a judge names right."""
    guessed = torch.cat([judge(images / 255).argmax(-1).cpu() for images in pictures.images.split(2 * BATCH)])
    return float((guessed == pictures.labels).float().mean())


def attribution(judge: Judge, pictures: Pictures, steps: int = 6) -> Tensor:
    """What each pixel does for a judge's log probability, in nats, (N, H, W): it sums to picture less blurred picture.

    Integrated gradients (arXiv 1703.01365) from the blurred picture to the picture.
    """
    parts = []
    for images, labels in zip(pictures.images.split(BATCH), pictures.labels.split(BATCH), strict=True):
        whole = images.float() / 255
        nothing = blurred(whole)
        sums = torch.zeros_like(whole)
        for step in range(steps):
            between = torch.lerp(nothing, whole, (step + 0.5) / steps).requires_grad_()
            with torch.enable_grad():
                chances = judge(between).float().log_softmax(-1).cpu().gather(1, labels[:, None])
                sums += torch.autograd.grad(chances.sum(), between)[0]
        parts.append((sums / steps * (whole - nothing)).sum(1))
    return torch.cat(parts)


def class_activation(judge: Judge, network: nn.Module, pictures: Pictures) -> Tensor | None:
    """Where the network behind a judge finds the class of each picture, (N, H, W): its class activation map, in logits.

    Activation times gradient at the last feature map of more than one position, summed over channels (HiResCAM,
    arXiv 2011.08891), enlarged bilinearly. Where a network averages that map and classifies linearly, it is CAM
    (arXiv 1512.04150) up to a constant. None for a network that ends without such a map, as transformers do.
    """
    last: list[Tensor] = []

    def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 3 or output.shape[1:].numel() == output.shape[1]:
            return  # nothing that has positions
        is_map = output.ndim == 4 and type(module) is not nn.LayerNorm  # else they are tokens, or channels come last
        last[:] = [output] if is_map else []

    hooks = [module.register_forward_hook(keep) for module in network.modules() if not list(module.children())]
    parts = []
    try:
        for images, labels in zip(pictures.images.split(BATCH), pictures.labels.split(BATCH), strict=True):
            last.clear()
            with torch.enable_grad():
                logits_B = judge((images / 255).requires_grad_()).float().cpu().gather(1, labels[:, None])
                if not last:
                    return None
                gradient_BCHW = torch.autograd.grad(logits_B.sum(), last[0])[0]
            found_BHW = (last[0].detach().float() * gradient_BCHW.float()).sum(1).cpu()
            parts.append(F.interpolate(found_BHW[:, None], images.shape[-2:], mode="bilinear")[:, 0])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(parts)


def ceilings_of(judge: Judge, pictures: Pictures, network: nn.Module | None = None) -> dict[str, Tensor]:
    """What a judge itself goes by, (N, H, W) each, by the names in CEILINGS; no CAM without its network."""
    found = {"attribution": attribution(judge, pictures)}
    cam_NHW = None if network is None else class_activation(judge, network, pictures)
    return found if cam_NHW is None else found | {"CAM": cam_NHW}


def on_grid(x_NHW: Tensor, side: int) -> Tensor:
    """Pixels to the mean of each of side × side positions, (N, side²)."""
    return F.adaptive_avg_pool2d(x_NHW[:, None], side).flatten(1)


@dataclass(frozen=True)
class Effect:
    """What a ranking of positions did to a judge, picture by picture, in nats: more is better, both times."""

    deletion: Tensor  # (N,): fall when the first positions are blurred
    insertion: Tensor  # (N,): rise when all but the first positions stay blurred

    def over(self, other: "Effect") -> dict[str, tuple[float, float]]:
        """By how much this one is better, with the standard error of the paired differences."""
        return {
            "deletion": mean_and_error(self.deletion - other.deletion),
            "insertion": mean_and_error(self.insertion - other.insertion),
        }

    def means(self) -> dict[str, float]:
        return {"deletion": float(self.deletion.mean()), "insertion": float(self.insertion.mean())}


def mean_and_error(x_N: Tensor) -> tuple[float, float]:
    return float(x_N.mean()), float(x_N.std() / len(x_N) ** 0.5)


def effects(judge: Judge, pictures: Pictures, rankings: Mapping[str, Tensor], rho: float) -> dict[str, Effect]:
    """The effect of each ranking (N, L) of the positions of one scale, at the share `rho`."""
    images, labels = pictures.images.float() / 255, pictures.labels
    nothing = blurred(images)
    whole_N, nothing_N = log_chances(judge, images, labels), log_chances(judge, nothing, labels)
    found = {}
    for name, scores_NL in rankings.items():
        count_N = torch.full((len(scores_NL),), num_salient(rho, scores_NL.shape[1]))
        chosen_NL = salient_positions(scores_NL, count_N)
        found[name] = Effect(
            whole_N - log_chances(judge, delete(images, chosen_NL, nothing), labels),
            log_chances(judge, delete(images, ~chosen_NL, nothing), labels) - nothing_N,
        )
    return found


def rivals_of(maps_NL: Tensor, labels_N: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The rankings that a map has to beat, (N, L) each, by their names in RIVALS."""
    count, positions = maps_NL.shape
    generator = torch.Generator().manual_seed(seed)
    return {
        "another picture": maps_NL[another_of_class(labels_N)],
        "random": torch.rand(count, positions, generator=generator),
        "centre": centre_prior(round(positions**0.5)).expand(count, -1),
        "average map": maps_NL.mean(0).expand(count, -1),
    }


def judged(
    judge: Judge,
    pictures: Pictures,
    maps: Mapping[str, tuple[Tensor, ...]],
    scale: int,
    rho: float,
    ceilings: Mapping[str, Tensor],
) -> dict[str, Any]:
    """All of the test at one scale, for one judge: means of every ranking, and each family against its rivals.

    `ceilings` are the judge's own maps, (N, H, W) each (`ceilings_of`).
    """
    rankings: dict[str, Tensor] = {}
    for family, per_scale in maps.items():
        rivals = rivals_of(per_scale[scale], pictures.labels)
        rankings[family] = per_scale[scale]
        for rival in ("another picture", "average map"):
            rankings[f"{family}, {rival}"] = rivals[rival]
        rankings |= {rival: rivals[rival] for rival in ("random", "centre")}
    side = round(next(iter(maps.values()))[scale].shape[1] ** 0.5)
    rankings |= {name: on_grid(ceiling_NHW, side) for name, ceiling_NHW in ceilings.items()}
    found = effects(judge, pictures, rankings, rho)
    against = {
        family: {rival: found[family].over(found.get(f"{family}, {rival}") or found[rival]) for rival in RIVALS}
        for family in maps
    }
    return {"means": {name: effect.means() for name, effect in found.items()}, "over": against}


def share_of_passes(m_NL: Tensor, passes: Sequence[Tensor]) -> list[float]:
    """How much of the mean map lies where each pass draws; equal shares where the map does not show their order."""
    mean_L = m_NL.mean(0)
    return [float(mean_L[at.cpu()].sum() / len(at) * len(mean_L) / len(passes)) for at in passes]


def drawn_pictures(model: Model, per_class: int) -> Pictures:
    """Pictures that the model draws at its default settings, seeds 0, 1, … of every class, with their tokens."""
    labels = torch.arange(model.var.config.num_classes).repeat_interleave(per_class)
    seeds = torch.arange(per_class).repeat(model.var.config.num_classes)
    images, tokens = [], []
    for rows in torch.arange(len(labels)).split(BATCH):
        drawing = model.generate(labels[rows].tolist(), seeds[rows].tolist())
        images.append(drawing.images.mul(255).round().byte().cpu())
        tokens.append([scale.cpu() for scale in drawing.tokens])
    return Pictures(torch.cat(images), labels, tuple(torch.cat(scale) for scale in zip(*tokens, strict=True)))


def saliency_figures(
    model: Model,
    judges: Mapping[str, Judge],
    pictures: Pictures,
    rho: float,
    maps: Maps | None = None,
    networks: Mapping[str, nn.Module] | None = None,
) -> Iterator[dict[str, Any]]:
    """The whole test on one set of pictures, a row for every scale but the first, which has one position.

    Per row: how much of the maps is one fixed pattern; the share named by the class token; how much of the finest map
    lies on the positions of each pass; and per judge what `judged` finds. `maps` are those of the pictures, where they
    are known; `networks` are the networks behind the judges, by name, for their class activation maps.
    """
    maps = maps or maps_of(model, pictures)
    own = {name: ceilings_of(judge, pictures, (networks or {}).get(name)) for name, judge in judges.items()}
    for scale, side in enumerate(model.var.scales.sides):
        if scale == 0:
            continue
        row: dict[str, Any] = {
            "scale": scale,
            "side": side,
            "fixed_share": {family: fixed_share(per_scale[scale]) for family, per_scale in maps.by_family.items()},
        }
        if maps.named:
            row["named"] = maps.named[scale]
        passes = model.var.passes(scale)
        if passes:
            row["share_of_passes"] = {
                family: share_of_passes(per_scale[scale], passes) for family, per_scale in maps.by_family.items()
            }
        row["judges"] = {
            name: judged(judge, pictures, maps.by_family, scale, rho, own[name]) for name, judge in judges.items()
        }
        yield row
