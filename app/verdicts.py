"""A second opinion on pictures: what the classifier says of them, and which positions its answer hangs on."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from app import handlers
from app.names import name_of
from app.pieces import Piece
from app.view_requests import ViewRequest, address, whole
from hieramp import Model, Step
from hieramp.analysis.faithfulness import centre_prior
from hieramp.analysis.opinion import occlusion_parts, rank_correlation, verdicts
from hieramp.classifier import Classifier, load_classifier
from hieramp.generation.memory import RecentDrawings

BLURRING = "blurring one position after another"


@lru_cache(maxsize=4)  # models whose page was given up are not held by it
def _classifier(folder: Path, device: torch.device) -> Classifier:
    return load_classifier(folder).to(device).requires_grad_(False)


def classifier_of(model: Model) -> Classifier:
    """The model's own, loaded once.

    Raises:
        UserError: it has none.
    """
    assert model.folder is not None, "ask has_classifier first"
    return _classifier(model.folder, model.device)


def opinion_view(
    model: Model, view_request: ViewRequest, asked: Mapping[str, Any], memory: RecentDrawings | None = None
) -> dict[str, Any]:
    """The verdict on every picture of a request."""
    return _verdict(model, view_request, asked, list(handlers.steps_of(model, view_request, memory)))


def occlusion_view(
    model: Model, view_request: ViewRequest, asked: Mapping[str, Any], memory: RecentDrawings | None = None
) -> Iterator[Piece]:
    """The verdict, and the maps of a sample's pair at every scale, piece by piece; a piece is a position blurred.

    A map is the fall of the log probability of the class asked for, in nats, when a position is blurred. Beside it
    stands its rank correlation with the saliency, and with a map that is only brightest in the middle.
    """
    of, done, steps = 2 * sum(side * side for side in model.var.scales.sides), 0, list[Step]()
    for step in handlers.steps_of(model, view_request, memory):
        steps.append(step)
        yield Piece("drawing", len(steps), len(model.var.scales))
    view = _verdict(model, view_request, asked, steps)
    rows = [view["sample"], len(view_request.seeds) + view["sample"]]
    view |= {"maps": [], "agreement": [], "centre": []}
    classifier, pair, labels = classifier_of(model), steps[-1].image[rows], torch.tensor([view_request.label] * 2)
    for step in steps:
        parts = []
        for part in occlusion_parts(classifier, pair, labels, step.side):
            parts.append(part)
            done += len(part)
            if done < of:
                yield Piece(BLURRING, done, of)
        found = torch.cat(parts).view(2, -1)
        saliency = step.saliency[rows].flatten(1).cpu()
        view["maps"].append([[round(x, 5) for x in row.tolist()] for row in found])
        view["agreement"].append([rank_correlation(m, f) for m, f in zip(saliency, found, strict=True)])
        view["centre"].append([rank_correlation(centre_prior(step.side), f) for f in found])
    yield Piece(BLURRING, of, of, view)


def _verdict(model: Model, view_request: ViewRequest, asked: Mapping[str, Any], steps: list[Step]) -> dict[str, Any]:
    sample = whole("the sample", asked.get("sample"), 0, len(view_request.seeds) - 1)
    p_BK = verdicts(classifier_of(model), steps[-1].image)
    best = p_BK.max(-1)
    names = [name_of(model, label) for label in best.indices.tolist()]
    return {
        "key": address(model, view_request),
        "sample": sample,
        "verdicts": [[name, round(p, 4)] for name, p in zip(names, best.values.tolist(), strict=True)],
        "asked": [round(p, 4) for p in p_BK[:, view_request.label].tolist()],
        "maps": None,
    }
