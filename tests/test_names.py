"""Names of classes in saved pictures: any script, any length, and what Matplotlib takes for formulas."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from hieramp import figures
from hieramp.evaluation.results import confusion_figure
from hieramp.imageset.card import contact_sheet

TILE = Image.new("RGB", (64, 64), "red")
UNKNOWN = "\U000f0000"  # of private use: no font has it
CAT = "\u732b"  # 猫


def written(*names: str, portable: bool = False) -> list[np.ndarray]:
    """The labels of a sheet, each as pixels."""
    picture = np.asarray(figures.sheet([(name, [TILE]) for name in names], portable=portable))
    tops = [figures.GAP + i * (64 + figures.GAP) for i in range(len(names))]
    return [picture[top : top + 64, : -64 - 2 * figures.GAP] for top in tops]


def test_what_no_font_has_is_written_by_its_number() -> None:
    assert figures.spelled_out(f"big {CAT} dog") == "big U+732B dog" and figures.spelled_out("Café · Ωβ") == "Café · Ωβ"
    ours, spelled = written(UNKNOWN, "U+F0000")
    assert np.array_equal(ours, spelled) and ours.min() < 128
    ours, spelled = written(CAT, "U+732B", portable=True)
    assert np.array_equal(ours, spelled)


def test_a_font_of_this_machine_is_taken_where_it_has_the_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    figures._font_for.cache_clear()
    known = figures._characters

    def also(path: object) -> frozenset[int]:
        return known(figures.FONT) | {ord(CAT)} if "Mono" in str(path) else known(path)  # type: ignore[arg-type]

    monkeypatch.setattr(figures, "_characters", also)
    text, font = figures.writing(CAT, 15, 300, portable=False)
    assert text == CAT and "Mono" in str(font.path)
    assert figures.writing(CAT, 15, 300, portable=True)[0] == "U+732B"
    figures._font_for.cache_clear()


def test_long_names_are_cut_and_leave_the_pictures_their_room() -> None:
    picture = figures.sheet([("x" * 120, [TILE])], ["y" * 120])
    assert picture.width < figures.LABEL_WIDTH + 64 + 5 * figures.GAP
    text, font = figures.writing("x" * 120, 15, figures.LABEL_WIDTH, portable=False)
    assert text.endswith("x…") and font.getlength(text) <= figures.LABEL_WIDTH


def test_names_are_no_formulas_and_no_boxes_in_plots() -> None:
    names = ["$\\frac{$", "a_$x$", CAT, "100% cotton"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns of a glyph that it lacks
        figure = confusion_figure(torch.eye(4), names)
        figure.canvas.draw()
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown == ["$\\frac{$", "a_$x$", "U+732B", "100% cotton"]


def test_contact_sheets_are_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_font_for", lambda *_: pytest.fail("a font of this machine"))
    assert contact_sheet([(f"{CAT} cat", [figures.png_bytes(TILE)])]).startswith(b"<svg")
