"""Distribution matching (DM, Zhao and Bilen, arXiv 2110.04181): images whose features have the mean of the real ones.

In each of many iterations a freshly initialised ConvNet ψ, never trained, looks at real images R_c and at the set's
images S_c of each class, both changed alike (`siamese`); the images of the set go down the gradient of
Σ_c ‖mean ψ(R_c) - mean ψ(S_c)‖². An iteration's random numbers come from (seed, iteration), so a run that was killed
goes on as if it had not been.
"""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from hieramp.checkpoints import fingerprint, read_safetensors, save_safetensors
from hieramp.classifier import Classifier
from hieramp.data import DataSource, decode, read_image
from hieramp.devices import supports_fast_bf16
from hieramp.distillation.distill import SOFT
from hieramp.distillation.images import Collector, Shuffled, plan_of_images
from hieramp.distillation.parts import PartFolder
from hieramp.distillation.plan import Item, Plan
from hieramp.distillation.production import Progress, Queue, make_here, produce_with
from hieramp.distillation.siamese import changed, draw
from hieramp.errors import UserError
from hieramp.figures import to_picture
from hieramp.imageset.layout import Format
from hieramp.seeds import seed_of
from hieramp.state_file import SaveTimer

METHOD, STATE = "dm", "matching.safetensors"
SAVE_SECONDS = 30.0
WIDTH = 128
# images of 32 pixels that are changed together, and that are in the network at once (a CPU works in its cache); of
# larger ones fewer
AT_ONCE, IN_NETWORK = {"cpu": 640, "cuda": 2560}, {"cpu": 16, "cuda": 2560}
MOMENTUM = 0.5


@dataclass(frozen=True)
class Matching:
    """How long, and with how many real images of each class in an iteration. The defaults are the paper's.

    Raises:
        UserError: a number under 1, or a learning rate that is not over 0.
    """

    iterations: int = 20_000
    real_images: int = 256
    learning_rate: float | None = None  # None: 1, from 100 images a class on 10, as in the authors' code
    bfloat16: bool = False  # features of the real images, where the processor has it: their means differ by 0.1 %

    def __post_init__(self) -> None:
        for name in ("iterations", "real_images"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')} is {getattr(self, name)}; it must be at least 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise UserError(f"learning rate is {self.learning_rate}; it must be a number over 0")

    def rate(self, ipc: int) -> float:
        return self.learning_rate or (1.0 if ipc < 100 else 10.0)


PRESETS = {"full": Matching(), "preview": Matching(2_400, 64, bfloat16=True)}


class EmbeddingNet(nn.Sequential):
    """The ConvNet of DC and DM up to its features: 3×3 convolution, instance norm, ReLU, average pooling, 128 wide.

    Three blocks for 32 pixels, one more for each doubling. Images (B, 3, H, W), normalised, to features (B, F).
    """

    def __init__(self, image_size: int, width: int = WIDTH) -> None:
        layers: list[nn.Module] = []
        for i in range(max(1, (image_size // 4).bit_length() - 1)):
            layers += [nn.Conv2d(width if i else 3, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU()]
            layers.append(nn.AvgPool2d(2))
        super().__init__(*layers, nn.Flatten())


def fresh_network(image_size: int, seed: int, device: torch.device, width: int = WIDTH) -> EmbeddingNet:
    """A network with random weights of this seed, the same on every device; they take no gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EmbeddingNet(image_size, width).requires_grad_(False).to(device)


class Matcher:
    """The images while they are matched, normalised and unbounded; `step` is one iteration."""

    def __init__(
        self,
        real_NCHW: Tensor,
        labels_N: Tensor,
        chosen_CI: Tensor,
        classes: Sequence[int],
        seed: int,
        matching: Matching,
        device: torch.device,
    ) -> None:
        """`real_NCHW` uint8; `chosen_CI`: for each class the indices of the real images that it starts from."""
        self.real, self.seed, self.matching = real_NCHW.to(device), seed, matching
        self.of_class = [torch.nonzero(labels_N == label).flatten() for label in classes]
        self.mean, self.std = statistics(real_NCHW)
        self.size = real_NCHW.shape[-1]
        start = torch.stack([self._normalised(rows) for rows in chosen_CI])
        self.images = start.clone().requires_grad_()  # (C, ipc, 3, H, W)
        self.optimizer = torch.optim.SGD([self.images], matching.rate(chosen_CI.shape[1]), momentum=MOMENTUM)
        self.done = 0  # iterations
        self.loss = float("nan")

    def _normalised(self, rows: Tensor) -> Tensor:
        device = self.real.device
        pixels = self.real[rows.to(device)].float() / 255
        return (pixels - self.mean.to(device)) / self.std.to(device)

    def step(self) -> None:
        """One iteration; everything random in it is of (seed, number)."""
        device = self.images.device
        network = fresh_network(self.size, seed_of(self.seed, self.done, 0), device)
        dtype = real_dtype(self.matching, device)
        network_of_real = copy.deepcopy(network).to(dtype)
        rng = np.random.default_rng((self.seed, self.done, 1))
        self.optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for some in self._parts():
            changes = [draw(rng) for _ in some]
            picked = [self._picked(rng, label) for label in some]
            with torch.no_grad():
                real = [changed(self._normalised(rows), how) for rows, how in zip(picked, changes, strict=True)]
                goal_CF = self._means(network_of_real, [images.to(dtype) for images in real])
            ours = [changed(self.images[c], how) for c, how in zip(some, changes, strict=True)]
            ours_CF = self._means(network, ours)
            loss = (goal_CF - ours_CF).square().sum()
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.done += 1
        self.loss = float(total)
        if not np.isfinite(self.loss):
            raise UserError(
                f"the images diverged in iteration {self.done}: take a lower learning rate than "
                f"{self.matching.rate(self.images.shape[1]):g}"
            )

    def _parts(self) -> Iterator[range]:
        """Classes that are computed in one pass; gradients of all add up."""
        at_once = max(1, self._room(AT_ONCE) // self.matching.real_images)
        return (range(i, min(i + at_once, len(self.of_class))) for i in range(0, len(self.of_class), at_once))

    def _room(self, images: Mapping[str, int]) -> int:
        """What is said for images of 32 pixels, in images of this size."""
        return max(1, images.get(self.images.device.type, images["cpu"]) * 32**2 // self.size**2)

    def _means(self, network: nn.Module, classes: Sequence[Tensor]) -> Tensor:
        """The mean features of each class, (C, F) float32."""
        features = torch.cat([network(some) for some in torch.cat(list(classes)).split(self._room(IN_NETWORK))])
        return torch.stack([part.float().mean(0) for part in features.split([len(images) for images in classes])])

    def _picked(self, rng: np.random.Generator, number: int) -> Tensor:
        """Real images of a class, none of them twice; all where there are not as many."""
        own = self.of_class[number]
        return own[torch.from_numpy(rng.permutation(len(own))[: self.matching.real_images])]

    def pictures(self) -> list[Image.Image]:
        """The set's images, class after class; what is beyond black and white is cut off."""
        device = self.images.device
        unit = (self.images.detach() * self.std.to(device) + self.mean.to(device)).clamp(0, 1).flatten(0, 1).cpu()
        return [to_picture(image) for image in unit]

    def save(self, path: Path) -> None:
        momentum = self.optimizer.state[self.images].get("momentum_buffer") if self.done else None
        state = {"images": self.images.detach().cpu().contiguous(), "done": torch.tensor(self.done)}
        if momentum is not None:
            state["momentum"] = momentum.cpu().contiguous()
        save_safetensors(path, state)

    def resume(self, path: Path) -> None:
        """Take up where `save` left off.

        Raises:
            UserError: the file is damaged.
        """
        state = read_safetensors(path)
        if not {"images", "done"} <= state.keys() or state["images"].shape != self.images.shape:
            raise UserError(f"{path} is of another run: remove it to begin anew")
        with torch.no_grad():
            self.images.copy_(state["images"])
        self.done = int(state["done"])
        if "momentum" in state:
            self.optimizer.state[self.images]["momentum_buffer"] = state["momentum"].to(self.images.device)


def real_dtype(matching: Matching, device: torch.device) -> torch.dtype:
    """In which the network computes the real images on this device."""
    return torch.bfloat16 if matching.bfloat16 and supports_fast_bf16(device) else torch.float32


def statistics(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and deviation inside an image averaged over images, of each channel, (3, 1, 1) in [0, 1].

    They are what the authors' constants for CIFAR-10 are: (0.4914, 0.4822, 0.4465) and (0.2023, 0.1994, 0.2010).
    """
    mean, std, count = torch.zeros(3), torch.zeros(3), len(images_NCHW)
    for some in images_NCHW.split(4096):
        unit = some.float().flatten(2) / 255
        mean += unit.mean(2).sum(0)
        std += unit.std(2, unbiased=False).sum(0)
    return (mean / count).view(3, 1, 1), (std / count).clamp_min(1e-3).view(3, 1, 1)


def match(
    source: DataSource,
    ipc: int,
    out: str | Path,
    matching: Matching | None = None,
    *,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    seed: int = 0,
    soft_labels: bool = False,
    classifier: Classifier | None = None,
    classifier_classes: Sequence[str] | None = None,
    format: Format = "zip",
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[Progress]:
    """Write a set by distribution matching, yielding the progress; images are counted once all iterations are done.

    Killed, it goes on from what it saved every half minute when called again with the same settings; on a CPU with the
    same number of threads the set is the same, byte for byte (kernels of a GPU add in any order).

    Raises:
        UserError: too few images, unknown classes, settings out of range, images that diverge.
        OSError: the disk is full or not writable. What is finished is kept.
    """
    matching, device = matching or Matching(), torch.device(device)
    if classifier is not None:
        source = source.reordered(classifier_classes or source.class_names)
    if soft_labels and classifier is None:
        raise UserError("dm with soft labels needs a classifier")
    if size is None:
        size = min(read_image(source, 0).size)
    if size < 8:
        raise UserError(f"size is {size}; the network of dm takes images of at least 8 pixels")
    settings = {
        "iterations": matching.iterations,
        "real_images": matching.real_images,
        "learning_rate": matching.rate(ipc),
        "real_dtype": str(real_dtype(matching, device)).removeprefix("torch."),
        "device": device.type,
        SOFT: fingerprint(classifier.state_dict()) if soft_labels and classifier else None,
    }
    plan = plan_of_images(
        METHOD, source, Path(out), settings, classes=classes, ipc=ipc, size=size, seed=seed, format=format
    )
    shuffled = Shuffled(source, plan)
    shuffled.check(ipc, "the set")
    judge = classifier.to(device) if soft_labels and classifier else None

    def work(queue: Queue, folder: PartFolder) -> Iterator[None]:
        matcher = _matcher(shuffled, plan, matching, device)
        state = folder.path / STATE
        yield from _iterations(matcher, state, matching.iterations)
        pictures = matcher.pictures()

        def picture(item: Item) -> Image.Image:
            return pictures[item.index]

        yield from make_here(queue, folder, Collector(picture, judge))

    return produce_with(plan, work, batch_size or 64)


def _matcher(shuffled: Shuffled, plan: Plan, matching: Matching, device: torch.device) -> Matcher:
    decoded = decode(shuffled.source, plan.image_size)
    if len(decoded.images) < len(shuffled.source):
        raise UserError(f"dm needs every image of {shuffled.source.name}: remove those that cannot be read")
    chosen = np.stack([shuffled.order(label)[: plan.ipc] for label in plan.classes])
    return Matcher(decoded.images, decoded.labels, torch.from_numpy(chosen), plan.classes, plan.seed, matching, device)


def _iterations(matcher: Matcher, state: Path, iterations: int) -> Iterator[None]:
    """All that are missing; a pause after each, in which the caller may stop."""
    if state.is_file():
        matcher.resume(state)
    timer = SaveTimer(SAVE_SECONDS)
    bar = tqdm(desc="matching", total=iterations, initial=matcher.done, unit="it", disable=None, file=sys.stderr)
    with bar:
        while matcher.done < iterations:
            matcher.step()
            bar.update()
            bar.set_postfix(loss=f"{matcher.loss:.1f}", refresh=False)
            if timer.is_due or matcher.done == iterations:
                with timer.saving():
                    matcher.save(state)
            try:
                yield
            except GeneratorExit:
                matcher.save(state)
                raise
