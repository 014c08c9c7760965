"""The WebUI runs this at every start.

Everything else that the extension needs comes with the WebUI, and no version that it pins is moved.
"""

import importlib.util

import launch

if importlib.util.find_spec("imageio_ffmpeg") is None:
    try:
        launch.run_pip('install --no-deps "imageio-ffmpeg>=0.5,<1"', "imageio-ffmpeg, for AnimateDiff's MP4 and WebM")
    except RuntimeError as error:
        print(f"AnimateDiff goes on without MP4 and WebM, since imageio-ffmpeg could not be installed: {error}")
