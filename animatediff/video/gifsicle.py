"""Smaller GIFs, through the program gifsicle, where it is installed."""

from __future__ import annotations

import shutil
import subprocess


def shrunk(gif: bytes) -> bytes:
    """The same pictures, delays and comment in fewer bytes. Raises OSError, with gifsicle's own words, where it fails."""
    program = shutil.which("gifsicle")
    if program is None:
        raise OSError("the program gifsicle is not installed; install it, or switch its setting off")
    done = subprocess.run([program, "--optimize=3", "--no-warnings"], input=gif, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise OSError(f"gifsicle failed: {done.stderr.decode(errors='replace').strip()[:1000]}")
    return done.stdout
