"""The same set from many machines: a Ray cluster's workers make batches, this process writes them.

One machine needs no Ray; install it with requirements-ray.txt. A worker that dies is started anew and costs its
unfinished batch.
"""

from collections.abc import Iterator
from typing import Any

import torch

from hieramp.devices import flush_denormals
from hieramp.distillation.maker import Batch, BatchRequest, Drawer
from hieramp.distillation.methods.drawing import Selected
from hieramp.distillation.parts import PartFolder
from hieramp.distillation.plan import Plan
from hieramp.distillation.production import Progress, Queue, is_out_of_memory, produce_with
from hieramp.errors import UserError

MAX_DEATHS = 5  # of workers over one request: then the request itself must be what kills them


def produce_on_ray(plan: Plan, drawer: Drawer | Selected, batch_size: int, workers: int | None) -> Iterator[Progress]:
    """Make a plan's set on a Ray cluster: the one of RAY_ADDRESS, else a local one.

    `workers` None takes one a GPU of the cluster where the model is on one, else one a node.

    Raises:
        UserError: Ray is not installed, or the place holds other settings.
        OSError: the disk is full or not writable, or workers keep dying. What is done is kept.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install -r requirements-ray.txt") from error
    return produce_with(plan, lambda queue, folder: _make_on_ray(ray, queue, folder, drawer, workers), batch_size)


def _move(drawer: Drawer | Selected, device: torch.device) -> None:
    drawer.model.to(device)
    if drawer.classifier is not None:
        drawer.classifier.to(device)


class _Worker:
    """Runs in a Ray worker: its own copy of the drawer, on its own device."""

    def __init__(self, drawer: Drawer | Selected, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        flush_denormals()
        _move(drawer, torch.device(device))
        self.drawer = drawer

    def make(self, request: BatchRequest) -> Batch | None:
        """The finished batch; None where it did not fit the memory."""
        try:
            return self.drawer.make(request)()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _make_on_ray(
    ray: Any, queue: Queue, folder: PartFolder, drawer: Drawer | Selected, workers: int | None
) -> Iterator[None]:
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
    try:
        yield from _Crew(ray, drawer, workers).empty(queue, folder)
    finally:
        if ours:
            ray.shutdown()


class _Crew:
    """The workers, and what each of them is at."""

    def __init__(self, ray: Any, drawer: Drawer | Selected, workers: int | None) -> None:
        self.ray = ray
        device = drawer.model.device
        on_gpu = device.type == "cuda"
        count = workers or int(ray.cluster_resources().get("GPU", 0) if on_gpu else len(ray.nodes())) or 1
        kind = ray.remote(num_gpus=1 if on_gpu else 0, num_cpus=1)(_Worker)
        _move(drawer, torch.device("cpu"))
        shared = ray.put(drawer)
        _move(drawer, device)
        self.start = lambda: kind.remote(shared, device.type, torch.get_num_threads())
        self.idle = [self.start() for _ in range(count)]
        self.busy: dict[Any, tuple[Any, BatchRequest]] = {}  # by the future: the worker and its request
        self.deaths: dict[BatchRequest, int] = {}

    def empty(self, queue: Queue, folder: PartFolder) -> Iterator[None]:
        """Keep every worker busy until nothing is left."""
        while True:
            while self.idle and (request := queue.next()) is not None:
                worker = self.idle.pop()
                self.busy[worker.make.remote(request)] = worker, request
            if not self.busy:
                return
            ready, _ = self.ray.wait(list(self.busy))
            for future in ready:
                self._take(future, queue, folder)
            yield

    def _take(self, future: Any, queue: Queue, folder: PartFolder) -> None:
        worker, request = self.busy.pop(future)
        try:
            batch = self.ray.get(future)
        except self.ray.exceptions.RayActorError as error:
            self._bury(request, queue, error)
            return
        self.idle.append(worker)
        if batch is None:
            queue.halve(request)
            return
        queue.doubtful += batch.doubtful
        if batch.made:
            folder.add(batch.made)

    def _bury(self, request: BatchRequest, queue: Queue, error: Exception) -> None:
        self.deaths[request] = self.deaths.get(request, 0) + 1
        if self.deaths[request] >= MAX_DEATHS:
            raise OSError(f"{MAX_DEATHS} workers died over the same {len(request.items)} images ({error})") from error
        queue.again.append(request)
        self.idle.append(self.start())
