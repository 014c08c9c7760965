"""A stand-in for ffmpeg that gets stuck, as ffmpeg does with some hostile files."""

from imageio_ffmpeg import get_ffmpeg_exe

from motion_module import time_limit

PROGRAM = """#!/bin/sh
case "$*" in
*'{option}'*) '{ffmpeg}' "$@" | head -c {passed}; exec sleep 20 ;;
*) exec '{ffmpeg}' "$@" ;;
esac
"""


def replace_ffmpeg(folder, monkeypatch, option="", passed=0):
    """Replaces ffmpeg. It gets stuck where it is called with that option, after so many bytes of its output."""
    program = folder / "stuck_ffmpeg"
    program.write_text(PROGRAM.format(option=option, ffmpeg=get_ffmpeg_exe(), passed=passed))
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    monkeypatch.setattr(time_limit, "CHECKED_EVERY", 0.05)
