"""Makes `.venv`, the project's own Python environment, from the lock beside this file.

    python -m demo.environment          what the demo needs
    python -m demo.environment --dev    and what tests and lint need

Only Python itself is needed to run this. What was completed is stamped at the end, so that an installation which was cut
short is never trusted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
LOCK = ROOT / "demo" / "requirements.txt"
DEV = ROOT / "requirements-dev.txt"
PYTHONS = ("3.11", "3.10")


def ensure(dev: bool = False) -> Path:
    """The Python of a complete environment. Exits with a sentence where one cannot be made."""
    python = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        if not _is_stamped(LOCK):
            _make(python)
        if dev and not _is_stamped(DEV):
            print("Installing what the tests need …", flush=True)
            _pip(python, "-r", DEV, "-c", LOCK)
            _stamp(DEV)
    except OSError as error:
        sys.exit(f"The environment could not be made: {error}.\nThe folder {ROOT} must be writable, with about 6 GB free.")
    except subprocess.CalledProcessError:
        sys.exit(
            "The environment could not be made: pip failed, see above.\n"
            "The first run needs a network and about 6 GB of disk; later ones need neither. Run the same command again."
        )
    except KeyboardInterrupt:
        sys.exit("\nStopped. The next run starts the installation again.")
    return python


def _make(python: Path) -> None:
    print(f"Making the environment {FOLDER}. This happens once and takes some minutes.", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([*_interpreter(), "-m", "venv", str(FOLDER)], check=True)
    torch = [line for line in LOCK.read_text().splitlines() if line.startswith("torch==")]
    print("1 of 2: torch …", flush=True)
    _pip(python, *torch, "-c", LOCK)
    print("2 of 2: everything else …", flush=True)
    _pip(python, "--no-deps", "-r", LOCK)
    _stamp(LOCK)


def _interpreter() -> list[str]:
    """A Python that the lock holds for: the one that runs this, else one that is installed beside it."""
    if ".".join(map(str, sys.version_info[:2])) in PYTHONS:
        return [sys.executable]
    for version in PYTHONS:
        if found := shutil.which(f"python{version}"):
            return [found]
        if (
            os.name == "nt"
            and subprocess.run(["py", f"-{version}", "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            return ["py", f"-{version}"]
    sys.exit(
        f"Python {' or '.join(PYTHONS)} is needed, as for the WebUI; this is {sys.version.split()[0]}. Install one of them."
    )


def _pip(python: Path, *arguments: str | Path) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([str(python), "-m", "pip", "install", *quiet, *map(str, arguments)], check=True)


def _stamp_file(requirements: Path) -> Path:
    return FOLDER / f"{requirements.parent.name}-{requirements.stem}.complete"


def _is_stamped(requirements: Path) -> bool:
    stamp = _stamp_file(requirements)
    return stamp.is_file() and stamp.read_text() == _digest(requirements)


def _stamp(requirements: Path) -> None:
    _stamp_file(requirements).write_text(_digest(requirements))


def _digest(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes()).hexdigest()


def main(arguments: Sequence[str]) -> None:
    print(ensure(dev="--dev" in arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
