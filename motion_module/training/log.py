"""The log of a training: a progress bar, curves for TensorBoard, and files that the page reads."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from .config import Config
from .data import Report
from .folder import CLIPS, DATA, LOSSES, STATUS
from .latent_cache import replacing

T = TypeVar("T")
BAR = "{desc}: {percentage:3.0f}% {bar} {n_fmt}/{total_fmt}, {elapsed}, {remaining} left{postfix}"
SMOOTHING = 0.98
"""The weight of the previous value in the moving average of the loss that is shown."""
FRAME_MILLISECONDS = 125
STATUS_SECONDS = 0.5
"""Seconds between updates of the status while videos or captions are encoded."""


class Log:
    """The log in the folder of a training. Only the main process writes it."""

    def __init__(self, folder: Path, *, main: bool) -> None:
        self._folder = folder
        self._main = main
        self._shown: float | None = None
        if main:
            folder.mkdir(parents=True, exist_ok=True)
        self._board: Any = None

    def say(self, text: str) -> None:
        """Prints a line without breaking the progress bar."""
        if self._main:
            tqdm.write(text)

    def with_progress(self, items: Collection[T], task: str) -> Iterator[T]:
        """Yields items, and shows how many are done."""
        due = 0.0
        for index, item in enumerate(tqdm(items, desc=task, bar_format=BAR, disable=not self._main)):
            if time.monotonic() >= due:
                self.status(task, step=index, steps=len(items))
                due = time.monotonic() + STATUS_SECONDS
            yield item

    def report(self, report: Report, config: Config) -> None:
        """Prints a report on the data, and writes the complete report into a file."""
        for line in report.lines(config):
            self.say(line)
        if self._main:
            everything = "\n".join(report.lines(config, most=10**9)) + "\n"
            (self._folder / DATA).write_text(everything, encoding="utf-8")

    def status(self, doing: str, **facts: Any) -> None:
        """Writes what is being done, and how far it is, for the page."""
        if self._main:
            write_status(self._folder, doing, **facts)

    @contextmanager
    def learning(self, step: int, steps: int) -> Iterator[None]:
        """While open, steps after `step` can be logged. What an earlier run logged for them is deleted."""
        if not self._main:
            yield
            return
        self.status("Training", step=step, steps=steps)
        with self._logging():
            self._board = _board(self._folder, step)
        losses = self._folder / LOSSES
        kept = [entry for entry in read_losses(self._folder) if entry["step"] <= step]
        with self._logging(), replacing(losses) as part:
            part.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._losses = losses.open("a", encoding="utf-8")
        self._bar = tqdm(total=steps, initial=step, desc="Training", bar_format=BAR)
        try:
            yield
        finally:
            for part in (self._bar, self._losses, *([self._board] if self._board else [])):
                with self._logging():  # what could not be written before is tried again
                    part.close()

    def step(self, step: int, loss: float, rate: float) -> None:
        """Logs loss and learning rate of a step."""
        if not self._main:
            return
        self._shown = loss if self._shown is None else SMOOTHING * self._shown + (1 - SMOOTHING) * loss
        with self._logging():
            self._losses.write(json.dumps({"step": step, "loss": loss, "rate": rate}) + "\n")
            self._losses.flush()
        self._bar.set_postfix_str(f"loss {self._shown:.4f}", refresh=False)
        self._bar.update()
        facts = self._bar.format_dict
        left = (facts["total"] - facts["n"]) / facts["rate"] if facts["rate"] else None
        self.status("Training", step=step, steps=facts["total"], loss=self._shown, seconds_left=left)
        if self._board:
            with self._logging():
                self._board.add_scalar("loss", loss, step)
                self._board.add_scalar("learning rate", rate, step)

    def clips(self, step: int, clips: list[tuple[str, NDArray[np.uint8]]]) -> None:
        """Writes clips `(frames, height, width, 3)` with their prompts: as GIFs, and in TensorBoard as a row of frames."""
        for index, (prompt, clip) in enumerate(clips):
            first, *others = (Image.fromarray(frame) for frame in clip)
            with self._logging(), replacing(self._folder / CLIPS / f"step-{step:06d}-{index + 1:03d}.gif") as part:
                first.save(part, "GIF", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, loop=0)
            if self._board:
                with self._logging():
                    self._board.add_image(prompt, np.concatenate(list(clip), axis=1), step, dataformats="HWC")

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """If logging fails while open, as on a full disk, prints that; the training continues."""
        try:
            yield
        except OSError as error:
            self.say(
                f"The log in {self._folder} could not be written: {error.strerror or error}. The training continues without it."
            )

    def end(self, step: int, config: Config, why: str) -> None:
        """Writes that the training has ended. `why`: "pause" if it was paused."""
        if not self._main:
            return
        done = step >= config.steps
        doing = "Done" if done else "Paused" if why == "pause" else "Stopped"
        self.status(doing, step=step, steps=config.steps, loss=self._shown)
        self.say(f"{'Done' if done else f'Stopped at step {step}; start it again to continue'}: {config.output}")


def write_status(folder: Path, doing: str, **facts: Any) -> None:
    """Writes the status of a training for the page. Errors are ignored, so that the training continues."""
    with suppress(OSError), replacing(folder / STATUS) as part:
        part.write_text(json.dumps({"doing": doing, **facts}), encoding="utf-8")


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """Reads what was logged for each step. Incomplete lines are skipped."""
    file, entries = folder / LOSSES, []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def _board(folder: Path, step: int) -> Any:
    """Returns a writer of TensorBoard that deletes what was logged after `step`; None if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write("TensorBoard is not installed, so there are no curves for it. To get them, run `pip install tensorboard`.")
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
