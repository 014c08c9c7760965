"""Frame interpolation: more frames in the video, at a higher frame rate."""

from __future__ import annotations

import av

from support.animation import animate, info_of


def test_a_video_has_more_frames_and_is_as_long_as_before(host):
    request = animate(video_length=4, format=["MP4", "PNG"], fps=4, interp="optical flow", interp_x=5)
    info = info_of(host.txt2img(**request, save_images=True))
    files = info["extra_generation_params"]["AnimateDiff files"]
    (mp4,) = (file for file in files if file.endswith(".mp4"))
    with av.open(mp4) as video:
        assert video.streams.video[0].average_rate == 20
        assert sum(1 for _ in video.decode(video=0)) == 3 * 5 + 1
    assert sum(file.endswith(".png") for file in files) == 4
    assert "interp: optical flow" in info["infotexts"][0] and "interp_x: 5" in info["infotexts"][0]


def test_a_loop_has_interpolated_frames_between_its_end_and_its_start(host):
    def frames_in(**windows):
        request = animate(video_length=6, format=["MP4"], interp="optical flow", interp_x=2, **windows)
        info = info_of(host.txt2img(**request, save_images=True, steps=1))
        with av.open(info["extra_generation_params"]["AnimateDiff files"][0]) as video:
            return sum(1 for _ in video.decode(video=0))

    assert frames_in(batch_size=4) == frames_in(closed_loop="A") == 12
    assert frames_in(batch_size=4, closed_loop="N") == frames_in(batch_size=6) == 11


def test_a_higher_frame_rate_than_a_gif_allows_is_refused(host):
    answer = host.txt2img(**animate(format=["GIF"], interp="optical flow", interp_x=9))
    assert answer.status_code == 422 and "interp_x" in answer.json()["detail"]


def test_rife_is_refused_with_a_message_if_it_is_not_installed(host):
    answer = host.txt2img(**animate(format=["MP4"], interp="RIFE"))
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("RIFE is not installed. Run `pip install ")
    assert answer.json()["detail"].endswith("Or set Frame interpolation (interp) to “optical flow”.")
