"""What every model that draws has, whatever its kind: classes with names, a request that is checked, a description."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from hieramp.class_names import check_labels, label_of
from hieramp.settings import Settings, SettingsLike, for_images
from hieramp.version import __version__

DESCRIBED = ("model", "class", "label", "seeds", "dtype", "hieramp")  # what `describe` names besides the settings


class ClassConditionalModel:
    """Draws images of its classes; the kinds of model add how."""

    class_names: tuple[str, ...]
    name: str
    wnids: tuple[str, ...]  # ImageNet ids of the classes, where they have any
    defaults: Settings  # what is drawn with where nothing is said
    kind: ClassVar[str]  # which settings it has

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The ImageNet ids of the classes, or their names where they have none."""
        return self.wnids or self.class_names

    @property
    def dtype(self) -> torch.dtype:
        """In which the transformer computes."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Blocks of the transformer."""
        raise NotImplementedError

    def check(self, settings: Settings) -> None:
        """Raise ValueError where the settings name what this model does not have."""
        raise NotImplementedError

    def label_of(self, name: str | int) -> int:
        """The label of a class name, ImageNet id or number; a name that looks like a number is a name first.

        Raises:
            ValueError: there is no such class; names the nearest ones.
        """
        return label_of(name, self.class_names, self.wnids, self.name)

    def describe(self, label: int, seeds: Sequence[int], settings: Settings) -> dict[str, Any]:
        """What pictures are drawn with, ready for JSON: it is stored inside them."""
        return {
            "model": self.name,
            "class": self.class_names[label],
            "label": label,
            "seeds": list(seeds),
            **settings.resolved(self.depth).to_json(self.kind),
            "dtype": str(self.dtype).removeprefix("torch."),
            "hieramp": __version__,
        }

    def checked(
        self, labels: Sequence[int], seeds: Sequence[int] | None, settings: SettingsLike, options: dict[str, Any]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Settings, ...]]:
        """Labels, seeds and settings of every image of a call.

        Raises:
            ValueError: a label the model does not have, counts that differ, a setting out of range, or one that only
                other kinds of model have.
            TypeError: an option that is no setting.
        """
        labels = check_labels(labels, len(self.class_names), self.name)
        seeds, per_image = for_images(settings, options, self.defaults, labels, seeds)
        for one in set(per_image):
            self.check(one)
        return labels, seeds, per_image
