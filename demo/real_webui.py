"""Starts an installed WebUI with this extension. Its data goes to a separate folder; nothing is written to the WebUI's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.environment import ROOT

AS_INSTALLED = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-version-check", "--no-hashing", "--api")
"""Options with which every WebUI installs, updates and downloads nothing."""


@dataclass(frozen=True)
class Kind:
    """One of the WebUIs, by its options: those that it has beside `AS_INSTALLED`, and those that keep it on the CPU.

    `checkpoints` and `loras` are its options for folders. Without `settings` in its config.json it waits for an answer, or
    downloads something.
    """

    name: str
    more: tuple[str, ...]
    on_cpu: tuple[str, ...]
    checkpoints: str = "--ckpt-dir"
    loras: str = "--lora-dir"
    settings: Mapping[str, Any] = field(default_factory=dict)
    loads_at_start: bool = True
    """Whether it loads its checkpoint before the first request."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """Fields without which its API fails in txt2img with hires fix, or has no negative prompt there."""
    upscalers: Mapping[str, str] = field(default_factory=dict)
    """Upscalers in the place of those that it lacks."""


_EXACT, _NO_DOWNLOADS = ("--no-half", "--precision", "full"), ("--do-not-download-clip", "--no-download-sd-model")
A1111 = Kind("AUTOMATIC1111", _NO_DOWNLOADS, ("--use-cpu", "all", *_EXACT))
_CHEAP_PREVIEWS = {"show_progress_type": "Approx cheap"}
_HIRES_CFG = {"hr_cfg": 7}  # else the second pass has a CFG scale of 1, so no negative prompt
REFORGE = Kind("reForge", _NO_DOWNLOADS, ("--always-cpu", *_EXACT), settings=_CHEAP_PREVIEWS, request=_HIRES_CFG)
_HIRES = {"hr_additional_modules": ["Use same choices"], **_HIRES_CFG}
FORGE = Kind("Forge", _NO_DOWNLOADS[1:], ("--always-cpu",), settings=_CHEAP_PREVIEWS, loads_at_start=False, request=_HIRES)
_AS_STARTED_BEFORE = {"VERSION_UID": "PY313", "res_step": 8, **_CHEAP_PREVIEWS}  # else a second pass has multiples of 64 px
NEO = Kind(
    "Neo",
    (),
    ("--cpu",),
    "--ckpt-dirs",
    "--lora-dirs",
    _AS_STARTED_BEFORE,
    loads_at_start=False,
    request=_HIRES,
    upscalers={"Latent": "None", "Lanczos": "None"},
)


def kind_of(webui: Path) -> Kind:
    """Returns which of the WebUIs is installed in a folder, by what is there."""
    if (webui / "ldm_patched").is_dir():
        return REFORGE
    if not (webui / "backend").is_dir():
        return A1111
    return NEO if NEO.checkpoints in (webui / "modules" / "cmd_args.py").read_text(encoding="utf-8") else FORGE


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


def command(webui: Path, data_dir: Path, ckpt_dir: Path, lora_dir: Path, *more: str) -> list[str]:
    """Returns the command that starts the WebUI; it must run in the folder `webui`."""
    kind = kind_of(webui)
    folders = ["--data-dir", str(data_dir), kind.checkpoints, str(ckpt_dir), kind.loras, str(lora_dir)]
    # with a data folder elsewhere, Gradio 4 would not let the page have the WebUI's own scripts
    return [str(python_of(webui)), "launch.py", *AS_INSTALLED, *kind.more, *folders, "--gradio-allowed-path", str(webui), *more]


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
    kind = kind_of(webui)
    lay_out(data_dir, [ROOT], {**kind.settings, **settings})
    more = ["--autolaunch", *([] if _has_cuda(webui) else kind.on_cpu)]
    return subprocess.run(command(webui, data_dir, checkpoint.parent, loras, *more), cwd=webui, check=False).returncode


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
