"""A whole data set out of a model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hieramp.amplification.settings import CLASS_TOKEN, Amplification
from hieramp.checkpoints import fingerprint
from hieramp.classifier import Classifier, load_classifier_for
from hieramp.data import DataSource
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.diffusion import DiffusionDrawer
from hieramp.distillation.maker import Drawer
from hieramp.distillation.methods.drawing import Selected
from hieramp.distillation.methods.method import Method
from hieramp.distillation.methods.preparing import Preparation, identity_of
from hieramp.distillation.plan import Plan, sequence_of_labels
from hieramp.distillation.production import Progress, already_there, produce
from hieramp.errors import UserError
from hieramp.generation.model import Model
from hieramp.imageset.layout import Format
from hieramp.settings import Settings, read, set_settings

Engine = Literal["local", "ray"]
BATCH_SIZE = {"cpu": 32, "cuda": 64}
DRAWN, SOFT = "hieramp", "soft_labels"


@dataclass(frozen=True)
class Distillation:
    """A set that is about to be made: `run` makes it, and iterating does so with the progress after every batch.

    Either may be stopped or killed, and goes on where it was when the same set is asked for again.
    """

    plan: Plan
    drawer: Drawer | Callable[[], Drawer | Selected]  # or what prepares it
    batch_size: int  # items at a time
    engine: Engine = "local"
    workers: int | None = None

    def run(self) -> Path:
        """Make the set; returns where it is.

        Raises:
            UserError: the place holds other settings.
            OSError: the disk is full or not writable. What is finished is kept.
        """
        for progress in self:
            path = progress.path
        return path

    def __iter__(self) -> Iterator[Progress]:
        """The progress after every batch, which is then safe; closing the iterator keeps what is done."""
        if isinstance(self.drawer, Drawer):
            drawer: Drawer | Selected = self.drawer
        elif already_there(self.plan):  # or refused
            yield Progress(len(self.plan), len(self.plan), 0.0, self.plan.out, finished=True)
            return
        else:
            drawer = self.drawer()
        if self.engine == "local":
            yield from produce(self.plan, drawer, self.batch_size)
            return
        from hieramp.distillation.ray_engine import produce_on_ray

        yield from produce_on_ray(self.plan, drawer, self.batch_size, self.workers)


def distill(
    model: Model | DiffusionModel,
    ipc: int,
    out: str | Path,
    settings: Settings | Amplification | None = None,
    *,
    classes: Sequence[str | int] | None = None,
    size: int | None = None,
    seed: int = 0,
    soft_labels: bool = False,
    classifier: str | Path | None = None,
    candidates: int = 1,
    format: Format = "zip",
    batch_size: int | None = None,
    engine: Engine = "local",
    workers: int | None = None,
    method: Method | None = None,
    data: DataSource | None = None,
    prepared: Path | None = None,
    **options: Any,
) -> Distillation:
    """Plan a set of `ipc` images of each class at `out`: call `.run()` to make it, or iterate to see it progress.

    `settings` None is the paper's schedule, of a diffusion transformer α = 1 in all stages; any field of `Settings`
    may be given by its name as well, as may `amplification=` (None: off). `classes` are names, numbers or ImageNet ids;
    None is all of them.

    A run that was stopped, closed or killed goes on where it was when called again with the same settings, and
    the set is the same, byte for byte, at any batch size and number of workers. In half precision that takes
    batches of one size, which is then one of the settings. Image k of a class has the seed
    seed · 1,000,000 + k; `size` resizes with Lanczos. Soft labels are the logits of the classifier in the
    folder `classifier`, the model's own where it has one. With `candidates` N, N images are drawn for each one of
    the set and the classifier keeps the one it is surest of (the realism score of RDED, arXiv 2312.03526, on drawn
    images): those of image k have the seeds seed · 1,000,000 + k · N and following.

    A `method` draws in its own way (`hieramp.distillation.methods`), with the model's defaults where no settings are
    given, that is unamplified. What it prepares from the real images `data` is kept in the folder `prepared` (None:
    prepared/ beside `out`) for further sets.

    Raises:
        UserError: a setting is out of range, or a class is unknown.
        TypeError: an option that is no setting.
    """
    usual = model.defaults if method else set_settings(model.kind, model.defaults)
    drawn_with = read(settings, options, usual)
    if not isinstance(drawn_with, Settings):
        raise UserError("a set is drawn with one amplification: give one, not several")
    if engine not in ("local", "ray"):
        raise UserError(f"engine is {engine!r}; it must be 'local' or 'ray'")
    model.check(drawn_with)
    labels = None if classes is None else [model.label_of(name) for name in classes]
    chosen_of = candidates if method is None else _pool(method, candidates)
    judge = judge_of(model, classifier) if soft_labels or chosen_of > 1 else None
    batch_size = BATCH_SIZE.get(model.device.type, 32) if batch_size is None else batch_size
    plan = Plan(
        out=Path(out),
        method=method.name if method else DRAWN,
        class_names=model.class_names,
        wnids=model.wnids,
        classes=sequence_of_labels(labels, len(model.class_names)),
        ipc=ipc,
        image_size=model.image_size if size is None else size,
        seed=seed,
        settings=_identity(model, drawn_with, judge, soft_labels, chosen_of, batch_size)
        | (identity_of(method, model, data) if method else {}),
        model={"name": model.name, "sha256": fingerprint(*model.states)},
        format=format,
        candidates=chosen_of,
        weighs=method is not None and method.weighs,
    )
    how = plan.image_size, judge, candidates, soft_labels
    drawer: Drawer | Preparation = drawer_of(model, drawn_with, *how)
    if method is not None:
        drawer = Preparation(method, model, drawn_with, plan, *how, data, prepared or plan.out.parent / "prepared")
        drawer.check()
    return Distillation(plan, drawer, -(-batch_size // candidates), engine, workers)


def _pool(method: Method, candidates: int) -> int:
    """How many pictures are drawn for each one of the set.

    Raises:
        UserError: the method chooses, and candidates are asked for too.
    """
    if method.pool > 1 and candidates > 1:
        raise UserError(f"{method.name} chooses among the images it draws: leave --candidates out")
    return max(method.pool, candidates)


def drawer_of(
    model: Model | DiffusionModel,
    settings: Settings,
    image_size: int,
    judge: Classifier | None,
    candidates: int,
    soft_labels: bool,
) -> Drawer:
    how = image_size, judge, candidates, soft_labels
    if isinstance(model, DiffusionModel):
        return DiffusionDrawer(model, settings, *how)
    return Drawer(model, settings.amplification, settings.sampling, *how)


def _identity(
    model: Model | DiffusionModel,
    settings: Settings,
    judge: Classifier | None,
    soft_labels: bool,
    candidates: int,
    batch_size: int,
) -> dict[str, Any]:
    """What decides about the images. What came later is named only where it is used."""
    judged_by = judge and fingerprint(judge.state_dict())
    dtype = str(model.dtype).removeprefix("torch.")
    return {
        **settings.resolved(model.depth).to_json(model.kind),
        "dtype": dtype,
        "device": model.device.type,
        "batch_size": None if dtype == "float32" else batch_size,
        SOFT: judged_by if soft_labels else None,
        **_map_of(model, settings),
        **({"candidates": candidates, "chosen_by": judged_by} if candidates > 1 else {}),
    }


def _map_of(model: Model | DiffusionModel, settings: Settings) -> dict[str, str]:
    """Of a class token that decides what is amplified, its weights."""
    if not isinstance(model, DiffusionModel) or settings.map_from != CLASS_TOKEN or model.class_token is None:
        return {}
    return {CLASS_TOKEN: fingerprint(model.class_token.state_dict())}


def judge_of(model: Model | DiffusionModel, folder: str | Path | None) -> Classifier:
    """The classifier of soft labels and candidates, its classes being the model's, put into the model's order.

    Raises:
        UserError: there is none, or its classes are others.
    """
    folder = Path(folder) if folder else model.folder
    if folder is None:
        raise UserError(
            f"soft labels and candidates need a classifier, and {model.name} has none: name the folder of one"
        )
    return load_classifier_for(folder, model.class_ids, model.device)
