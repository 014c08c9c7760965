"""Installs imageio-ffmpeg; the WebUI runs this file at every start.

The WebUI brings along everything else that the extension needs. `--no-deps` leaves the versions that it pins alone.
"""

import importlib.util

import launch

if importlib.util.find_spec("imageio_ffmpeg") is None:
    try:
        launch.run_pip('install --no-deps "imageio-ffmpeg>=0.5,<1"', "imageio-ffmpeg, for AnimateDiff's videos")
    except RuntimeError as error:
        print(f"AnimateDiff cannot read videos or write MP4 and WebM, because imageio-ffmpeg could not be installed: {error}")
