"""Frame interpolation, along the optical flow and with RIFE."""

import importlib.machinery
import sys
import types

import numpy as np
import pytest
from PIL import Image

from animatediff.video.interpolation import interpolated
from animatediff.video.rife import Rife, model_in
from motion_module.errors import MissingDependency


def ground(seed=0, size=(96, 128)):
    """A smooth pattern in which optical flow can be measured."""
    small = np.random.default_rng(seed).integers(0, 90, (*(side // 8 for side in size), 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def with_square(left, seed=0):
    picture = ground(seed).copy()
    texture = np.random.default_rng(1).integers(170, 255, (5, 5, 3)).astype(np.uint8)
    picture[30:70, left : left + 40] = np.asarray(Image.fromarray(texture).resize((40, 40), Image.Resampling.BICUBIC))
    return Image.fromarray(picture)


def place(picture):
    """The mean column of the bright pixels."""
    bright = np.asarray(picture).min(axis=-1) > 140
    return np.nonzero(bright)[1].mean()


def test_a_moving_square_is_on_its_way_between_two_frames():
    frames = interpolated([with_square(30), with_square(38)], 4)
    assert len(frames) == 5
    assert [place(frame) for frame in frames] == pytest.approx([49.5, 51.5, 53.5, 55.5, 57.5], abs=0.6)


def test_the_given_frames_stay_and_new_ones_come_between_each_two():
    given = [with_square(left) for left in (20, 24, 28)]
    frames = interpolated(given, 3)
    assert len(frames) == 7 and [frames[index] for index in (0, 3, 6)] == given
    assert interpolated(given, 1) == given


def test_a_closed_clip_has_frames_between_its_last_and_its_first():
    frames = interpolated([with_square(20), with_square(28)], 2, closed=True)
    assert len(frames) == 4 and place(frames[3]) == pytest.approx(place(frames[1]), abs=0.6)


def test_nothing_is_mixed_across_a_cut():
    first, second = with_square(20), Image.fromarray(255 - ground(seed=7))
    frames = [np.asarray(frame) for frame in interpolated([first, second], 4)]
    assert all(np.array_equal(frame, np.asarray(first)) for frame in frames[:2])
    assert all(np.array_equal(frame, np.asarray(second)) for frame in frames[2:])


def test_a_still_picture_stays_as_it_is():
    frames = interpolated([with_square(20), with_square(20)], 2)
    assert np.abs(np.asarray(frames[1]).astype(int) - np.asarray(frames[0])).max() <= 1


# --- RIFE ---


class Blend:
    """A stand-in for RIFE's package, which needs a GPU driver. It keeps its arguments and cross-fades the two frames."""

    def __init__(self, gpuid, model):
        self.gpuid, self.model = gpuid, model

    def process(self, before, after, timestep):
        return Image.blend(before, after, timestep)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with two models of version 4, of which one is incomplete, and an older one."""
    package = types.ModuleType("rife_ncnn_vulkan_python")
    package.__spec__ = importlib.machinery.ModuleSpec("rife_ncnn_vulkan_python", None)
    package.Rife, package.wrapped = Blend, types.SimpleNamespace(get_gpu_count=lambda: 0)
    monkeypatch.setitem(sys.modules, "rife_ncnn_vulkan_python", package)
    for name in ("rife-v4.6/flownet.param", "rife-v4.6/flownet.bin", "rife-v4.9/flownet.param", "rife-v2.3/flownet.param"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_rife_makes_all_new_frames_except_across_a_cut(models):
    rife = Rife(model_in(models))
    first, second = with_square(20), with_square(28)
    frames = interpolated([first, second, Image.fromarray(255 - ground(seed=7))], 4, rife=rife)
    for frame, fraction in zip(frames[1:4], (0.25, 0.5, 0.75)):
        assert np.array_equal(frame, Image.blend(first, second, fraction))
    assert np.array_equal(frames[5], second) and frames[4] == second


def test_the_newest_complete_model_of_version_4_is_used_and_the_cpu_without_a_gpu(models):
    assert model_in(models) == models / "rife-v4.6"
    rife = Rife(models / "rife-v4.6")
    assert rife._model.gpuid == -1 and rife._model.model == str(models / "rife-v4.6")


def test_a_missing_rife_model_or_package_is_named(models, monkeypatch):
    (models / "rife-v4.6" / "flownet.bin").unlink()
    with pytest.raises(MissingDependency, match=r"Put one into .*rife-v4"):
        model_in(models)
    monkeypatch.delitem(sys.modules, "rife_ncnn_vulkan_python")
    with pytest.raises(MissingDependency, match="pip install rife-ncnn-vulkan-python-tntwise"):
        model_in(models)
