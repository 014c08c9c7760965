"""The measures of clips with known results."""

import weakref

import numpy as np
import pytest

from motion_module.__main__ import main
from motion_module.errors import UnreadableVideo
from motion_module.evaluation import changes_of, measures_of
from support.small_training import stripes, write_frames, write_video


def disc(x, y, side=64):
    """Returns a soft disc on a plain background, `(side, side, 3)`."""
    rows, columns = np.mgrid[:side, :side]
    inside = np.clip(10.5 - np.hypot(columns - x, rows - y), 0, 1)[..., None]
    return (60 + inside * np.array([180, 90, 20])).round().astype(np.uint8)


def going(xs):
    return np.stack([disc(x, 32) for x in xs])


def test_changes_are_those_from_frame_to_frame_and_over_the_end():
    frames = [np.full((2, 3, 3), level, np.uint8) for level in (10, 14, 4, 255)]
    assert changes_of(frames) == ([4, 10, 251], 245)


def test_a_still_clip_measures_zero():
    measures = measures_of(np.repeat(disc(32, 32)[None], 8, axis=0))
    assert (measures.flicker == 0).all()
    assert (measures.jitter, measures.seam, measures.drift) == (0, 0, 0)
    assert measures.consistency == 1


def test_noise_flickers_and_motion_does_not():
    smooth = going(np.arange(20, 36, 2.0))
    noise = np.random.default_rng(0).integers(-20, 21, smooth.shape)
    noisy = np.clip(smooth.astype(int) + noise, 0, 255).astype(np.uint8)
    assert measures_of(smooth).flicker.mean() < 0.5
    assert measures_of(noisy).flicker.mean() > 5
    assert measures_of(smooth).consistency > measures_of(noisy).consistency


def test_flicker_is_given_by_frame():
    clip = going(np.arange(20, 36, 2.0))
    clip[5] = 255 - clip[5]
    flicker = measures_of(clip).flicker
    assert set(np.argsort(flicker)[-2:]) == {4, 5}  # into the frame, and out of it


def test_a_trembling_path_has_jitter():
    steady = np.arange(20, 36, 2.0)
    trembling = steady + np.array([0, 2] * 4)
    assert measures_of(going(trembling)).jitter > 3 * measures_of(going(steady)).jitter


def test_a_loop_that_closes_has_a_seam_of_one_step():
    turns = 2 * np.pi * np.arange(16) / 16
    around = np.stack([disc(32 + 12 * np.cos(turn), 32 + 12 * np.sin(turn)) for turn in turns])
    assert measures_of(around).seam == pytest.approx(1, abs=0.1)
    assert measures_of(around[:12]).seam > 2


def test_drift_is_in_pixel_values():
    clip = np.repeat(disc(32, 32)[None], 8, axis=0).astype(int)
    clip[-2:] += 10
    assert measures_of(clip.astype(np.uint8)).drift == pytest.approx(10, abs=0.01)


def test_two_frames_are_too_few():
    with pytest.raises(UnreadableVideo, match="it has fewer than three frames"):
        measures_of(stripes(2))


def test_the_command_prints_a_table_and_draws_a_plot(tmp_path, capsys):
    video, frames = write_video(tmp_path / "a.mp4", stripes(6)), write_frames(tmp_path / "b", stripes(5))
    assert main(["evaluate", str(video), str(frames), "--plot", str(tmp_path / "plot.png")]) == 0
    head, line, *rows = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")][:3] == ["clip", "frames", "flicker (levels)"]
    assert set(line) == {"|", "-"}
    assert [row.split("|")[1].strip() for row in rows] == [str(video), str(frames)]
    assert [row.split("|")[2].strip() for row in rows] == ["6", "5"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_names_the_clip_that_cannot_be_measured_and_measures_the_others(tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert main(["evaluate", str(tmp_path / "bad.mp4"), str(write_frames(tmp_path / "b", stripes(5)))]) == 1
    told = capsys.readouterr()
    assert told.err == f"{tmp_path / 'bad.mp4'}: its content is not that of a video. Choose another file.\n"
    assert len(told.out.splitlines()) == 3
    assert main(["evaluate", str(tmp_path / "bad.mp4")]) == 1
    assert capsys.readouterr().out == ""


def test_a_plot_with_an_unknown_suffix_is_refused(tmp_path, capsys):
    assert main(["evaluate", str(write_frames(tmp_path / "b", stripes(5))), "--plot", str(tmp_path / "plot.nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


def test_frames_are_not_all_in_memory():
    """Only a few frames of a long clip are in memory."""
    alive, most = [], 0

    def frames():
        nonlocal most
        for index in range(12):
            frame = disc(20 + index, 32)
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            most = max(most, sum(reference() is not None for reference in alive))

    assert measures_of(frames()).frames == 12
    assert most <= 3
