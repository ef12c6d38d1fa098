"""Curated pairs of a model: one sentence on each of what to notice, and how the pairs are chosen.

`python -m app.examples MODEL` chooses them by drawing. The sentences are written from the view model that is on screen,
and an observation that it does not bear out is not made.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from app.curated import FILE, Example, examples_of
from app.kinds import AnyModel, with_schedule
from app.view_requests import ViewRequest, read_request, to_query
from hieramp import Model
from hieramp.errors import UserError
from hieramp.files import write_text
from hieramp.settings import set_settings

CLEAR = 2.0  # a peak of the saliency worth pointing at, in even shares
OVERLAY = "0.4"  # how much of the saliency an example shows
ViewModel = Mapping[str, Any]


def order_of(model: AnyModel, one: Example) -> ViewRequest:
    """What is drawn.

    Raises:
        UserError: the model has no such class, or the seed is none.
    """
    settings = with_schedule(set_settings(model.kind, model.defaults), one.schedule, model.kind)
    request = {"class_name": one.class_name, "seed": one.seed, "count": 1}
    return read_request(model, request | settings.to_parts(model.kind))


# What there is to see. Each reads a finished view model, and answers None where it is not so.


def _same(view_model: ViewModel) -> str | None:
    count = sum(side * side for side in view_model["sides"])
    if any(step["changed"][0] or step["moved"][0] for step in view_model["steps"]):
        return None
    return (
        f"Nothing is amplified, so all {count} tokens and every pixel of the two are the same. Step through the "
        f"{len(view_model['sides'])} scales to see one picture grow."
    )


def _late(view_model: ViewModel) -> str | None:
    """The first scales are alike, the last ones are not."""
    changed = [len(step["changed"][0]) for step in view_model["steps"]]
    first = next((scale for scale, count in enumerate(changed) if count), None)
    if not first or view_model["stages"][first] != "fine":
        return None
    before, side = sum(n * n for n in view_model["sides"][:first]), view_model["sides"][first]
    return (
        f"Only details differ: the {before} tokens of the first {first} scales are the same. The first difference "
        f"comes at scale {first} ({side}×{side}), and the pixels end {_percent(view_model)} apart on average."
    )


def _early(view_model: ViewModel) -> str | None:
    """A few tokens at the coarse stage, and what follows from them."""
    changed = [len(step["changed"][0]) for step in view_model["steps"]]
    first = next((scale for scale, count in enumerate(changed) if count), None)
    if not first or view_model["stages"][first] != "coarse":
        return None
    later, count = sum(changed[first + 1 :]), sum(n * n for n in view_model["sides"][first + 1 :])
    positions = view_model["sides"][first] ** 2
    return (
        f"A small cause: {changed[first]} of {positions} tokens change at scale {first}, and {later} "
        f"of the {count} after it follow. The pixels end {_percent(view_model)} apart on average."
    )


def _all(view_model: ViewModel) -> str | None:
    live = [scale for scale, is_live in enumerate(view_model["live"]) if is_live]
    changed = view_model["steps"][-1]["changed"][0]
    if len(live) < len(view_model["sides"]) - 1 or not changed:
        return None
    positions = view_model["sides"][-1] ** 2
    return (
        f"Every scale but the first is amplified. At the last one {len(changed)} of {positions} tokens "
        f"differ; the pixels end {_percent(view_model)} apart on average."
    )


def brightest(view_model: ViewModel) -> tuple[float, int, int, int] | None:
    """The position of the baseline that draws most of the class token's attention, of all scales.

    How many times an even share it draws, its scale, row and column; None where nothing stands out.
    """
    peaks = [(max(step["maps"][0]) * len(step["maps"][0]), scale) for scale, step in enumerate(view_model["steps"])]
    times, scale = max(peaks)
    if times < CLEAR:
        return None
    values = view_model["steps"][scale]["maps"][0]
    return times, scale, *divmod(values.index(max(values)), view_model["sides"][scale])


def _peak(view_model: ViewModel) -> str | None:
    found = brightest(view_model)
    if found is None:
        return None
    times, scale, row, column = found
    side = view_model["sides"][scale]
    return (
        f"The bright spot: at scale {scale} ({side}×{side}) the class token gives row {row + 1}, column {column + 1} "
        f"of the baseline {times:.1f} times an even share of its attention."
    )


def _percent(view_model: ViewModel) -> str:
    return f"{100 * view_model['steps'][-1]['moved'][0]:.1f} %"


OBSERVATIONS: dict[str, Callable[[ViewModel], str | None]] = {
    "all": _all, "early": _early, "late": _late, "peak": _peak, "same": _same,
}  # fmt: skip
WANTED = (
    ("all", "all"),
    ("off", "peak"),
    ("coarse", "early"),
    ("fine", "late"),
    ("off", "same"),
    ("weak-coarse", "all"),
)


def notice(model: AnyModel, view_request: ViewRequest, view_model: ViewModel) -> str:
    """What to notice in a finished view model of a curated pair; "" where it is none or bears nothing out."""
    for one in examples_of(model):
        if order_of(model, one) == view_request:
            return OBSERVATIONS[one.notice](view_model) or ""
    return ""


def links(model: AnyModel) -> str:
    """The curated pairs as links to their addresses, which page.js opens in place; "" where there are none."""
    shown = []
    for one in examples_of(model):
        query = urlencode(to_query(model, order_of(model, one)) | {"overlay": OVERLAY})
        shown.append(f'<a href="?{escape(query)}">{escape(one.title)}</a>')
    return f'<nav class="examples" aria-label="Examples">Look at: {" ".join(shown)}</nav>' if shown else ""


# Choosing them


def choose(model: Model, seeds: Sequence[int] = range(12)) -> list[Example]:
    """Six pairs of different classes that bear out their observation; of each, the seed whose pictures are surest.

    A picture is as sure as the model's classifier is of its class, the worse of the pair.

    Raises:
        UserError: the model has no classifier, or no pair bears out an observation.
    """
    from app import handlers  # which writes view models, which ask for a notice
    from hieramp.classifier import load_classifier

    if model.folder is None:
        raise UserError("examples are chosen for a model folder, by its classifier: give one")
    classifier, chosen = load_classifier(model.folder).to(model.device), list[Example]()
    sure = {}
    for schedule in dict.fromkeys(schedule for schedule, _ in WANTED):
        settings = with_schedule(set_settings(model.kind, model.defaults), schedule, model.kind)
        for label in range(len(model.class_names)):
            images = model.generate([label] * len(seeds), list(seeds), settings).images
            for seed, p in zip(seeds, classifier(images).softmax(-1)[:, label].tolist(), strict=True):
                sure[schedule, label, seed] = p
    for schedule, wanted in WANTED:
        taken = {one.class_name for one in chosen}
        free = [label for label, name in enumerate(model.class_names) if name not in taken]
        pairs = [(label, seed) for label in (free or range(len(model.class_names))) for seed in seeds]
        worth = {pair: min(sure[(schedule, *pair)], sure[("off", *pair)]) for pair in pairs}
        for label, seed in sorted(pairs, key=lambda pair: worth[pair], reverse=True):
            one = Example(model.class_names[label], seed, schedule, wanted)
            *_, view_model = handlers.grow(model, order_of(model, one))
            if OBSERVATIONS[wanted](view_model):
                chosen.append(one)
                break
        else:
            raise UserError(
                f"no pair of {model.name} bears out {wanted!r} with the schedule {schedule}: try more seeds"
            )
    return chosen


def main() -> None:
    import hieramp

    parser = argparse.ArgumentParser(prog="python -m app.examples", description="Choose the curated pairs of a model.")
    parser.add_argument("model", help="a model that ships, or a folder with a classifier")
    parser.add_argument("--seeds", type=int, default=12, help="how many seeds of each class are tried (default: 12)")
    args = parser.parse_args()
    model = hieramp.load(args.model, kind="var")
    chosen = choose(model, range(args.seeds))
    assert model.folder is not None
    write_text(model.folder / FILE, json.dumps([vars(one) for one in chosen], indent=1) + "\n")
    print(f"{model.folder / FILE} written: " + "; ".join(one.title for one in chosen))


if __name__ == "__main__":
    main()
