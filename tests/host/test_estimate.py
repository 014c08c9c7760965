"""What earlier clips say of the next one."""

import importlib
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from animatediff.job.estimate import Run, Size, memory, seconds, spoken
from animatediff.request.params import Params
from motion_module.context_windows import ContextWindows

ROOT = Path(__file__).resolve().parents[2]
SMALL, LARGE = Size(16, 512, 512, 20), Size(16, 768, 768, 20)


def test_nothing_is_known_at_first():
    assert seconds([], SMALL) is None and memory([], SMALL) is None


def test_the_same_again_takes_as_long():
    assert seconds([Run("cpu", "SD 1.5", 0, SMALL, 60.0), Run("cpu", "SD 1.5", 0, LARGE, 200.0)], SMALL) == pytest.approx(60)
    assert seconds([Run("cpu", "SD 1.5", 0, SMALL, 60.0), Run("cpu", "SD 1.5", 0, LARGE, 200.0)], LARGE) == pytest.approx(200)


def test_the_latest_of_equals_counts():
    assert seconds([Run("cpu", "SD 1.5", 0, SMALL, 60.0), Run("cpu", "SD 1.5", 0, SMALL, 30.0)], SMALL) == pytest.approx(30)


@pytest.mark.parametrize(
    ("wanted", "times"),
    [
        (Size(32, 512, 512, 20), 2),
        (Size(16, 512, 512, 30), 1.5),
        (Size(16, 1024, 512, 20), 2),
        (Size(16, 512, 512, 20, videos=3), 3),
    ],
)
def test_time_goes_with_frames_pixels_steps_and_videos(wanted, times):
    assert seconds([Run("gpu", "SD 1.5", 0, SMALL, 60.0)], wanted) == pytest.approx(60 * times)


def test_memory_is_a_straight_line_through_what_was_measured():
    """4 GB for the models and 3 GB for 16 frames of 512 pixels."""
    runs = [Run("gpu", "SD 1.5", 0, size, 1.0, round(4e9 + 3e9 * size.pixels / SMALL.pixels)) for size in (SMALL, LARGE)]
    assert memory(runs, Size(32, 512, 512, 20)) == pytest.approx(10e9)
    assert memory(runs[:1], SMALL) is None, "one size says nothing of another"
    assert memory([Run("cpu", "SD 1.5", 0, SMALL, 1.0), Run("cpu", "SD 1.5", 0, LARGE, 1.0)], SMALL) is None


def test_memory_goes_with_the_frames_of_a_window():
    runs = [Run("gpu", "SD 1.5", 0, size, 1.0, round(4e9 + 3e9 * size.pixels / SMALL.pixels)) for size in (SMALL, LARGE)]
    assert memory(runs, Size(64, 512, 512, 20, at_once=16)) == pytest.approx(7e9)
    assert seconds(runs[:1], Size(64, 512, 512, 20, at_once=16)) == pytest.approx(4)


@pytest.mark.parametrize(
    ("duration", "words"), [(0.2, "1 s"), (42.4, "42 s"), (60, "1 min 0 s"), (99, "1 min 30 s"), (3700, "1 h 1 min")]
)
def test_durations_are_said_as_people_do(duration, words):
    assert spoken(duration) == words


@pytest.fixture
def history(tmp_path, monkeypatch):
    """Imported with the embedded host's `modules`."""
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))
    module = importlib.import_module("animatediff.job.run_history")
    before = ("SD 1.5", 300, 5.0), ("SD 1.5", 860, 60.0), ("SDXL", 860, 240.0)
    runs = [asdict(Run(module.device_name(), base, parameters, SMALL, took)) for base, parameters, took in before]
    monkeypatch.setattr(module.json_store, "read", lambda _name: [*runs, {"device": "written by an older version"}])
    monkeypatch.setattr(module, "unet_parameters", lambda: 860)
    return module


def test_only_checkpoints_of_the_same_kind_and_size_are_alike(history):
    assert [run.seconds for run in history.runs("SDXL")] == [240.0]
    assert [run.seconds for run in history.runs("SD 1.5")] == [60.0]


@pytest.mark.parametrize("windows", [(48, 16, 4), (40, 16, 15), (16, 16, 4), (9, 2, 1)])
@pytest.mark.parametrize("loop", ["none", "few", "many"])
def test_the_frames_in_all_windows_are_counted(history, windows, loop):
    windows = ContextWindows(*windows, stride=3, closed_loop=loop)
    size = history.size_of(windows, Params(), width=64, height=64, steps=1, videos=1)
    assert size.frames == (windows.at(0).frames.numel() if windows.needed else windows.frames)


@pytest.mark.parametrize(("speed", "every", "light"), [("Exact", 2, 0), ("Fast", 2, 9), ("Fast", 3, 12)])
def test_light_steps_take_a_part_of_the_time(history, speed, every, light):
    """Of 20 steps, 11 are full where every second one is and the last, and 8 where every third one is and the last."""
    params = Params(speed=speed, speed_every=every)
    size = history.size_of(ContextWindows(16, 16, 4), params, width=64, height=64, steps=20, videos=1)
    assert size.steps == pytest.approx(20 - light * (1 - history.LIGHT_STEP.get(speed, 1)))


def test_no_settings_make_the_forecast_wait(history):
    """These windows would have more than 25 million entries."""
    began = time.monotonic()
    windows = ContextWindows(10_000, 5_000, overlap=4_999, stride=32)
    size = history.size_of(windows, Params(), width=64, height=64, steps=1, videos=1)
    assert size.frames > 25_000_000 and time.monotonic() - began < 0.5


def test_without_a_loaded_checkpoint_nothing_is_estimated(history, monkeypatch):
    monkeypatch.setattr(history, "unet_parameters", lambda: 0)
    assert history.runs("SD 1.5") == []
