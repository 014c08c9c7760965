"""Stands in for `modules.shared_state`: the progress of the running generation, and whether it was interrupted."""

from __future__ import annotations

from datetime import datetime
from typing import Any


class State:
    def __init__(self) -> None:
        self.begin()
        self.end()

    def begin(self, job: str = "") -> None:
        self.job = job
        self.job_timestamp = datetime.now().strftime("%Y%m%d%H%M%S")
        self.textinfo: str | None = None
        self.interrupted = self.skipped = self.stopping_generation = False
        self.job_no, self.job_count = 0, -1
        self.sampling_step = self.sampling_steps = 0
        self.current_latent: Any = None
        self.current_image: Any = None

    def assign_current_image(self, image: Any) -> None:
        """Shows a picture as the live preview, while no latents are sampled."""
        self.current_image = image

    def end(self) -> None:
        """Ends the job. The rest stays until the next one begins, `textinfo` too."""
        self.job = ""
        self.job_count = 0

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True

    def nextjob(self) -> None:
        self.job_no += 1
        self.sampling_step = 0

    def progress(self) -> float:
        """Returns a fraction between 0 and 1."""
        if self.job_count <= 0:
            return 0.0
        return min((self.job_no + self.sampling_step / max(self.sampling_steps, 1)) / self.job_count, 1.0)
