"""Trainings started from the page. Each is a process of its own with a folder of its own, which says all that is known of it.

So a training holds neither the queue nor memory of the WebUI, a pause gives all of its memory back, and pages can be closed and
opened while it runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from modules import paths

from motion_module.errors import UserError

from ..request import module_files

CONFIG, OUTPUT = "config.yaml", "output.txt"
STATE, STATUS, LOSSES, CLIPS, DATA, PID = "state.safetensors", "status.json", "losses.jsonl", "validation", "data.txt", "pid"
"""As `motion_module.training` names them, whose packages need not be installed to see a page."""
STOP = "stop"
MOST_LOSSES = 4_000
"""Of a training, where they are asked for; a plot shows no more, and is drawn every two seconds."""
STARTING = threading.Lock()
"""Two clicks are two threads, and one training."""
APART = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    if sys.platform == "win32"
    else {"start_new_session": True}
)
"""So that a training does not end with the WebUI, or with a Ctrl-C that is meant for it."""


class TrainingError(UserError):
    """A training cannot be started or gone on with. The text is for the user."""


@dataclass(frozen=True)
class Training:
    """The training in a folder, whether it runs or not."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def start(self, config: dict[str, Any]) -> None:
        """Writes the configuration, and trains. Raises TrainingError where something has been trained there."""
        if (self.folder / STATE).exists():
            raise TrainingError(f"There is a training {self.name!r} already. Resume it, or choose another name.")
        with STARTING:
            self._require_idle()
            self.folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump({**config, "folder": str(self.folder)}, allow_unicode=True, sort_keys=False)
            (self.folder / CONFIG).write_text(text, encoding="utf-8")
            self._run()

    def resume(self) -> None:
        """Goes on where it ended. Raises TrainingError where there is nothing to go on with, or it runs."""
        if not (self.folder / CONFIG).exists():
            raise TrainingError("Choose a training first.")
        with STARTING:
            self._require_idle()
            self._run()

    def ask_to(self, what: str) -> None:
        """Asks a training that runs to "pause" or to "stop": it saves after its current step, and ends."""
        if not self.process():
            raise TrainingError("No such training is running.")
        (self.folder / STOP).write_text(what, encoding="utf-8")

    def process(self) -> psutil.Process | None:
        """The process that trains, if there is one."""
        try:
            process = psutil.Process(int((self.folder / PID).read_text()))
            return process if {"motion_module", "train"} <= set(process.cmdline()) else None  # numbers are given again
        except (OSError, ValueError, psutil.Error):
            return None

    def status(self) -> dict[str, Any]:
        """What it does, in words, under "doing", and with it `step`, `steps`, `loss`, `seconds_left`, where they are known."""
        try:
            status: dict[str, Any] = json.loads((self.folder / STATUS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            status = {"doing": "Starting"}
        if self.process() or status["doing"] in ("Done", "Paused", "Stopped", "Ended with an error"):
            return status
        return {**status, "doing": "Ended with an error", "error": self._last_words()}

    def losses(self) -> list[tuple[int, float]]:
        """Steps and their losses; of a long training some, at even distances."""
        try:
            lines = (self.folder / LOSSES).read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        some = lines[:: max(1, len(lines) // MOST_LOSSES)]
        whole = (json.loads(line) for line in some if line.endswith("}"))  # the last may be half written
        return [(entry["step"], entry["loss"]) for entry in whole]

    def clips(self) -> list[Path]:
        """The validation clips that were made last."""
        clips = sorted((self.folder / CLIPS).glob("step-*.gif"))
        return [clip for clip in clips if clip.name[:11] == clips[-1].name[:11]]

    def data(self) -> list[str]:
        """What became of its videos, in lines; one that is empty before all are encoded."""
        try:
            return (self.folder / DATA).read_text(encoding="utf-8").splitlines() or [""]
        except OSError:
            return [""]

    def _require_idle(self) -> None:
        if self.process():
            raise TrainingError(f"{self.name!r} is running already.")

    def _run(self) -> None:
        for file in (STOP, STATUS):
            (self.folder / file).unlink(missing_ok=True)
        ldm = Path(paths.paths["Stable Diffusion"])
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
                **APART,
            )
        (self.folder / PID).write_text(str(process.pid))

    def _last_words(self) -> str:
        try:
            lines = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.strip()), "")


def folder() -> Path:
    """Where trainings are kept."""
    return Path(paths.data_path).absolute() / "outputs" / "animatediff-training"


def all_trainings() -> Iterator[Training]:
    """Those that there are, the newest first."""
    configs = sorted(folder().glob(f"*/{CONFIG}"), key=lambda file: file.stat().st_mtime, reverse=True)
    return (Training(config.parent) for config in configs)


def named(name: str) -> Training:
    """The training of a name, which may be a new one. Raises TrainingError for what is no name."""
    name = name.strip()
    if not re.fullmatch(r"\w(?:[\w .()-]{0,78}[\w)])?", name):
        raise TrainingError("Give the training a name of letters, digits, spaces and dashes.")
    return Training(folder() / name)
