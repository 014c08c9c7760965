"""Trainings that the page starts. Each is a separate process, and the files in its folder hold its whole state.

So a training does not block the WebUI's queue, a pause frees all of its memory, and the page can be closed while it runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from modules import paths

from motion_module.errors import UserError
from motion_module.training.folder import CLIPS, CONFIG, DATA, LOSSES, OUTPUT, PID, STATE, STATUS, STOP, is_of_no_use

from ..errors import shown
from ..request import module_files

ENDED = ("Done", "Paused", "Stopped", "Ended with an error")
"""What a training says last. Its process ends some time later: with a busy machine, in seconds."""
STARTED: dict[Path, subprocess.Popen[bytes]] = {}
"""The processes that this WebUI has started, by folder."""
REFUSED: dict[Path, str] = {}
"""Why trainings were refused, by folder. The folders themselves are deleted."""
SECONDS_TO_END = 60
MOST_LOSSES = 4_000
"""The most losses that are read: the plot is redrawn every two seconds and cannot show more."""
LDM = "Stable Diffusion"
"""What the WebUI calls the folder of the package `ldm`, whose image model a training uses. Forge has none, and no tab Train."""
STARTING = threading.Lock()
"""Two clicks run in two threads, but must start only one training."""
DETACHED: dict[str, Any]
"""Arguments of `Popen` that let a training outlive the WebUI, and a Ctrl-C that is meant for the WebUI."""
if sys.platform == "win32":
    DETACHED = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
else:
    DETACHED = {"start_new_session": True}


class TrainingError(UserError):
    """A training cannot be started, resumed or stopped. The text is for the user."""


@dataclass(frozen=True)
class Training:
    """The training whose files are in `folder`, running or not."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def start(self, config: dict[str, Any]) -> None:
        """Writes the configuration and starts training.

        Raises TrainingError if the folder holds a training already, or if another one is running.
        """
        if (self.folder / STATE).exists():
            raise TrainingError(f"There is already a training {self.name!r}. Resume it, or choose another name.")
        with STARTING:
            self._require_idle()
            self.folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump({**config, "folder": str(self.folder)}, allow_unicode=True, sort_keys=False)
            (self.folder / CONFIG).write_text(text, encoding="utf-8")
            self._run()

    def resume(self) -> None:
        """Continues the training. Raises TrainingError if there is nothing to continue, or if it or another one is running."""
        with STARTING:
            if not (self.folder / CONFIG).exists():
                raise TrainingError("Choose a training first.")
            self._require_idle()
            self._run()

    def request(self, action: str) -> None:
        """Requests a running training to "pause" or "stop": it finishes its current step, saves and ends."""
        if not self.process():
            raise TrainingError(f"The training {self.name!r} is not running. Start or resume it first.")
        (self.folder / STOP).write_text(action, encoding="utf-8")

    def process(self) -> subprocess.Popen[bytes] | psutil.Process | None:
        """Returns the process that trains, if it is running."""
        started = STARTED.get(self.folder)
        if started and started.poll() is None:
            return started
        try:
            process = psutil.Process(int((self.folder / PID).read_text()))
            return process if {"motion_module", "train"} <= set(process.cmdline()) else None  # systems reuse process ids
        except (OSError, ValueError, psutil.Error):
            return None

    def status(self) -> dict[str, Any]:
        """Returns what it is doing, in words, under "doing"; and `step`, `steps`, `loss` and `seconds_left`, if known."""
        is_running = self.process() is not None  # asked first: a process writes its last status before it ends
        try:
            status: dict[str, Any] = json.loads((self.folder / STATUS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            status = {"doing": "Starting"}
        if is_running or status["doing"] in ENDED:
            return status
        output = self._last_output()  # read first: `_await` remembers why before it deletes the output
        return {**status, "doing": "Ended with an error", "error": REFUSED.get(self.folder, output)}

    def losses(self) -> list[tuple[int, float]]:
        """Returns steps and their losses. A long training is sampled at even distances."""
        try:
            lines = (self.folder / LOSSES).read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        some = lines[:: max(1, len(lines) // MOST_LOSSES)]
        whole = (json.loads(line) for line in some if line.endswith("}"))  # the last line may be incomplete
        return [(entry["step"], entry["loss"]) for entry in whole]

    def clips(self) -> list[Path]:
        """Returns the newest validation clips."""
        clips = sorted((self.folder / CLIPS).glob("step-*.gif"))
        return [clip for clip in clips if clip.name[:11] == clips[-1].name[:11]]

    def data(self) -> list[str]:
        """Returns the lines of the report on its videos; one empty line until all are encoded."""
        try:
            return (self.folder / DATA).read_text(encoding="utf-8").splitlines() or [""]
        except OSError:
            return [""]

    def _require_idle(self) -> None:
        """Raises TrainingError if this training or another one is running: each takes gigabytes, and whoever sees the page can
        start one.
        """
        if self._is_running():
            raise TrainingError(f"The training {self.name!r} is already running. Pause or stop it first.")
        for other in _trainings_in(self.folder.parent):
            if other._is_running():
                raise TrainingError(
                    f"The training {other.name!r} is running, and only one can run at a time. Pause or stop it first."
                )

    def _is_running(self) -> bool:
        process = self.process()
        if process and self.status()["doing"] in ENDED:  # it has said so, and takes some time to end
            with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
                process.wait(SECONDS_TO_END)
        return self.process() is not None

    def _run(self) -> None:
        REFUSED.pop(self.folder, None)
        for file in (STOP, STATUS):
            (self.folder / file).unlink(missing_ok=True)
        ldm = Path(paths.paths[LDM])
        search = os.pathsep.join([str(module_files.ROOT), str(ldm), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "motion_module", "train", str(self.folder / CONFIG)]
        with (self.folder / OUTPUT).open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                cwd=module_files.ROOT,
                env={**os.environ, "PYTHONPATH": search, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **DETACHED,
            )
        STARTED[self.folder] = process
        (self.folder / PID).write_text(str(process.pid))
        threading.Thread(target=self._await, args=[process], daemon=True).start()

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the process to end. Deletes the folder if the training was refused, but remembers why."""
        process.wait()
        with STARTING, suppress(FileNotFoundError):  # somebody may have deleted it
            if STARTED[self.folder] is not process:
                return  # the next one has been started
            if process.returncode and is_of_no_use(self.folder):
                REFUSED[self.folder] = self.status().get("error", "")
                shutil.rmtree(self.folder, ignore_errors=True)

    def _last_output(self) -> str:
        try:
            lines = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.strip()), "")


def can_run() -> bool:
    """Whether this WebUI has what a training needs."""
    return LDM in getattr(paths, "paths", {})  # Forge Neo has no such table


def folder() -> Path:
    """Returns the folder in which each training has its folder."""
    return Path(paths.data_path).absolute() / "outputs" / "animatediff-training"


def all_trainings() -> Iterator[Training]:
    """Returns all trainings, newest first."""
    return _trainings_in(folder())


def _trainings_in(folder: Path) -> Iterator[Training]:
    configs = sorted(folder.glob(f"*/{CONFIG}"), key=lambda file: file.stat().st_mtime, reverse=True)
    return (Training(config.parent) for config in configs)


def named(name: str) -> Training:
    """Returns the training of a name, which may be new. Raises TrainingError if the name is not allowed."""
    name = name.strip()
    if not re.fullmatch(r"\w(?:[\w .()-]{0,78}[\w)])?", name):
        raise TrainingError(
            f"{shown(name)} cannot be the name of a training. Use up to 80 letters, digits, spaces and hyphens."
        )
    return Training(folder() / name)
