"""What one visitor may ask for. The page states these; the endpoints refuse more."""

from dataclasses import dataclass

from app.view_requests import MAX_COUNT
from hieramp.errors import UserError


@dataclass(frozen=True)
class VisitorLimits:
    """Caps. Raises UserError where one is not positive."""

    ipc: int = 1000  # images per class of a distilled set
    images: int = 100_000  # of a distilled set
    disk_bytes: int = 20 * 2**30  # that all sets kept here may take together, by their pixels
    job_minutes: int = 12 * 60  # of computing, for one run of a job
    jobs: int = 16  # that run at once, of all visitors together
    keep_hours: int = 48  # a job that nobody has looked at is then removed
    samples: int = 64  # per class, when tokens are counted
    classes: int = 50  # compared at once
    count: int = MAX_COUNT  # pictures of either kind, drawn at once
    upload_bytes: int = 20 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise UserError(f"{name} is {value}; a cap must be at least 1")

    @property
    def job_seconds(self) -> float:
        return 60.0 * self.job_minutes

    @property
    def job_time(self) -> str:
        hours, minutes = divmod(self.job_minutes, 60)
        return " ".join(filter(None, (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "")))
