"""The plots that the page and the terminal save: what they show, and what is inside their files."""

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import hieramp
from app import dose as page_dose
from app import plots, view_requests
from hieramp import SCHEDULES
from hieramp.analysis.bootstrap import mean_interval, mean_usage
from hieramp.analysis.dose import file_start, in_words, sweep, swept
from hieramp.analysis.doseplot import dose_figure, dose_title
from hieramp.analysis.schedules import compare_schedules, count_tokens
from hieramp.analysis.tokenplots import changed_figure, risen_figure, usage_figure
from hieramp.analysis.tokens import Risen, Usage, share_interval
from hieramp.captions import caption
from hieramp.classifier import load_classifier
from hieramp.commands.main import main
from hieramp.figures import STUDY, figure_bytes, read_settings, save_figure


def heights(figure: Figure, panel: int) -> list[float]:
    return [bar.get_height() for bar in figure.axes[panel].patches if isinstance(bar, Rectangle)]


def title_of(figure: Figure) -> str:
    return " ".join(figure.get_suptitle().split())


def test_bars_of_usage_are_the_counts(model: hieramp.Model) -> None:
    *_, count = count_tokens(model, 1, 2, SCHEDULES["all"])
    figure = usage_figure(plots.levels(count, model.var.scales.sides), "cat: 2 pairs")
    before, after = count.per_scale
    stages = [of_stage.values() for of_stage in count.per_stage]
    both = [*before, *stages[0], *after, *stages[1]]
    assert heights(figure, 0) == pytest.approx([usage.entropy for usage in both])
    assert heights(figure, 1) == pytest.approx([100 * usage.coverage for usage in both])
    names = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert names == ["1×1", "2×2", "3×3", "4×4", "6×6", "8×8", "coarse", "mid", "fine"]
    at = figure.axes[1].get_xticks()
    assert at[6] - at[5] > at[5] - at[4]  # a stage holds the tokens of its scales: set apart
    assert title_of(figure) == "cat: 2 pairs"  # one class: no interval to explain


def test_levels_of_several_classes_have_their_intervals() -> None:
    usages = [Usage(entropy, entropy / 10, 40) for entropy in (1.0, 2.0, 4.0)]
    found = mean_usage(usages)
    assert found.entropy == mean_interval([1.0, 2.0, 4.0]) and found.coverage.value == pytest.approx(0.7 / 3)
    figure = usage_figure({"a set": {"8×8": found, "fine": found}}, "3 classes")
    drawn = [line.get_ydata() for line in figure.axes[0].get_lines()]
    assert [list(ends) for ends in drawn] == [[found.entropy.low, found.entropy.high]] * 2
    assert "95 % bootstrap interval of the mean over classes" in title_of(figure)


def test_maps_hold_the_shares(model: hieramp.Model) -> None:
    *_, count = count_tokens(model, 1, 3, SCHEDULES["all"])
    figure = changed_figure(count.changed, "where they differ")
    maps = [axes.images[0] for axes in figure.axes if axes.images and axes.get_title()]
    assert len(maps) == 6
    for shown, share in zip(maps, count.changed, strict=True):
        assert np.allclose(shown.get_array(), 100 * np.asarray(share)) and shown.get_clim() == (0, 100)
    assert figure.axes[5].get_xlabel() == f"mean {100 * np.mean(count.changed[5]):.0f} %"


def test_ten_scales_take_two_rows() -> None:
    figure = changed_figure([np.zeros((side, side)).tolist() for side in range(1, 11)], "ten")
    tops = {round(axes.get_subplotspec().get_position(figure).y1, 2) for axes in figure.axes if axes.images}
    assert len(tops) >= 2


def test_shares_that_rose_have_wilsons_intervals(model: hieramp.Model) -> None:
    *_, comparison = compare_schedules(model, [0, 1, 2], 1)
    figure = risen_figure(comparison.risen, "three classes", "schedule")
    bars = [r for stage in ("coarse", "mid", "fine") for r in (of[stage] for of in comparison.risen.values())]
    assert heights(figure, 0) == pytest.approx([100 * r.entropy for r in bars])
    assert heights(figure, 1) == pytest.approx([100 * r.coverage for r in bars])
    ends = [100 * end for r in bars for end in share_interval(r.entropy, 3)]
    lines = [line.get_ydata() for line in figure.axes[0].get_lines() if list(line.get_ydata()) != [50, 50]]
    assert [float(end) for line in lines for end in line] == pytest.approx(ends)
    lone = risen_figure({"8×8": {"ours over base": Risen(0.5, 0.25, 4)}}, "one", "scales")
    assert heights(lone, 0) == [50] and heights(lone, 1) == [25]


def test_curves_are_the_sweep(judged_folder: Path, tmp_path: Path) -> None:
    model = hieramp.load(judged_folder, "cpu")
    settings = model.defaults
    *_, found = sweep(model, load_classifier(judged_folder), 1, "fine", "rho", settings, (4, 5, 6), (0.2, 0.5, 1.0))
    words = caption(settings, found.seeds, swept="fine")
    figure = dose_figure(found, dose_title(found, "cat", model.name, words))
    for axes, measure in zip(figure.axes, found.measures, strict=True):
        curve, plain = axes.get_lines()[-1], axes.get_lines()[0]
        assert list(curve.get_xdata()) == [0.2, 0.5, 1.0]
        assert list(curve.get_ydata()) == [r.estimate(measure).mean for r in found.responses]
        assert plain.get_ydata()[0] == found.plain.estimate(measure).mean
        (whiskers,) = (c for c in axes.collections if hasattr(c, "get_segments"))
        ends = [[e.low, e.high] for e in (r.estimate(measure) for r in found.responses)]
        assert np.allclose([segment[:, 1] for segment in whiskers.get_segments()], ends)
    title = title_of(figure)
    assert "cat, dose and response: fine ρ 0.2 to 1 at strength 5, tiny, n = 3 seeds a dose. Seeds 4–6." in title
    assert "fine as swept" in title and "Student’s t" in title
    about = model.describe(1, found.seeds, settings) | swept(found)
    path = tmp_path / f"{file_start(found, 'cat')}.png"
    save_figure(figure, path, about)
    assert path.name == "cat-seed4-n3-dose-fine-rho.png" and read_settings(path) == about
    # the page draws by the same function, and its links are of the same names
    request = view_requests.from_query(model, {"class": "cat", "seed": "4"})
    links = page_dose.links_of(model, request, found)
    assert all(f'download="cat-seed4-n3-dose-fine-rho.{kind}"' in links for kind in ("png", "svg", "csv", "json"))


def test_a_plot_saved_from_a_study_opens_what_it_is_of(model: hieramp.Model, tmp_path: Path) -> None:
    settings = SCHEDULES["fine"]
    how = hieramp.Settings.of(model.defaults, settings)
    about = model.describe(1, list(range(3, 19)), how) | {STUDY: {"what": "tokens", "pairs": 16}}
    path = tmp_path / "a.png"
    path.write_bytes(figure_bytes(Figure(), "png", about))
    stored = read_settings(path)
    view_request = view_requests.from_picture(model, stored)
    assert view_request.seeds == tuple(range(3, 11)) and view_request.settings.fine == settings.fine
    assert view_requests.remarks(model, stored) == [
        "This is a plot over 16 seeds: the pictures of the first 8 are shown."
    ]


def test_no_plot_stays_in_memory(model: hieramp.Model) -> None:
    """Figures are made without pyplot, which would keep them all."""
    *_, count = count_tokens(model, 1, 1, SCHEDULES["all"])
    usage_figure(plots.levels(count, model.var.scales.sides), "one")
    assert not plt.get_fignums()


# The terminal


def test_dose_writes_figure_table_and_json(
    judged_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    main(
        ["dose", "--class", "cat", "--stage", "mid", "--knob", "strength", "--seed", "7", "--count", "3"]
        + ["--doses", "8", "0", "4", "--stages", "coarse=50%:5,mid=30%:2,fine=off", "--guidance", "2"]
        + ["--model", str(judged_folder), "--device", "cpu", "--out", str(out)]
    )
    said, start = capsys.readouterr(), "cat-seed7-n3-dose-mid-strength"
    assert sorted(path.name for path in out.iterdir()) == [f"{start}.{kind}" for kind in ("csv", "json", "png", "svg")]
    settings = read_settings(out / f"{start}.png")
    assert settings["seeds"] == [7, 8, 9] and settings["class"] == "cat" and settings["guidance"] == 2.0
    assert settings["stages"] == {"coarse": [0.5, 5.0], "mid": [0.3, 2.0], "fine": None}
    assert settings[STUDY]["doses"] == [0, 4, 8] and settings[STUDY]["rho"] == 0.3
    with Image.open(out / f"{start}.png") as picture:
        assert picture.width >= 1000
    svg = (out / f"{start}.svg").read_text(encoding="utf-8")
    assert "n = 3 seeds a dose. Seeds 7–9. Guidance 2" in " ".join(svg.split()) and "mid strength" in svg
    model = hieramp.load(judged_folder, "cpu")
    how = hieramp.Settings.from_json(settings, beside=list(settings))
    *_, found = sweep(model, load_classifier(judged_folder), 1, "mid", "strength", how, (7, 8, 9), (0.0, 4.0, 8.0))
    written = json.loads((out / f"{start}.json").read_text(encoding="utf-8"))
    assert written["doses"][1]["probability"]["mean"] == pytest.approx(found.responses[1].estimate("probability").mean)
    assert written["doses"][2]["change"]["pixels"]["low"] == pytest.approx(
        found.responses[2].change(found.plain, "pixels").low
    )
    assert written["seeds"] == [7, 8, 9] and in_words(found) == written["in_words"] and written["in_words"] in said.out
    table = (out / f"{start}.csv").read_text(encoding="utf-8").splitlines()
    assert f"# stages: {json.dumps(settings['stages'])}" in table
    rows = list(csv.DictReader(line for line in table if not line.startswith("#")))
    assert len(rows) == 4 * 3 and [row["dose"] for row in rows[::3]] == ["", "0", "4", "8"]
    assert "3 of 3 doses" in said.err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--count", "1"], "take at least 2 seeds"),
        (["--count", "65"], "at most 64 seeds"),
        (["--doses", "3"], "1 dose is no sweep"),
        (["--knob", "rho", "--doses", "0.5", "2"], "fine rho is 2; it must be a number over 0 and at most 1"),
        (["--stage", "top"], "invalid choice: 'top'"),
        (["--class", "unicorn"], "unknown class 'unicorn'"),
    ],
)
def test_dose_says_what_is_wrong_before_it_draws(
    judged_folder: Path, tmp_path: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["dose", "--class", "cat", "--model", str(judged_folder), "--out", str(tmp_path / "out"), *more])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in said and "0 of" not in said and not (tmp_path / "out").exists()


def test_dose_takes_another_models_classifier(
    model_folder: Path, judged_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common: list[Any] = ["dose", "--class", "cat", "--model", str(model_folder), "--out", str(tmp_path), "--count", "2"]
    with pytest.raises(SystemExit):
        main(common)
    assert "has no classifier" in capsys.readouterr().err
    main([*common, "--doses", "0", "8", "--classifier", str(judged_folder)])
    assert (tmp_path / "cat-seed0-n2-dose-fine-strength.png").exists()


def test_several_doses_may_be_negative_and_what_rounds_to_nothing_has_no_sign(
    judged_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["dose", "--class", "cat", "--model", str(judged_folder), "--out", str(tmp_path), "--count", "2"]
    main([*common, "--stages", "off", "--stage", "mid", "--doses", "-1", "-0.5", "0"])
    said = capsys.readouterr().out
    assert "mid, strength 0:" in said and "paired difference 0.000 (0.000 to 0.000" in said
    (table,) = tmp_path.glob("*.csv")
    rows = list(csv.DictReader(line for line in table.read_text().splitlines() if not line.startswith("#")))
    assert {row["dose"] for row in rows} == {"", "-1", "-0.5", "0"}
