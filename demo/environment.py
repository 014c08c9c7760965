"""Makes `.venv`, the project's own Python environment, from the lock beside this file.

    python -m demo.environment          what the demo needs
    python -m demo.environment --dev    and what tests and lint need

Only Python itself is needed to run this. What was completed is stamped at the end, so that an installation which was cut
short is never trusted.
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
"""A file that says that an environment is ours, but not whole."""


def ensure(dev: bool = False) -> Path:
    """The Python of a complete environment. Exits with a sentence where one cannot be made."""
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
            "The first run needs a network, about 6 GB of disk, and a Python with its module venv. Run the same command again."
        )
    except KeyboardInterrupt:
        sys.exit("\nStopped. The next run starts the installation again.")
    return PYTHON


def _make() -> None:
    interpreter = _interpreter()
    if FOLDER.exists():
        if not any(FOLDER.glob(f"*{STAMP}")) and not (FOLDER / UNFINISHED).exists():
            sys.exit(f"{FOLDER} was not made by this project. Move it away, or remove it, and run the same command again.")
        (FOLDER / UNFINISHED).touch()
        for stamp in FOLDER.glob(f"*{STAMP}"):
            stamp.unlink()
        shutil.rmtree(FOLDER)
    print(f"Making the environment {FOLDER}. This happens once and takes some minutes.", flush=True)
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
    """A Python that the lock holds for: the one that runs this, else one that is installed beside it."""
    if ".".join(map(str, sys.version_info[:2])) in PYTHONS:
        return [getattr(sys, "_base_executable", sys.executable)]  # not one of a virtual environment, least of all of ours
    for version in PYTHONS:
        if found := shutil.which(f"python{version}"):
            return [found]
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
    parser.add_argument("--dev", action="store_true", help="with what tests and lint need")
    print(ensure(parser.parse_args().dev))


if __name__ == "__main__":
    main()
