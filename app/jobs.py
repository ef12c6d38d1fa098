"""Distilled sets made in the background: jobs that outlive the page that started them.

One thread gives every running job a batch in turn. A job is known by an unguessable id alone, has a folder of that
name, and what is inside (the request, the set as far as it is drawn) outlives the server too.
"""

import atexit
import logging
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from app import zero
from app.computing import Served, distilled, planned
from app.distill_requests import DistillRequest
from app.scheduling import Device
from app.visitor_limits import VisitorLimits
from app.words import without_folders
from hieramp import Model, Progress
from hieramp.distillation.parts import is_being_written, num_kept
from hieramp.errors import UserError

State = Literal["waiting", "running", "stopped", "done", "failed"]
ACTIVE: tuple[State, ...] = ("waiting", "running")
BATCH_ON_CPU = 4  # a drawing waits for one batch at most
LOOK_SECONDS = 60.0  # that a look is noted on disk at most once in
STORED = "job.json"
log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """A set in the making. Its fields are written by its `JobBook` alone, under the book's lock, and read by anyone."""

    id: str
    folder: Path
    distill_request: DistillRequest
    state: State = "waiting"
    done: int = 0
    images_per_second: float = 0.0
    seconds_left: float | None = None
    message: str = ""  # why it stopped, in one sentence
    is_to_stop: bool = False
    seconds_used: float = 0.0
    seen: float = field(default_factory=time.time)
    noted: float = 0.0  # the last look that is noted on disk
    owner: str = ""  # whose it is, while the server runs; "": nobody's in particular

    @property
    def path(self) -> Path:
        """The finished file."""
        return self.folder / f"{self.distill_request.name}.zip"

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE

    @property
    def last_look(self) -> float:
        """When somebody asked for it last, of this server or of another one on the same folder."""
        with suppress(OSError):
            return max(self.seen, (self.folder / STORED).stat().st_mtime)
        return self.seen

    def note_look(self) -> None:
        """Keep it from being removed, also by a server that is started later."""
        self.seen = time.time()
        if self.seen - self.noted > LOOK_SECONDS:
            self.noted = self.seen
            with suppress(OSError):
                os.utime(self.folder / STORED)


class JobBook:
    """All jobs of a server."""

    def __init__(
        self, model: Model, root: Path, device: Device, limits: VisitorLimits, served: Served | None = None
    ) -> None:
        self.model, self.served = model, served or Served(model)
        self.root, self.device, self.limits = root, device, limits
        self._jobs: dict[str, Job] = {}
        self._running: deque[tuple[Job, Iterator[Progress]]] = deque()
        self._changed = threading.Condition(threading.RLock())  # also the lock of all jobs' fields
        self._is_closed = False
        self._worker: threading.Thread | None = None
        root.mkdir(parents=True, exist_ok=True)
        atexit.register(self.close)  # an interpreter that ends under a thread at work aborts
        for path in sorted(root.glob(f"*/{STORED}")):
            self._find(path)

    def _find(self, path: Path) -> None:
        """Take up a job that an earlier server left behind."""
        try:
            job = Job(
                path.parent.name, path.parent, DistillRequest.from_json(path.read_text()), seen=path.stat().st_mtime
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("a job in %s cannot be read: %s", path.parent, error)
            return
        if job.path.exists():
            job.state, job.done = "done", job.distill_request.num_images
        else:
            job.state, job.message = "stopped", "The server was started anew; resume to go on."
            job.done = min(num_kept(job.path), job.distill_request.num_images)
        self._jobs[job.id] = job

    def start(self, distill_request: DistillRequest, owner: str = "") -> Job:
        """Begin a set; `owner` is whose it is, by their address ("": nobody's in particular).

        Raises:
            UserError: too many jobs are running, or are kept of this owner, the sets kept here take too much, or the
                request cannot be followed.
        """
        self.sweep()
        job_id = secrets.token_urlsafe(24)
        job = Job(job_id, self.root / job_id, distill_request, owner=owner)
        with self._changed:  # its room is taken before it is planned, which takes a while
            self._check_room(owner)
            self._check_kept(owner)
            self._check_disk(distill_request)
            self._jobs[job.id] = job
        try:
            progress = self._make(job)
            job.folder.mkdir(mode=0o700)
            part = job.folder / f"{STORED}.part"
            part.write_text(distill_request.to_json())
            part.replace(job.folder / STORED)
        except BaseException:
            with self._changed:
                del self._jobs[job.id]
            raise
        self._enqueue(job, progress)
        return job

    def resume(self, job_id: str) -> Job | None:
        """Go on with a job that stopped; raises as `start` does."""
        job = self.get(job_id)
        if job is None:
            return None
        with self._changed:  # of two clicks one finds it waiting
            if job.state not in ("stopped", "failed"):
                return job
            self._check_room(job.owner)
            before = job.state, job.message
            job.state, job.message, job.is_to_stop, job.seconds_used = "waiting", "", False, 0.0
        try:
            progress = self._make(job)
        except BaseException:
            with self._changed:
                job.state, job.message = before
            raise
        self._enqueue(job, progress)
        return job

    def stop(self, job_id: str) -> Job | None:
        """Ask a job to stop; it does so after the batch in hand."""
        job = self.get(job_id)
        with self._changed:
            if job and job.is_active:
                job.is_to_stop = True
        return job

    def get(self, job_id: str | None) -> Job | None:
        """The job of this id. Looking at it keeps it from being removed."""
        with self._changed:
            job = self._jobs.get(str(job_id)) if job_id else None
            if job:
                job.note_look()
                if job.state == "done" and not job.path.exists():
                    self._end(job, "stopped", "The finished file was cleared away; resume to make it again.")
            return job

    @property
    def is_busy(self) -> bool:
        """Whether a set is being made, or is in line."""
        return any(job.is_active for job in list(self._jobs.values()))

    def num_before(self, job: Job) -> int:
        """How many other jobs share the device with this one."""
        return sum(other.is_active for other in list(self._jobs.values()) if other is not job)

    def sweep(self) -> None:
        """Remove jobs that nobody has looked at for long and that do not run."""
        oldest = time.time() - 3600 * self.limits.keep_hours
        with self._changed:
            left = [job for job in self._jobs.values() if not job.is_active and job.last_look < oldest]
            left = [job for job in left if not is_being_written(job.path)]
            for job in left:
                del self._jobs[job.id]
        for job in left:
            shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """End the worker after the batch in hand; the jobs can be resumed."""
        atexit.unregister(self.close)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._worker:
            self._worker.join()

    def _check_room(self, owner: str) -> None:
        running = [job for job in self._jobs.values() if job.is_active]
        if len(running) >= self.limits.jobs:
            raise UserError(f"{len(running)} sets are being made, as many as this server takes: try again later")
        own = sum(job.owner == owner for job in running) if owner else 0
        if own >= self.limits.jobs_each:
            raise UserError(f"{own} sets of yours are being made, as many as one visitor may: stop one, or wait for it")

    def _check_kept(self, owner: str) -> None:
        kept = [job for job in self._jobs.values() if owner and job.owner == owner]
        unfinished = sum(job.state in ("stopped", "failed") for job in kept)
        if unfinished >= self.limits.unfinished_each:
            raise UserError(
                f"{unfinished} sets of yours are kept unfinished, as many as one visitor may have: resume one, or wait "
                f"until they are removed, {self.limits.keep_hours} hours after you last looked"
            )

    def _check_disk(self, distill_request: DistillRequest) -> None:
        """By pixels, which a PNG hardly exceeds; a set that is being made lies there twice for a moment."""
        pixels = 3 * self.model.image_size**2
        kept = pixels * sum(job.distill_request.num_images for job in self._jobs.values())
        wanted = pixels * distill_request.num_images
        if kept + wanted > self.limits.disk_bytes:
            free, need = max(0, self.limits.disk_bytes - kept) / 1e6, wanted / 1e6
            raise UserError(
                f"this set may take {need:.3g} MB, and {free:.3g} MB are left for sets here: take fewer images, or try "
                "again when older sets are gone"
            )

    def _enqueue(self, job: Job, progress: Iterator[Progress]) -> None:
        with self._changed:
            self._running.append((job, progress))
            self._changed.notify_all()
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._worker.start()

    def _make(self, job: Job) -> Iterator[Progress]:
        distill_request, batch = job.distill_request, BATCH_ON_CPU if self.model.device.type == "cpu" else None
        if zero.on_zero_gpu:
            return distilled(self.served, distill_request, job.path, batch)
        return iter(planned(self.model, distill_request, job.path, batch))  # what cannot be is told now

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running or self._is_closed)
                if self._is_closed:
                    return
                job, progress = self._running.popleft()
            if self._advance(job, progress):
                with self._changed:
                    self._running.append((job, progress))
            elif isinstance(progress, Generator):
                progress.close()

    def _advance(self, job: Job, progress: Iterator[Progress]) -> bool:
        """One batch; False when the job has come to an end."""
        if job.is_to_stop:
            return self._end(job, "stopped", "Stopped. What is drawn is kept; resume to go on.")
        if job.seconds_used > self.limits.job_seconds:
            return self._end(job, "stopped", f"Stopped after {self.limits.job_time}, the cap here; resume to go on.")
        try:
            with self.device.job():
                started = time.monotonic()
                with self._changed:
                    job.state = "running"
                latest = next(progress, None)
        except ValueError as error:
            return self._end(job, "failed", without_folders(str(error)))
        except OSError as error:
            return self._end(job, "failed", f"The disk failed: {error.strerror or error}. Resume to try again.")
        except Exception as error:  # whatever it is, the other jobs go on
            log.exception("job failed")
            return self._end(job, "failed", f"The computation failed: {type(error).__name__}. Resume to try again.")
        with self._changed:
            job.seconds_used += time.monotonic() - started
            if latest is None:
                job.done, job.seconds_left = job.distill_request.num_images, 0.0
                return self._end(job, "done", "")
            job.done = latest.done
            job.images_per_second, job.seconds_left = latest.images_per_second, latest.seconds_left
        return True

    def _end(self, job: Job, state: State, message: str) -> bool:
        with self._changed:
            job.message = message
            job.state = state  # last: who sees it must find the rest
        return False
