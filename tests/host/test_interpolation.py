"""Frames between frames."""

import importlib.machinery
import sys
import types

import numpy as np
import pytest
from PIL import Image

from animatediff.video.interpolation import interpolated
from animatediff.video.rife import Rife, model_in
from motion_module.video_reader import MissingDependency


def ground(seed=0, size=(96, 128)):
    """A soft pattern, which flow can be found in."""
    small = np.random.default_rng(seed).integers(0, 90, (*(side // 8 for side in size), 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def with_square(left, seed=0):
    picture = ground(seed).copy()
    texture = np.random.default_rng(1).integers(170, 255, (5, 5, 3)).astype(np.uint8)
    picture[30:70, left : left + 40] = np.asarray(Image.fromarray(texture).resize((40, 40), Image.Resampling.BICUBIC))
    return Image.fromarray(picture)


def place(picture):
    """Of what is bright: the mean column."""
    bright = np.asarray(picture).min(axis=-1) > 140
    return np.nonzero(bright)[1].mean()


def test_a_square_that_moves_is_on_its_way_between_two_frames():
    frames = interpolated([with_square(30), with_square(38)], 4)
    assert len(frames) == 5
    assert [place(frame) for frame in frames] == pytest.approx([49.5, 51.5, 53.5, 55.5, 57.5], abs=0.6)


def test_given_frames_are_kept_and_as_many_are_put_between_each_two():
    given = [with_square(left) for left in (20, 24, 28)]
    frames = interpolated(given, 3)
    assert len(frames) == 7 and [frames[index] for index in (0, 3, 6)] == given
    assert interpolated(given, 1) == given


def test_a_closed_clip_goes_on_to_its_first_frame():
    frames = interpolated([with_square(20), with_square(28)], 2, closed=True)
    assert len(frames) == 4 and place(frames[3]) == pytest.approx(place(frames[1]), abs=0.6)


def test_across_a_cut_nothing_is_mixed():
    first, second = with_square(20), Image.fromarray(255 - ground(seed=7))
    frames = [np.asarray(frame) for frame in interpolated([first, second], 4)]
    assert all(np.array_equal(frame, np.asarray(first)) for frame in frames[:2])
    assert all(np.array_equal(frame, np.asarray(second)) for frame in frames[2:])


def test_what_stands_still_stays_as_it_is():
    frames = interpolated([with_square(20), with_square(20)], 2)
    assert np.abs(np.asarray(frames[1]).astype(int) - np.asarray(frames[0])).max() <= 1


# --- RIFE ---


class Blend:
    """In the place of RIFE's package, which needs a GPU driver: what it is asked for, and the mean of both frames by parts."""

    def __init__(self, gpuid, model):
        self.gpuid, self.model = gpuid, model

    def process(self, before, after, timestep):
        return Image.blend(before, after, timestep)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with two models of version 4, one of them half there, and an older one."""
    package = types.ModuleType("rife_ncnn_vulkan_python")
    package.__spec__ = importlib.machinery.ModuleSpec("rife_ncnn_vulkan_python", None)
    package.Rife, package.wrapped = Blend, types.SimpleNamespace(get_gpu_count=lambda: 0)
    monkeypatch.setitem(sys.modules, "rife_ncnn_vulkan_python", package)
    for name in ("rife-v4.6/flownet.param", "rife-v4.6/flownet.bin", "rife-v4.9/flownet.param", "rife-v2.3/flownet.param"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_rife_makes_every_part_of_the_way_but_across_a_cut(models):
    rife = Rife(model_in(models))
    first, second = with_square(20), with_square(28)
    frames = interpolated([first, second, Image.fromarray(255 - ground(seed=7))], 4, rife=rife)
    for frame, share in zip(frames[1:4], (0.25, 0.5, 0.75)):
        assert np.array_equal(frame, Image.blend(first, second, share))
    assert np.array_equal(frames[5], second) and frames[4] == second


def test_the_last_whole_model_of_version_4_is_taken_and_the_cpu_where_there_is_no_gpu(models):
    assert model_in(models) == models / "rife-v4.6"
    rife = Rife(models / "rife-v4.6")
    assert rife._model.gpuid == -1 and rife._model.model == str(models / "rife-v4.6")


def test_what_is_missing_for_rife_is_said(models, monkeypatch):
    (models / "rife-v4.6" / "flownet.bin").unlink()
    with pytest.raises(MissingDependency, match="put one, such as the folder rife-v4"):
        model_in(models)
    monkeypatch.delitem(sys.modules, "rife_ncnn_vulkan_python")
    with pytest.raises(MissingDependency, match="pip install rife-ncnn-vulkan-python-tntwise"):
        model_in(models)
