"""The search for ρ and β of each stage, with Optuna; every trial is in a journal, so that a search can go on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hieramp.amplification.settings import SCHEDULES, Amplification, parse_stages
from hieramp.analysis.measure import draw_set
from hieramp.errors import UserError
from hieramp.generation.model import Model
from hieramp.generation.sampling import Sampling
from hieramp.scales import STAGES
from hieramp.tuning.proxies import Proxy, Worth

if TYPE_CHECKING:
    from optuna import Study, Trial

JOURNAL = "journal.log"
FIRST_SEED = 500_000_000  # images of a search are no images of the sets to come, whose seeds are 0, 1, …
RHO, BETA = (0.05, 0.95, 0.05), (-2.0, 8.0, 0.5)  # lowest, highest, step; β 0 leaves a stage alone, under 0 weakens
BATCH = 50
DEFAULTS = ("off", "all")  # tried first, to be beaten


@dataclass(frozen=True)
class SearchSettings:
    """What two searches must share to be one."""

    model: str
    ipc: int
    proxy: str
    sampling: Sampling
    seed: int
    details: str = ""  # of the proxy

    def to_json(self) -> dict[str, Any]:
        """By their names, those of the sampling among them."""
        named = {"model": self.model, "ipc": self.ipc, "proxy": self.proxy}
        return {**named, **self.sampling.options(), "seed": self.seed, "details": self.details}


@dataclass(frozen=True)
class Tried:
    """One finished trial."""

    number: int
    stages: str  # for --stages
    worth: Worth


def to_stages(params: dict[str, float]) -> str:
    """Parameters of a trial as --stages text."""
    parts = []
    for stage in STAGES:
        rho, beta = params[f"{stage}_rho"], params[f"{stage}_beta"]
        parts.append(f"{stage}=off" if beta == 0 else f"{stage}={100 * rho:.4g}%:{beta:g}")
    return ",".join(parts)


def to_params(amplification: Amplification) -> dict[str, float]:
    params: dict[str, float] = {}
    for stage in STAGES:
        rho, beta = getattr(amplification, stage) or (0.5, 0.0)
        params |= {f"{stage}_rho": rho, f"{stage}_beta": beta}
    return params


class Search:
    """A search in a folder, new or taken up again.

    Raises:
        UserError: Optuna is not installed, or the folder holds a search with other settings.
    """

    def __init__(self, folder: Path, settings: SearchSettings) -> None:
        optuna = _optuna()
        folder.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        self.study: Study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
        )
        known, wanted = self.study.user_attrs.get("settings"), settings.to_json()
        default = Sampling().options()  # what an earlier version left out
        for name in (known or {}) and known.keys() | wanted.keys():
            before, now = (some.get(name, default.get(name)) for some in (known, wanted))
            if before != now:
                raise UserError(f"{folder} holds a search with {name} {before!r}, not {now!r}: give another --out")
        self.study.set_user_attr("settings", wanted)
        self.settings = settings
        # another seed for every session, or the sampler would suggest again what it did before
        self.study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(self.study.trials))

    def run(self, model: Model, proxy: Proxy, trials: int) -> Iterator[Tried]:
        """Go on until so many trials are finished in all; off and the paper's default come first."""
        self._enqueue_defaults()
        while len(self.tried()) < trials:
            trial = self.study.ask()
            worth = self._measure(model, proxy, _suggest(trial))
            trial.set_user_attr("parts", worth.parts)
            self.study.tell(trial, worth.score)
            yield self.tried()[-1]

    def tried(self) -> list[Tried]:
        """Finished trials, in their order."""
        optuna = _optuna()
        return [
            Tried(t.number, to_stages(t.params), Worth(float(t.value or 0.0), t.user_attrs["parts"]))
            for t in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        ]

    def best(self) -> Tried:
        return max(self.tried(), key=lambda tried: tried.worth.score)

    def default(self, name: str) -> Tried | None:
        """The trial of off or all."""
        stages = to_stages(to_params(SCHEDULES[name]))
        return next((tried for tried in self.tried() if tried.stages == stages), None)

    def _enqueue_defaults(self) -> None:
        states = _optuna().trial.TrialState
        kept = self.study.get_trials(deepcopy=False, states=(states.COMPLETE, states.WAITING))
        known = [t.params or t.system_attrs.get("fixed_params") for t in kept]
        for name in DEFAULTS:
            if to_params(SCHEDULES[name]) not in known:
                self.study.enqueue_trial(to_params(SCHEDULES[name]))

    def _measure(self, model: Model, proxy: Proxy, params: dict[str, float]) -> Worth:
        amplification = parse_stages(to_stages(params))
        first = FIRST_SEED + self.settings.seed * 1_000_000
        drawn = draw_set(model, self.settings.ipc, BATCH, amplification, self.settings.sampling, first)
        return proxy(drawn.images, drawn.labels)


def _suggest(trial: "Trial") -> dict[str, float]:
    params = {}
    for stage in STAGES:
        for name, (low, high, step) in {"rho": RHO, "beta": BETA}.items():
            key = f"{stage}_{name}"
            params[key] = round(trial.suggest_float(key, low, high, step=step), 4)
    return params


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError("tune needs Optuna: pip install -r requirements-tune.txt") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def as_json(search: Search) -> str:
    """All trials with their parts, best first."""
    rows = [
        {"trial": t.number, "stages": t.stages, "score": t.worth.score, **t.worth.parts}
        for t in sorted(search.tried(), key=lambda tried: -tried.worth.score)
    ]
    return json.dumps({"settings": search.settings.to_json(), "trials": rows}, indent=1) + "\n"
