"""Starts an installed WebUI with this extension. Its data goes to a separate folder; nothing is written to the WebUI's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from demo.environment import ROOT

AS_INSTALLED = (
    "--skip-prepare-environment",
    "--skip-torch-cuda-test",
    "--skip-version-check",
    "--no-hashing",
    "--do-not-download-clip",
    "--no-download-sd-model",
    "--api",
)
"""Options with which the WebUI installs, updates and downloads nothing."""
ON_CPU = ("--use-cpu", "all", "--no-half", "--precision", "full")


def python_of(webui: Path) -> Path:
    """Returns the Python of a WebUI's virtual environment."""
    return webui / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def lay_out(data_dir: Path, extensions: Iterable[Path], settings: Mapping[str, Any]) -> None:
    """Prepares a folder for `--data-dir`: links the extensions into it, and adds the settings to its config.json."""
    links = data_dir / "extensions"
    links.mkdir(parents=True, exist_ok=True)
    for extension in extensions:
        _link(links / extension.name, extension)
    config = data_dir / "config.json"
    existing = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    config.write_text(json.dumps({**existing, **settings}, indent=4), encoding="utf-8")


def command(webui: Path, data_dir: Path, ckpt_dir: Path, *more: str) -> list[str]:
    """Returns the command that starts the WebUI; it must run in the folder `webui`."""
    folders = ["--data-dir", str(data_dir), "--ckpt-dir", str(ckpt_dir)]
    return [str(python_of(webui)), "launch.py", *AS_INSTALLED, *folders, *more]


def run_with_demo(webui: Path, checkpoint: Path, motion_module: Path, loras: Path) -> int:
    """Runs the WebUI until the user stops it, and opens its page in the browser. Returns its exit status."""
    webui = webui.expanduser().absolute()
    if not python_of(webui).exists() or not (webui / "launch.py").exists():
        print(
            f"There is no installed WebUI in {webui}: launch.py or venv is missing. Start that WebUI once, then try again.",
            file=sys.stderr,
        )
        return 1
    data_dir = ROOT / "demo" / "data" / "webui"
    settings = {"sd_model_checkpoint": checkpoint.name, "animatediff_model_path": str(motion_module.parent)}
    lay_out(data_dir, [ROOT], settings)
    more = ["--autolaunch", "--lora-dir", str(loras), *([] if _has_cuda(webui) else ON_CPU)]
    return subprocess.run(command(webui, data_dir, checkpoint.parent, *more), cwd=webui, check=False).returncode


def _link(link: Path, target: Path) -> None:
    if link.resolve() == target.resolve():
        return
    if link.is_symlink():  # to a folder that the project was in before
        link.unlink()
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError:  # Windows lets only administrators make symbolic links, but everyone make junctions
        if sys.platform != "win32":
            raise
        import _winapi

        _winapi.CreateJunction(str(target), str(link))


def _has_cuda(webui: Path) -> bool:
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([python_of(webui), "-c", question], check=False).returncode == 0
