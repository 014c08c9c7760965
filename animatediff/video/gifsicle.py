"""Makes GIFs smaller with the program gifsicle, if it is installed."""

from __future__ import annotations

import shutil
import subprocess


def optimized(gif: bytes) -> bytes:
    """Returns the same GIF in fewer bytes, without loss. Raises OSError with gifsicle's message if it fails."""
    program = shutil.which("gifsicle")
    if program is None:
        raise OSError("the program gifsicle is not installed")
    done = subprocess.run([program, "--optimize=3", "--no-warnings"], input=gif, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise OSError(f"gifsicle failed: {done.stderr.decode(errors='replace').strip()[:1000]}")
    return done.stdout
