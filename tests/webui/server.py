"""Runs a real WebUI in a process of its own and talks to its HTTP API.

    with WebUI(data_dir=tmp, weights=cache, extensions=[repository]) as webui:
        answer = webui.txt2img(prompt="a dog", steps=2)

The WebUI at $WEBUI_DIR, else at ~/stable-diffusion-webui, is only read: everything that it writes goes to `data_dir`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import requests

START_FLAGS = (
    "--skip-prepare-environment",
    "--skip-torch-cuda-test",
    "--skip-version-check",
    "--use-cpu",
    "all",
    "--no-half",
    "--precision",
    "full",
    "--api",
    "--no-hashing",
    "--do-not-download-clip",
    "--no-download-sd-model",
    "--disable-console-progressbars",
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Whoever would fetch something fails at once, instead of waiting for a network that tests must not need."""

SMALL_JOB = {
    "prompt": "a cat",
    "width": 64,
    "height": 64,
    "steps": 4,
    "seed": 1,
    "sampler_name": "Euler a",
    "cfg_scale": 7,
}
READY_LINES = ("Startup time:", "Model loaded in")
RUN_INSTALLERS = "from modules import launch_utils as u; u.run_extensions_installers(u.args.ui_settings_file)"


class WebUIError(RuntimeError):
    """The WebUI did not start."""


def webui_dir() -> Path | None:
    """The WebUI to test with, or None where there is none."""
    folder = Path(os.environ.get("WEBUI_DIR") or "~/stable-diffusion-webui").expanduser()
    return folder if webui_python(folder).exists() else None


def webui_python(folder: Path) -> Path:
    """The Python of a WebUI's own virtual environment."""
    return folder / "venv" / "bin" / "python"


def weights_dir() -> Path:
    """The folder that weights.py fills."""
    return Path(os.environ.get("ANIMATEDIFF_TEST_CACHE") or "~/.cache/animatediff-tests").expanduser().absolute()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class WebUI:
    """A running WebUI; starts when constructed, stops with `stop()` or at the end of a `with` block."""

    def __init__(
        self,
        data_dir: Path,
        extensions: Sequence[Path] = (),
        extra_args: Sequence[str] = (),
        *,
        weights: Path | None = None,
        options: Mapping[str, Any] | None = None,
        run_installers: bool = False,
        start_timeout: float = 180,
    ) -> None:
        """Prepares `data_dir` and waits until the WebUI answers and has loaded its checkpoint.

        `extensions` are folders, linked under their own names. `options` are settings, as in config.json.
        `run_installers` runs each extension's install.py first, through the WebUI's own code for it: the flag
        that keeps the WebUI from checking its packages at every start skips this too.
        """
        folder = webui_dir()
        if folder is None:
            raise WebUIError("No WebUI found: set WEBUI_DIR to a folder that holds an installed one.")
        self.folder = folder
        self.data_dir = Path(data_dir).absolute()
        self.weights = weights or weights_dir()
        self.log_file = self.data_dir / "webui.log"
        self.url = f"http://127.0.0.1:{free_port()}"
        self._prepare(extensions, options or {})
        if run_installers:
            self._run([str(webui_python(folder)), "-c", RUN_INSTALLERS, *self._paths()]).wait()
        self._process = self._run([str(webui_python(folder)), "launch.py", *self._arguments(), *extra_args])
        try:
            self._wait_until_ready(time.monotonic() + start_timeout)
            self._spell_out_options()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> WebUI:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # --- requests ---

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        """GET, with the keywords of `requests.get`."""
        return requests.get(self.url + path, **{"timeout": 600, **kwargs})

    def post(self, path: str, json: Any = None, **kwargs: Any) -> requests.Response:
        """POST of a JSON body, with the keywords of `requests.post`."""
        return requests.post(self.url + path, json=json, **{"timeout": 600, **kwargs})

    def txt2img(self, **overrides: Any) -> requests.Response:
        """A small picture from text; keywords replace or add fields of the request."""
        return self.post("/sdapi/v1/txt2img", {**SMALL_JOB, **overrides})

    def img2img(self, **overrides: Any) -> requests.Response:
        """A small picture from `init_images`; keywords replace or add fields of the request."""
        return self.post("/sdapi/v1/img2img", {**SMALL_JOB, **overrides})

    # --- process ---

    @property
    def pid(self) -> int:
        return self._process.pid

    def log_text(self) -> str:
        """Everything that the WebUI has printed so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Ends the WebUI and whatever it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _prepare(self, extensions: Sequence[Path], options: Mapping[str, Any]) -> None:
        links = self.data_dir / "extensions"
        links.mkdir(parents=True, exist_ok=True)
        for extension in extensions:
            link = links / extension.name
            if not link.is_symlink():
                link.symlink_to(extension, target_is_directory=True)
        defaults = {
            "sd_model_checkpoint": "tiny-a.safetensors",
            "animatediff_model_path": str(self.weights / "motion"),
        }
        (self.data_dir / "config.json").write_text(json.dumps({**defaults, **options}))
        self.log_file.write_text("")

    def _paths(self) -> list[str]:
        return ["--data-dir", str(self.data_dir), "--port", self.url.rpartition(":")[2]]

    def _arguments(self) -> list[str]:
        checkpoints, loras = str(self.weights / "checkpoints"), str(self.weights / "lora")
        return [*START_FLAGS, *self._paths(), "--ckpt-dir", checkpoints, "--lora-dir", loras]

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **OFFLINE, "PYTHONUNBUFFERED": "1"}
        log: IO[bytes]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _wait_until_ready(self, deadline: float) -> None:
        while not self._is_ready():
            if self._process.poll() is not None:
                raise WebUIError(f"The WebUI ended with status {self._process.returncode}.\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise WebUIError(f"The WebUI was not ready in time.\n{self._log_tail()}")
            time.sleep(0.2)

    def _spell_out_options(self) -> None:
        """Gives every setting a value of its own: the WebUI does not restore an overridden one that had only its default."""
        options = self.get("/sdapi/v1/options")
        if options.ok:
            self.post("/sdapi/v1/options", options.json()).raise_for_status()

    def _is_ready(self) -> bool:
        """No request goes out before the log says so.

        One that arrives between Gradio's start and the API's makes the WebUI end with "Cannot add middleware after
        an application has started"; one that arrives before the checkpoint is loaded races with the loading thread.
        """
        log = self.log_text()
        if not all(line in log for line in READY_LINES):
            return False
        try:
            answer = self.get("/sdapi/v1/progress?skip_current_image=true", timeout=5)
            return answer.status_code in (200, 401)  # with --api-auth, whoever asks for a password is there too
        except requests.RequestException:
            return False

    def _log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])
