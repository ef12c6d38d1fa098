"""Weights of the images of a set, where its method has some."""

import csv
import io
import json
from pathlib import Path

import pytest
from test_methods import OPTIONS, folder, small, source  # noqa: F401 (fixtures)

from hieramp.data import DataSource
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.distill import distill
from hieramp.distillation.methods import store
from hieramp.distillation.methods.d4m import D4M
from hieramp.distillation.methods.method import Method
from hieramp.distillation.methods.mgd3 import MGD3
from hieramp.errors import UserError
from hieramp.imageset.layout import Format
from hieramp.imageset.reader import open_set
from hieramp.imageset.verify import problems


@pytest.mark.parametrize(("method", "format"), [(D4M(), "folder"), (MGD3(), "zip"), (D4M(), "webdataset")])
def test_images_that_stand_for_clusters_have_weights(
    method: Method,
    format: Format,
    small: DiffusionModel,  # noqa: F811
    source: DataSource,  # noqa: F811
    tmp_path: Path,
) -> None:
    out = tmp_path / ("set.zip" if format == "zip" else "set")
    batches = distill(small, 3, out, method=method, data=source, format=format, batch_size=2, **OPTIONS)
    next(progress for progress in batches if progress.done)  # stopped after the first, and gone on with
    distill(small, 3, out, method=method, data=source, format=format, batch_size=4, **OPTIONS).run()
    with open_set(out) as image_set:
        weights, labels = image_set.weights, image_set.labels
        assert weights is not None and not list(problems(image_set))
        card, table = image_set.read("README.md").decode(), image_set.read("train/metadata.csv").decode()
        image_set.manifest["images"][0]["weight"] = 0.9
        assert list(problems(image_set)) == ["train/metadata.csv does not agree with dataset.json"]
    for label, name in enumerate(small.class_names):
        sizes = store.read_safetensors(next((tmp_path / "prepared").glob("k-means*")) / f"{label}.safetensors")["sizes"]
        ours = [weight for weight, of in zip(weights, labels, strict=True) if of == label]
        assert ours == pytest.approx((sizes / sizes.sum()).tolist()) and sum(ours) == pytest.approx(1), name
    assert len(set(weights)) > 1 and "Images have weights (the column `weight` of `train/metadata.csv`" in card
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [float(row["weight"]) for row in rows] == list(weights)
    if format == "folder":
        datasets = pytest.importorskip("datasets")
        hub = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
        assert list(hub["weight"]) == list(weights) and hub.features["label"].names == ["red", "blue"]
        manifest = json.loads((out / "dataset.json").read_text())
        del manifest["images"][0]["weight"]
        (out / "dataset.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match="the weight of some images is missing"):
            open_set(out)
