"""Runs a host of the extension in a process of its own and talks to its HTTP API.

    with WebUI(data_dir=tmp, weights=cache, extensions=[repository]) as server:
        answer = server.txt2img(prompt="a dog", steps=2)

`WebUI` is the real one at $WEBUI_DIR, else at ~/stable-diffusion-webui. `EmbeddedHost` is that of the folder `demo`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import requests

from demo import real_webui

REPOSITORY = Path(__file__).resolve().parents[2]
PROBE = REPOSITORY / "tests" / "support" / "probe"
SMALL_JOB = {
    "prompt": "a cat",
    "width": 64,
    "height": 64,
    "steps": 4,
    "seed": 1,
    "sampler_name": "Euler a",
    "cfg_scale": 7,
}
COMMON_SETTINGS = {"CLIP_stop_at_last_layers": 1}
"""Neo has another default."""
PR_SET_PDEATHSIG = 1
"""Of `linux/prctl.h`."""
RUN_INSTALLER = "import sys; from modules import launch_utils as u; u.run_extension_installer(sys.argv[-1])"


class ServerError(RuntimeError):
    """A host did not start."""


def webui_dir() -> Path | None:
    """The WebUI to test with, or None where there is none."""
    folder = Path(os.environ.get("WEBUI_DIR") or "~/stable-diffusion-webui").expanduser()
    return folder if real_webui.python_of(folder).exists() else None


def weights_dir() -> Path:
    """The folder that `demo.weights` fills."""
    return Path(os.environ.get("ANIMATEDIFF_TEST_CACHE") or "~/.cache/animatediff-tests").expanduser().absolute()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_parent() -> None:
    """Has Linux end this process with its parent: an interrupted run kills its test processes, which then stop nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """A running host; starts when constructed, stops with `stop()` or at the end of a `with` block."""

    ready_lines: tuple[str, ...]
    folder: Path
    """Where the process runs; it is only read."""
    txt2img_fields: Mapping[str, Any] = {}
    """Fields that this host needs in every request."""
    upscalers: Mapping[str, str] = {}
    """Upscalers of this host in the place of those that it lacks."""

    def __init__(
        self,
        data_dir: Path,
        extensions: Sequence[Path] = (),
        extra_args: Sequence[str] = (),
        *,
        weights: Path | None = None,
        options: Mapping[str, Any] | None = None,
        run_installers: bool = False,
        start_timeout: float = 300,
    ) -> None:
        """Prepares `data_dir`, to which everything is written, and waits until the host answers and has loaded its checkpoint.

        `extensions` are folders, linked under their own names. `options` are settings, as in config.json.
        `run_installers` runs each extension's install.py first, where the host has a way to do so.
        """
        self.data_dir = Path(data_dir).absolute()
        self.weights = weights or weights_dir()
        self.log_file = self.data_dir / "host.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        defaults = {
            "sd_model_checkpoint": "tiny-a.safetensors",
            "animatediff_model_path": str(self.weights / "motion"),
        }
        real_webui.lay_out(self.data_dir, extensions, {**defaults, **(options or {})})
        self.log_file.write_text("")
        if run_installers:
            self.run_installers()
        self.extra_args = extra_args
        self._process = self._run([*self.command(), *extra_args])
        try:
            self._wait_until_ready(time.monotonic() + start_timeout)
            self._spell_out_options()
        except BaseException:
            self.stop()
            raise

    def command(self) -> list[str]:
        raise NotImplementedError

    def run_installers(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Server:
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

    def delete(self, path: str) -> requests.Response:
        return requests.delete(self.url + path, timeout=600)

    def txt2img(self, **overrides: Any) -> requests.Response:
        """A small picture from text; keywords replace or add fields of the request."""
        if (upscaler := overrides.get("hr_upscaler")) in self.upscalers:
            overrides["hr_upscaler"] = self.upscalers[upscaler]
        return self.post("/sdapi/v1/txt2img", {**self.txt2img_fields, **SMALL_JOB, **overrides})

    def img2img(self, **overrides: Any) -> requests.Response:
        """A small picture from `init_images`; keywords replace or add fields of the request."""
        return self.post("/sdapi/v1/img2img", {**SMALL_JOB, **overrides})

    @contextmanager
    def settings(self, **changes: Any) -> Iterator[None]:
        """Changes settings of the host, and gives them back the values that they had. Needs the probe."""
        set_all = lambda values: self.post("/probe/v1/settings", {"changes": values})  # noqa: E731
        before = set_all(changes)
        before.raise_for_status()
        try:
            yield
        finally:
            set_all(before.json()).raise_for_status()

    # --- process ---

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def log_text(self) -> str:
        """Everything that the host has printed so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Ends the host and whatever it started."""
        if self.is_running:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def kill(self) -> None:
        """Ends the host at once, as a crash or a lack of memory would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        log: IO[bytes]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _wait_until_ready(self, deadline: float) -> None:
        while not self._is_ready():
            if not self.is_running:
                raise ServerError(f"The host ended with status {self._process.returncode}.\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"The host was not ready in time.\n{self._log_tail()}")
            time.sleep(0.2)

    def _spell_out_options(self) -> None:
        """Gives every setting a value of its own: the WebUI does not restore an overridden one that had only its default."""
        options = self.get("/sdapi/v1/options")
        if options.ok:
            self.post("/sdapi/v1/options", options.json()).raise_for_status()

    def _is_ready(self) -> bool:
        """No request goes out before the log says so.

        One that reaches the WebUI between Gradio's start and the API's makes it end with "Cannot add middleware after
        an application has started"; one that arrives before the checkpoint is loaded races with the loading thread.
        """
        log = self.log_text()
        if not all(line in log for line in self.ready_lines):
            return False
        try:
            answer = self.get("/sdapi/v1/progress?skip_current_image=true", timeout=5)
            return answer.status_code in (200, 401)  # with --api-auth, whoever asks for a password is there too
        except requests.RequestException:
            return False

    def _log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])


class WebUI(Server):
    """The real one, on the CPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        folder = webui_dir()
        if folder is None:
            raise ServerError("No WebUI found: set WEBUI_DIR to a folder that holds an installed one.")
        self.folder, self.kind = folder, real_webui.kind_of(folder)
        self.txt2img_fields, self.upscalers = self.kind.request, self.kind.upscalers
        self.ready_lines = ("Startup time:", "loaded in") if self.kind.loads_at_start else ("Startup time:",)
        kwargs["options"] = {**self.kind.settings, **COMMON_SETTINGS, **(kwargs.get("options") or {})}
        super().__init__(*args, **kwargs)
        if not self.kind.loads_at_start and "--api-auth" not in self.extra_args:
            self.txt2img(steps=1).raise_for_status()

    def command(self) -> list[str]:
        more = [*self.kind.on_cpu, "--disable-console-progressbars", "--port", str(self.port)]
        folders = self.data_dir, self.weights / "checkpoints", self.weights / "lora"
        return real_webui.command(self.folder, *folders, *more)

    def run_installers(self) -> None:
        """Through the WebUI's own code for it: the flag that keeps it from checking its packages skips this too.

        Those of its built-in extensions are left out, because some of them move packages that the WebUI pins.
        """
        python = str(real_webui.python_of(self.folder))
        for extension in sorted((self.data_dir / "extensions").iterdir()):
            if self._run([python, "-c", RUN_INSTALLER, "--data-dir", str(self.data_dir), str(extension)]).wait():
                raise ServerError(f"The install.py of {extension.name} failed.\n{self._log_tail()}")


class EmbeddedHost(Server):
    """That of the folder `demo`, in the environment of the tests."""

    ready_lines = ("Running on http",)
    folder = REPOSITORY

    def command(self) -> list[str]:
        folders = ["--ckpt-dir", str(self.weights / "checkpoints"), "--lora-dir", str(self.weights / "lora")]
        return [sys.executable, "-m", "demo.host.server", "--data-dir", str(self.data_dir), *folders, "--port", str(self.port)]

    def run_installers(self) -> None:
        """It has none: `install.py` is the WebUI's affair."""


HOSTS: dict[str, type[Server]] = {"webui": WebUI, "embedded": EmbeddedHost}
