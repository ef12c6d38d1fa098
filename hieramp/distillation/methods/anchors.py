"""Anchors: for each image of a set a point among the latents of the real images of its class, by k-means.

Lloyd's algorithm from k-means++ (Arthur & Vassilvitskii, 2007), in float64, one start, as scikit-learn's KMeans has it;
a cluster that runs empty takes the point that is farthest from its centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from hieramp.distillation.methods.method import DIT, OfImages, Work
from hieramp.distillation.methods.store import Tensors
from hieramp.distillation.plan import Item
from hieramp.errors import UserError
from hieramp.fields import Choice, Knob, Number
from hieramp.seeds import seed_of

ROUNDS, TOLERANCE = 300, 1e-4  # scikit-learn's
ANCHORS = (("centroid", "the mean of the cluster"), ("nearest", "the real image nearest to that mean"))


@dataclass(frozen=True)
class Clusters:
    """Of N points in k clusters."""

    centres: np.ndarray  # (k, D)
    cluster: np.ndarray  # (N,): which one a point is in
    distances: np.ndarray  # (N,): to its centre, squared


def k_means(points: np.ndarray, k: int, seed: int) -> Clusters:
    """Cluster points (N, D).

    Raises:
        UserError: there are fewer different points than clusters.
    """
    points = points.astype(np.float64)
    different = len(np.unique(points, axis=0))
    if different < k:
        raise UserError(f"k-means finds {different} different images for {k} clusters: lower --ipc")
    random = np.random.default_rng(seed)
    centres = _spread(points, k, random)
    enough = TOLERANCE * points.var(0).mean()
    for _ in range(ROUNDS):
        cluster, distances = _nearest(points, centres)
        moved = _means(points, cluster, distances, k)
        shift, centres = float(((moved - centres) ** 2).sum()), moved
        if shift <= enough:
            break
    return Clusters(centres, *_nearest(points, centres))


def _spread(points: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is a point, the likelier the farther it is from those so far."""
    chosen = [int(random.integers(len(points)))]
    distances = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < k:
        chosen.append(int(random.choice(len(points), p=distances / distances.sum())))
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen]


def _nearest(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    squared = (points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)
    return squared.argmin(1), squared.min(1).clip(0)


def _means(points: np.ndarray, cluster: np.ndarray, distances: np.ndarray, k: int) -> np.ndarray:
    cluster = cluster.copy()
    far = iter(distances.argsort(kind="stable")[::-1])
    for empty in np.flatnonzero(np.bincount(cluster, minlength=k) == 0):
        # of the farthest points the next whose cluster keeps another
        cluster[next(i for i in far if (cluster == cluster[i]).sum() > 1)] = empty
    sums = np.zeros((k, points.shape[1]))
    np.add.at(sums, cluster, points)
    return sums / np.bincount(cluster, minlength=k)[:, None]


@dataclass(frozen=True)
class AnchorsOf:
    """The anchors of items: of image k of a class the k-th anchor of the class, the largest cluster first."""

    of_class: dict[int, Tensor]  # label: (ipc, C, h, w)
    ipc: int

    def __call__(self, items: Sequence[Item]) -> Tensor:
        return torch.stack([self.of_class[item.label][item.index % self.ipc] for item in items])


@dataclass(frozen=True)
class Anchored(OfImages):
    """A method with an anchor for each image; the options of the clustering."""

    anchor: Annotated[
        str,
        Knob(Choice(ANCHORS), "Anchor", "centroid of a cluster, or the real image nearest to it.", "methods", DIT),
    ] = "centroid"
    cluster_pca: Annotated[
        int,
        Knob(
            Number(0, 4096, unit="count", whole=True),
            "PCA",
            "Cluster in so many principal components of a class; 0: in the latents themselves.",
            "methods",
            DIT,
        ),
    ] = 0

    def anchors(self, work: Work) -> AnchorsOf:
        """k-means with k = IPC on the latents of each class."""
        latents_stage, latents = work.real.latents(work.store, work.diffusion, self.images_per_class, work.seed)
        about = {"of": latents_stage.hash, "k": work.ipc, "pca": self.cluster_pca, "seed": work.seed}
        jobs = {str(label): partial(self._clustered, work, label, z) for label, z in latents.items()}
        found = work.store.stage("k-means", about).get(jobs, torch.device("cpu"), "k-means")
        wanted = {"centroid": "centroids", "nearest": "nearest"}[self.anchor]
        return AnchorsOf({label: found[str(label)][wanted] for label in latents}, work.ipc)

    def _clustered(self, work: Work, label: int, z: Tensor) -> Tensors:
        """Of a class: centroids, the latents nearest to them (both (ipc, C, h, w)), and the clusters' sizes."""
        flat = z.flatten(1).double().numpy()
        found = k_means(projected(flat, self.cluster_pca), work.ipc, seed_of(work.seed, label))
        sizes = np.bincount(found.cluster, minlength=work.ipc)
        centroids, nearest = [], []
        for cluster in np.argsort(-sizes, kind="stable"):
            members = np.flatnonzero(found.cluster == cluster)
            centroids.append(flat[members].mean(0))
            nearest.append(members[((flat[members] - centroids[-1]) ** 2).sum(1).argmin()])
        shape = z.shape[1:]
        return {
            "centroids": torch.from_numpy(np.stack(centroids)).float().unflatten(1, shape),
            "nearest": z[torch.tensor(np.array(nearest))],
            "sizes": torch.from_numpy(np.sort(sizes)[::-1].copy()),
        }


def projected(points: np.ndarray, components: int) -> np.ndarray:
    """Points (N, D) in their first principal components; 0: as they are."""
    if not components:
        return points
    centred = points - points.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, ::-1][:, :components]
