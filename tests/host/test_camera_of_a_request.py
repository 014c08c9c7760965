"""The camera that a request asks for: what is refused before a video, and what the plot in the panel says."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from animatediff.errors import RequestError
from support.camera_weights import pose_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _a_webui(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`


@pytest.mark.parametrize(("width", "height"), [(32, 64), (64, 63), (8, 8)])
def test_a_video_too_small_for_the_encoder_is_refused(width, height):
    from animatediff.job.camera import require_possible

    size = SimpleNamespace(width=width, height=height)
    with pytest.raises(RequestError, match=f"needs a width and a height of at least 64, but the video is {width}×{height}"):
        require_possible(size, SimpleNamespace(camera=object()))
    require_possible(size, SimpleNamespace(camera=None))
    require_possible(SimpleNamespace(width=64, height=64), SimpleNamespace(camera=object()))


def test_the_plot_says_where_a_file_has_too_few_poses(monkeypatch):
    from animatediff.page import camera_page

    monkeypatch.setattr(camera_page, "trained_frames", lambda model: 16)

    def shown(frames):
        given = {"model": "", "video_length": frames, "batch_size": 16, "overlap": -1, "camera": "", "camera_motion": ""}
        return camera_page._plot(*({**given, "camera_poses": pose_file(6)}[name] for name in camera_page.PANEL))

    assert "has 6 poses for 8 frames. Set Number of frames (video_length) to 6 or less" in shown(8)
    assert "ad-camera-way" in shown(6)
