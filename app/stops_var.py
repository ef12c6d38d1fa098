"""The stops of the tour of a VAR, which draws scale by scale. Pure."""

from collections.abc import Sequence

from app.claims import Claim, Shares, Stop, ViewModel, few_places, is_it_more_itself, moved, pixels

FLAT = 0.25  # a picture with less than this share of the finished one's contrast is one colour


def _one_colour(view_model: ViewModel, _: Shares) -> Claim | None:
    contrasts = [_contrast(step["images"][0]) for step in view_model["steps"]]
    first, whole = contrasts[0], contrasts[-1]
    if whole == 0 or first >= FLAT * whole:
        return None
    middle = len(contrasts) // 2
    return Claim(
        0,
        f"The contrast of the picture after scale 0 is {first / whole:.0%} of the finished one’s; after scale {middle} "
        f"it is {contrasts[middle] / whole:.0%}. Step through the scales with the arrows above the pictures.",
        0,
    )


def _contrast(uri: str) -> float:
    """The standard deviation of the pixels over their places, mean of the colours."""
    return float(pixels(uri).std((0, 1)).mean())


def _coarse_moves_all(view_model: ViewModel, _: Shares) -> Claim | None:
    changed = [len(step["changed"][0]) for step in view_model["steps"]]
    first = _first(changed)
    if first is None or view_model["stages"][first] != "coarse":
        return None
    coarse = [scale for scale, stage in enumerate(view_model["stages"]) if stage == "coarse"]
    later, count = sum(changed[coarse[-1] + 1 :]), sum(n * n for n in view_model["sides"][coarse[-1] + 1 :])
    if not later:
        return None
    return Claim(
        1 if 2 * later < count else 2,
        f"{later} of the {count} tokens after the coarse stage differ, though nothing is amplified there: each scale "
        f"is drawn given the ones before. The pixels end {moved(view_model)} apart on average.",
        None,
    )


def _fine_keeps_layout(view_model: ViewModel, _: Shares) -> Claim | None:
    changed = [len(step["changed"][0]) for step in view_model["steps"]]
    first = _first(changed)
    if not first or view_model["stages"][first] != "fine":
        return None
    before = sum(n * n for n in view_model["sides"][:first])
    return Claim(
        1,
        f"The {before} tokens of the first {first} scales are the same; the first difference comes at scale {first}. "
        f"The pixels end {moved(view_model)} apart on average: look for it in Compare.",
        None,
    )


def _first(changed: Sequence[int]) -> int | None:
    return next((scale for scale, count in enumerate(changed) if count), None)


STOPS = (
    Stop(
        "A scale at a time",
        "This picture was drawn from coarse to fine: first one token for all of it, then 2×2 tokens, and so on. All "
        "tokens of a scale are drawn at once, given the scales before.",
        "What can the one token of scale 0 say?",
        ("Little more than one colour", "The outline of the thing", "All but the details"),
        "off",
        _one_colour,
    ),
    Stop(
        "Where it looks",
        "At each scale a class token looks at the picture so far, to tell its class. How much it attends to a position "
        "is the saliency of that position.",
        "How does it look?",
        ("At all positions about alike", "At some positions much more than at others"),
        "off",
        few_places("its attention"),
        overlay=0.5,
    ),
    Stop(
        "A coarse cause",
        "Now ρ = 50 % of the positions of the coarse stage are amplified, the most salient ones: every position there "
        "attends more to them, by β = 5. All later scales are left as they are.",
        "How many tokens after the coarse stage will differ?",
        ("None: nothing is amplified there", "Some, but less than half", "Half or more"),
        "coarse",
        _coarse_moves_all,
    ),
    Stop(
        "Fine scales",
        "The same at the fine stage alone.",
        "Where will the first token differ?",
        ("At a coarse scale: the layout moves", "At a fine scale: only details change"),
        "fine",
        _fine_keeps_layout,
    ),
    is_it_more_itself(
        "All three stages, as the paper distills. A classifier that was trained on real images judges both pictures."
    ),
)  # fmt: skip
