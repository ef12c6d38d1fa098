"""The stops of the tour by kind of model, and the search for a pair of pictures that bears one out. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app import stops_dit, stops_var
from app.claims import Claim, Shares, Stop, ViewModel
from app.curated import examples_of
from app.kinds import AnyModel, with_schedule
from app.view_requests import ViewRequest, read_request
from hieramp.diffusion.model import DiffusionModel
from hieramp.errors import UserError
from hieramp.settings import set_settings

TRIES = 5  # pairs looked at for one stop
Draw = Callable[[ViewRequest], ViewModel]  # the finished view model of a request
Ask = Callable[[ViewRequest], Shares]  # the classifier's probability of the class: baseline, amplified


@dataclass(frozen=True)
class ChosenPair:
    """A pair that bears a stop out."""

    label: int
    seed: int
    found: Claim


@dataclass(frozen=True)
class PairSearch:
    """How far the search for a pair has come."""

    tried: int
    of: int
    pair: ChosenPair | None = None  # once there is one


def stops_of(model: AnyModel) -> tuple[Stop, ...]:
    """The stops of a model's tour."""
    return stops_dit.STOPS if isinstance(model, DiffusionModel) else stops_var.STOPS


def asked_of(model: AnyModel, label: int, seed: int) -> ViewRequest:
    """What is on screen while a stop asks: the plain picture."""
    return _request(model, label, seed, "off", {})


def shown_of(model: AnyModel, label: int, seed: int, stop: Stop) -> ViewRequest:
    """What it shows then."""
    return _request(model, label, seed, stop.schedule, stop.changes)


def _request(model: AnyModel, label: int, seed: int, schedule: str, changes: Mapping[str, Any]) -> ViewRequest:
    """One pair of a class by the model's own settings and a schedule."""
    settings = with_schedule(set_settings(model.kind, model.defaults), schedule, model.kind)
    request = {"class_name": label, "seed": seed, "count": 1} | settings.to_parts(model.kind)
    return read_request(model, {**request, **changes})


def pairs(model: AnyModel, stop: Stop, label: int, seed: int) -> list[tuple[int, int]]:
    """Classes and seeds to try for a stop, TRIES at most: curated ones of its schedule, the visitor's own, others."""
    curated = [one for one in examples_of(model) if one.schedule == stop.schedule]
    found = [(model.class_names.index(one.class_name), one.seed) for one in curated]
    found += [(label, seed), *((i % len(model.class_names), i) for i in range(TRIES))]
    return list(dict.fromkeys(found))[:TRIES]


def search(model: AnyModel, stop: Stop, label: int, seed: int, draw: Draw, ask: Ask | None) -> Iterator[PairSearch]:
    """How far it has come before each pair that is tried, and at last the first pair that bears the stop out.

    Nothing where the model has not what the stop is about: a classifier (`ask` is None), maps.
    """
    if (stop.asks_classifier and ask is None) or (stop.overlay and not _has_maps(model)):
        return
    candidates = pairs(model, stop, label, seed)
    for tried, one in enumerate(candidates):
        yield PairSearch(tried, len(candidates))
        try:
            asked, shown = asked_of(model, *one), shown_of(model, *one, stop)
        except UserError:  # the visitor's seed field may hold anything
            continue
        found = stop.judge(draw(shown), _shares(stop, asked, shown, ask))
        if found:
            yield PairSearch(tried + 1, len(candidates), ChosenPair(*one, found))
            return


def _has_maps(model: AnyModel) -> bool:
    return isinstance(model, DiffusionModel) or model.has_class_tokens


def _shares(stop: Stop, asked: ViewRequest, shown: ViewRequest, ask: Ask | None) -> Shares:
    """The plain picture's share and that of what is shown, which holds the plain one too unless more is changed."""
    if ask is None or not stop.asks_classifier:
        return ()
    after = ask(shown)
    return (ask(asked)[0] if stop.changes else after[0], after[1])
