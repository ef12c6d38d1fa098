"""Training the classifier: random shifts, flips, and plain labels.

It is a teacher too, and one trained on smoothed labels teaches worse (Müller et al., 2019).
"""

from torch import Tensor
from torch.nn import functional as F

from hieramp.classifier import Classifier
from hieramp.training.augment import randomly_flipped, randomly_shifted
from hieramp.training.loop import Objective


class ClassifierObjective(Objective):
    """(images uint8, labels) to the cross-entropy."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        x = randomly_flipped(randomly_shifted(images_BCHW.float() / 255, images_BCHW.shape[-1] // 16))
        logits = self.model(x)
        loss = F.cross_entropy(logits, labels_B)
        return {"loss": loss, "accuracy": (logits.argmax(-1) == labels_B).float().mean()}

    def matrices(self) -> set[str]:
        """The convolutions but the first; the last layer sees classes, not features."""
        return {
            name for name, p in self.named_parameters() if p.ndim == 4 and not name.startswith("model.network.conv1.")
        }
