"""What is saved from the viewer: the figure, the growth and the maps hold what the model drew."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_diffusion import build as build_dit

import hieramp
from app import exports, grown_pair, saved_files, view_requests
from hieramp import figures
from hieramp.errors import UserError


@pytest.fixture(scope="module")
def served(model_folder: Path) -> hieramp.Model:
    return hieramp.load(model_folder, "cpu")


def request_of(model: Any, **values: Any) -> view_requests.ViewRequest:
    return view_requests.read_request(model, view_requests.defaults(model) | {"class_name": 1, "seed": 4} | values)


def saved(model: Any, view_request: view_requests.ViewRequest, asked: dict[str, Any]) -> dict[str, Any]:
    *before, last = saved_files.saving(model, view_request, asked)
    assert before and not any(piece.answer for piece in before) and last.answer
    return last.answer


def returned(pieces: Any) -> Any:
    """What a generator returns at its end."""
    try:
        while True:
            next(pieces)
    except StopIteration as ended:
        return ended.value


def test_a_figure_shows_the_pictures_and_brings_the_settings_back(served: hieramp.Model, tmp_path: Path) -> None:
    view_request = request_of(served, count=2, guidance=3.0)
    found = saved(served, view_request, {"what": "figure", "sample": 1})
    assert found["name"] == "cat-seed5-figure.png"
    path = tmp_path / found["name"]
    path.write_bytes(found["bytes"])
    stored = figures.read_settings(path)
    assert view_requests.from_picture(served, stored) == request_of(served, seed=5, guidance=3.0)
    with Image.open(path) as picture:
        assert picture.width == exports.WIDTH
        images = served.generate(*view_request.batch).images[[1, 3]]
        size = (exports.WIDTH - 3 * exports.EDGE) // 2
        for i, image in enumerate(images):
            left, top = exports.EDGE + i * (size + exports.EDGE), exports.EDGE + 44
            pane = picture.crop((left, top, left + size, top + size))
            drawn = figures.to_picture(image).resize((size, size), Image.Resampling.BICUBIC)
            assert np.array_equal(np.asarray(pane), np.asarray(drawn))


def test_a_figure_names_only_the_seed_that_it_shows(served: hieramp.Model) -> None:
    def foot(count: int, seed: int, sample: int) -> bytes:
        found = saved(served, request_of(served, seed=seed, count=count), {"what": "figure", "sample": sample})
        with Image.open(io.BytesIO(found["bytes"])) as picture:
            size = (exports.WIDTH - 3 * exports.EDGE) // 2
            return picture.crop((0, 2 * exports.EDGE + 44 + size, *picture.size)).tobytes()

    assert foot(count=2, seed=4, sample=1) == foot(count=1, seed=5, sample=0) != foot(count=1, seed=4, sample=0)


def test_maps_are_saved_as_the_model_has_them(served: hieramp.Model) -> None:
    view_request = request_of(served)
    steps = list(served.steps(*view_request.batch, return_attention=True))
    asked = {"what": "maps", "block": 1, "head": 2}
    with zipfile.ZipFile(io.BytesIO(saved(served, view_request, asked)["bytes"])) as archive:
        about = json.loads(archive.read("about.json"))
        arrays = np.load(io.BytesIO(archive.read("maps.npz")))
        for step in steps:
            i = step.scale
            assert np.array_equal(arrays[f"saliency_{i}"], step.saliency.numpy())
            assert np.array_equal(arrays[f"tokens_{i}"].reshape(2, -1), step.tokens.numpy())
            assert step.block_saliency is not None
            assert np.array_equal(arrays[f"block_saliency_{i}"], step.block_saliency.numpy())
        assert "chosen_0" not in arrays and np.array_equal(
            arrays["chosen_5"], steps[5].chosen(view_request.settings).numpy()
        )
        assert about["images"] == "block_saliency of block 1, head 1" and about["settings"]["seeds"] == [4]
        with Image.open(io.BytesIO(archive.read("images/5-8x8-amplified.png"))) as heat:
            shares = steps[5].block_saliency[:, 1, 1]  # type: ignore[index]
            colours = np.frombuffer(figures.palette(), np.uint8).reshape(256, 3)
            row, column = divmod(int(shares[1].argmax()), 8)
            level = int(float(shares[1].max() / shares.max()) * 255)
            pixel = np.asarray(heat)[row * heat.height // 8 + 2, column * heat.width // 8 + 2]
            assert np.abs(pixel.astype(int) - colours[level]).max() <= 8


def test_the_growth_has_a_frame_for_each_scale(served: hieramp.Model) -> None:
    view_request = request_of(served)
    found = saved(served, view_request, {"what": "growth", "overlay": 0.4, "scale": 2})
    with Image.open(io.BytesIO(found["bytes"])) as film:
        assert film.n_frames == 6 and film.width == exports.WIDTH and film.info["loop"] == 0
        stored = json.loads(film.info["comment"])[figures.SETTINGS_KEY]
        assert view_requests.from_picture(served, stored) == view_request
        frames = []
        for i in range(film.n_frames):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB")).copy())
            assert film.info["duration"] == (exports.LAST_MS if i == 5 else exports.FRAME_MS)
    # the last frame is the finished pair under the last map, as the figure has it but for 256 colours
    shown = grown_pair.read_shown(served, view_request, {"overlay": 0.4, "scale": 5})
    drawn = returned(grown_pair.draw(served, view_request, shown))
    size = (exports.WIDTH - 3 * exports.EDGE) // 2
    pane = np.asarray(exports._panes(drawn, 5, shown, size)[0]).astype(int)
    top = exports.EDGE + 44
    assert np.abs(frames[-1][top : top + size, exports.EDGE : exports.EDGE + size] - pane).mean() < 8


def test_a_diffusion_transformer_is_saved_too() -> None:
    dit = build_dit()
    view_request = view_requests.read_request(dit, view_requests.defaults(dit) | {"steps": 4})
    with Image.open(io.BytesIO(saved(dit, view_request, {"what": "growth"})["bytes"])) as film:
        assert film.n_frames == 4
    answer = saved(dit, view_request, {"what": "maps"})["bytes"]
    with zipfile.ZipFile(io.BytesIO(answer)) as archive:
        arrays = np.load(io.BytesIO(archive.read("maps.npz")))
        assert arrays["saliency_3"].shape == (2, 8, 8) and arrays["chosen_1"].sum((1, 2)).tolist() == [0, 32]
    assert saved(dit, view_request, {"what": "figure", "overlay": 1, "outline": True})["bytes"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"what": "../x"}, "cannot be saved: choose figure, growth, maps"),
        ({"what": "figure", "overlay": 2}, "the overlay is 2; give a share"),
        ({"what": "figure", "overlay": "x"}, "the overlay is 'x'"),
        ({"what": "figure", "scale": 6}, "the scale is 6"),
        ({"what": "figure", "block": 4}, "the block is 4"),
        ({"what": "figure", "sample": 1}, "the sample is 1"),
    ],
)
def test_what_is_not_there_cannot_be_saved(served: hieramp.Model, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        saved(served, request_of(served), asked)


def test_an_outline_runs_around_the_positions() -> None:
    picture, mask = Image.new("RGB", (80, 80)), torch.zeros(4, 4, dtype=torch.bool)
    mask[1, 1:3] = True
    exports._outline(picture, mask)
    marked = np.asarray(picture)[..., 0] > 200
    assert marked[20, 30] and marked[40, 50] and marked[30, 20] and marked[30, 60]
    assert not marked[30, 40] and not marked[10, 10] and not marked[60, 30]
