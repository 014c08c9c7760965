"""Ends a process that lets its caller wait for too long."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any

CHECKED_EVERY = 0.5
"""Seconds."""


class TimeLimit(Thread):
    """Watches a process until it leaves the context. A thread does it: pipes cannot be waited for with a limit on Windows."""

    def __init__(self, process: subprocess.Popen[Any]) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._waits: tuple[float, float] | None = None
        self._is_over = Event()
        self.exceeded = 0.0
        """The seconds that were too few, so that the process was ended; 0 if it was not."""

    def __enter__(self) -> TimeLimit:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()

    @contextmanager
    def of(self, seconds: float) -> Iterator[None]:
        """Ends the process if what is done in this context takes longer."""
        self._waits = monotonic(), seconds
        try:
            yield
        finally:
            self._waits = None

    def run(self) -> None:
        while not self._is_over.wait(CHECKED_EVERY):
            since, seconds = self._waits or (0.0, float("inf"))
            if monotonic() - since > seconds:
                self.exceeded = seconds
                self._process.kill()
                return
