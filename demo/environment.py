"""Makes `.venv`, the project's own Python environment, from `requirements.txt` in this folder.

    python -m demo.environment          installs what the demo needs
    python -m demo.environment --dev    installs what tests and lint need as well

It runs with nothing but Python. A stamp file is written last, so that an interrupted installation is never taken for a
complete one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
LOCK = ROOT / "demo" / "requirements.txt"
DEV = ROOT / "requirements-dev.txt"
PYTHON = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PYTHONS = ("3.11", "3.10")
STAMP = ".complete"
UNFINISHED = "unfinished"
"""The name of a file that marks an environment as ours, but incomplete."""


def ensure(dev: bool = False) -> Path:
    """Returns the Python of a complete environment. Exits with a message if it cannot be made."""
    try:
        if not (_is_stamped(LOCK) and PYTHON.exists()):
            _make()
        if dev and not _is_stamped(DEV):
            print("Installing what the tests need …", flush=True)
            _pip("-r", DEV, "-c", LOCK)
            _stamp(DEV)
    except OSError as error:
        sys.exit(f"The environment could not be made: {error}.\nThe folder {ROOT} must be writable, with about 6 GB free.")
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"The environment could not be made: this command failed, see above.\n  {' '.join(map(str, error.cmd))}\n"
            "The first run needs an internet connection, about 6 GB of disk space, and Python's module venv. Run it again."
        )
    except KeyboardInterrupt:
        sys.exit("\nStopped. The next run starts the installation again.")
    return PYTHON


def _make() -> None:
    interpreter = _interpreter()
    if FOLDER.exists():
        if not any(FOLDER.glob(f"*{STAMP}")) and not (FOLDER / UNFINISHED).exists():
            sys.exit(f"{FOLDER} was not made by this project. Move or remove it, and run the same command again.")
        (FOLDER / UNFINISHED).touch()
        for stamp in FOLDER.glob(f"*{STAMP}"):
            stamp.unlink()
        shutil.rmtree(FOLDER)
    print(f"Making the environment {FOLDER}. This happens once and takes a few minutes.", flush=True)
    FOLDER.mkdir()
    (FOLDER / UNFINISHED).touch()
    subprocess.run([*interpreter, "-m", "venv", str(FOLDER)], check=True)
    torch = [line for line in LOCK.read_text().splitlines() if line.startswith("torch==")]
    print("1 of 2: torch …", flush=True)
    _pip(*torch, "-c", LOCK)
    print("2 of 2: everything else …", flush=True)
    _pip("--no-deps", "-r", LOCK)
    _stamp(LOCK)
    (FOLDER / UNFINISHED).unlink()


def _interpreter() -> list[str]:
    """Returns the command of a Python that `requirements.txt` supports: the running one, otherwise another installed one."""
    if ".".join(map(str, sys.version_info[:2])) in PYTHONS:
        return [getattr(sys, "_base_executable", sys.executable)]  # not that of a virtual environment, such as our own
    for version in PYTHONS:
        if interpreter := shutil.which(f"python{version}"):
            return [interpreter]
        if (
            shutil.which("py")
            and subprocess.run(["py", f"-{version}", "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            return ["py", f"-{version}"]
    sys.exit(
        f"Python {' or '.join(PYTHONS)} is needed, as for the WebUI; this is {sys.version.split()[0]}. Install one of them."
    )


def _pip(*arguments: str | Path) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([str(PYTHON), "-m", "pip", "install", *quiet, *map(str, arguments)], check=True)


def _stamp_file(requirements: Path) -> Path:
    return FOLDER / f"{requirements.parent.name}-{requirements.stem}{STAMP}"


def _is_stamped(requirements: Path) -> bool:
    stamp = _stamp_file(requirements)
    return stamp.is_file() and stamp.read_text() == _digest(requirements)


def _stamp(requirements: Path) -> None:
    _stamp_file(requirements).write_text(_digest(requirements))


def _digest(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.environment", description="Makes .venv, and prints its Python.")
    parser.add_argument("--dev", action="store_true", help="install what tests and lint need as well")
    print(ensure(parser.parse_args().dev))


if __name__ == "__main__":
    main()
