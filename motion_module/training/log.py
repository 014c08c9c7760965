"""What a training tells while it runs: a progress bar, curves for TensorBoard, and files that a page can read."""

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

from .cache import replacing
from .config import Config
from .data import Report

T = TypeVar("T")
LOSSES, STATUS, CLIPS = "losses.jsonl", "status.json", "validation"
BAR = "{desc}: {percentage:3.0f}% {bar} {n_fmt}/{total_fmt}, {elapsed}, {remaining} left{postfix}"
SMOOTHING = 0.98
"""How much of the loss that is shown is kept from one step to the next; single ones tell little."""
FRAME_MILLISECONDS = 125
STATUS_SECONDS = 0.5
"""How often a page is told how many videos or captions are encoded: of captions there may be millions."""


class Log:
    """The log in the folder of a training. In processes other than the main one it is silent."""

    def __init__(self, folder: Path, *, main: bool) -> None:
        self._folder = folder
        self._main = main
        self._shown: float | None = None
        if main:
            folder.mkdir(parents=True, exist_ok=True)
        self._board: Any = None

    def say(self, text: str) -> None:
        if self._main:
            tqdm.write(text)

    def watched(self, things: Collection[T], what: str) -> Iterator[T]:
        """Passes things on, and shows how many are done."""
        due = 0.0
        for index, thing in enumerate(tqdm(things, desc=what, bar_format=BAR, disable=not self._main)):
            if time.monotonic() >= due:
                self.status(what, step=index, steps=len(things))
                due = time.monotonic() + STATUS_SECONDS
            yield thing

    def report(self, report: Report, config: Config) -> None:
        for line in report.lines(config):
            self.say(line)
        if self._main:
            everything = "\n".join(report.lines(config, most=10**9)) + "\n"
            (self._folder / "data.txt").write_text(everything, encoding="utf-8")

    def status(self, doing: str, **facts: Any) -> None:
        """What a page shows: what is being done, and how far it is."""
        if self._main:
            write_status(self._folder, doing, **facts)

    @contextmanager
    def learning(self, step: int, steps: int) -> Iterator[None]:
        """While open, steps are noted, from `step` on. What an earlier run noted after it is forgotten."""
        if not self._main:
            yield
            return
        self.status("Training", step=step, steps=steps)
        with self._noting():
            self._board = _board(self._folder, step)
        losses = self._folder / LOSSES
        kept = [entry for entry in read_losses(self._folder) if entry["step"] <= step]
        with self._noting(), replacing(losses) as part:
            part.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._losses = losses.open("a", encoding="utf-8")
        self._bar = tqdm(total=steps, initial=step, desc="Training", bar_format=BAR)
        try:
            yield
        finally:
            for part in (self._bar, self._losses, *([self._board] if self._board else [])):
                with self._noting():  # what could not be written before is tried again
                    part.close()

    def step(self, step: int, loss: float, rate: float) -> None:
        if not self._main:
            return
        self._shown = loss if self._shown is None else SMOOTHING * self._shown + (1 - SMOOTHING) * loss
        with self._noting():
            self._losses.write(json.dumps({"step": step, "loss": loss, "rate": rate}) + "\n")
            self._losses.flush()
        self._bar.set_postfix_str(f"loss {self._shown:.4f}", refresh=False)
        self._bar.update()
        facts = self._bar.format_dict
        left = (facts["total"] - facts["n"]) / facts["rate"] if facts["rate"] else None
        self.status("Training", step=step, steps=facts["total"], loss=self._shown, seconds_left=left)
        if self._board:
            with self._noting():
                self._board.add_scalar("loss", loss, step)
                self._board.add_scalar("learning rate", rate, step)

    def clips(self, step: int, clips: list[tuple[str, NDArray[np.uint8]]]) -> None:
        """Clips `(frames, height, width, 3)` with their prompts: as GIFs, and in TensorBoard as a row of frames."""
        for index, (prompt, clip) in enumerate(clips):
            first, *others = (Image.fromarray(frame) for frame in clip)
            with self._noting(), replacing(self._folder / CLIPS / f"step-{step:06d}-{index + 1:03d}.gif") as part:
                first.save(part, "GIF", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, loop=0)
            if self._board:
                with self._noting():
                    self._board.add_image(prompt, np.concatenate(list(clip), axis=1), step, dataformats="HWC")

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """That something cannot be noted, as on a full disk, is said, and is no reason to end: saving may be, and says so."""
        try:
            yield
        except OSError as error:
            self.say(f"The log in {self._folder} could not be written: {error}.")

    def end(self, step: int, config: Config, why: str) -> None:
        """`why`: "pause" where the training was paused."""
        if not self._main:
            return
        done = step >= config.steps
        doing = "Done" if done else "Paused" if why == "pause" else "Stopped"
        self.status(doing, step=step, steps=config.steps, loss=self._shown)
        self.say(f"{'Done' if done else f'Stopped at step {step}; start it again to go on'}: {config.output}")


def write_status(folder: Path, doing: str, **facts: Any) -> None:
    """What a training does, for whoever looks. That it cannot be written is no reason to end."""
    with suppress(OSError), replacing(folder / STATUS) as part:
        part.write_text(json.dumps({"doing": doing, **facts}), encoding="utf-8")


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """What was noted for each step. A line that was cut off is left out."""
    file, entries = folder / LOSSES, []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def _board(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's, which forgets what was noted after `step`; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write("TensorBoard is not installed, so there will be no curves for it: `pip install tensorboard`.")
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
