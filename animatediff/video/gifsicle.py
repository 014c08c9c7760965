"""Smaller GIFs, through the program gifsicle, where it is installed."""

from __future__ import annotations

import shutil
import subprocess


def problem() -> str:
    """Why GIFs cannot be made smaller here; empty where they can."""
    if shutil.which("gifsicle"):
        return ""
    return "the program gifsicle is not installed; install it, or switch its setting off"


def shrunk(gif: bytes) -> bytes:
    """The same pictures, delays and comment in fewer bytes. Raises OSError, with gifsicle's own words, where it fails."""
    if reason := problem():
        raise OSError(reason)
    done = subprocess.run(["gifsicle", "--optimize=3", "--no-warnings"], input=gif, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        raise OSError(f"gifsicle failed: {done.stderr.decode(errors='replace').strip()[:1000]}")
    return done.stdout
