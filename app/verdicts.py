"""A second opinion on pictures: what the classifier says of them, and which positions its answer hangs on."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from app import handlers
from app.kinds import AnyModel
from app.names import name_of
from app.view_requests import ViewRequest, address, whole
from hieramp.analysis.faithfulness import centre_prior
from hieramp.analysis.opinion import occlusion, rank_correlation, verdicts
from hieramp.classifier import Classifier, load_classifier


@lru_cache(maxsize=4)  # models whose page was given up are not held by it
def _classifier(folder: Path, device: torch.device) -> Classifier:
    return load_classifier(folder).to(device).requires_grad_(False)


def classifier_of(model: AnyModel) -> Classifier:
    """That of the model's folder, loaded once.

    Raises:
        UserError: it has none.
    """
    assert model.folder is not None, "ask has_classifier first"
    return _classifier(model.folder, model.device)


def opinion_view(
    model: AnyModel, view_request: ViewRequest, asked: Mapping[str, Any], memory: handlers.Memory | None = None
) -> dict[str, Any]:
    """The verdict on every picture of a request; where `asked` names maps, those of a sample's pair at every step.

    A map is the fall of the log probability of the class asked for, in nats, when a position is blurred. Beside it
    stands its rank correlation with the saliency, and with a map that is only brightest in the middle.
    """
    sample = whole("the sample", asked.get("sample"), 0, len(view_request.seeds) - 1)
    steps, classifier = handlers.shown_steps(model, view_request, memory), classifier_of(model)
    images, rows = steps[-1].image, [sample, len(view_request.seeds) + sample]
    p_BK = verdicts(classifier, images)
    best = p_BK.max(-1)
    names = [name_of(model, label) for label in best.indices.tolist()]
    view: dict[str, Any] = {
        "key": address(model, view_request),
        "sample": sample,
        "verdicts": [[name, round(p, 4)] for name, p in zip(names, best.values.tolist(), strict=True)],
        "asked": [round(p, 4) for p in p_BK[:, view_request.label].tolist()],
        "maps": None,
    }
    if not asked.get("maps"):
        return view
    view |= {"maps": [], "agreement": [], "centre": []}
    labels = torch.tensor([view_request.label] * 2)
    # all steps of a diffusion transformer have one side, and the picture is the finished one at each
    maps = {side: occlusion(classifier, images[rows], labels, side) for side in {step.side for step in steps}}
    for step in steps:
        found = maps[step.side]
        saliency = step.saliency[rows].flatten(1).cpu()
        view["maps"].append([[round(x, 5) for x in row.tolist()] for row in found])
        view["agreement"].append([rank_correlation(m, f) for m, f in zip(saliency, found, strict=True)])
        view["centre"].append([rank_correlation(centre_prior(step.side), f) for f in found])
    return view
