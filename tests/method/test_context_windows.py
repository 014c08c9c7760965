"""The frames of context windows, and the blending of their results."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from motion_module.context_windows import ContextWindows, ContextWindowsError, van_der_corput
from motion_module.network import TemporalTransformer
from motion_module.row_layout import layout_of_call
from motion_module.vram import WindowBudget
from motion_module.windowed_unet import WindowedUNet

STEPS = 24
CLOSED_LOOPS, FUSE_METHODS = ("none", "few", "many"), ("pyramid", "flat", "overlap-linear")
WAYS = [
    {"closed_loop": closed_loop, "fuse_method": fuse_method}
    for closed_loop, fuse_method in itertools.product(CLOSED_LOOPS, FUSE_METHODS)
]


def frames_of(windows, step=0):
    return windows.at(step).frames.tolist()


def span(first, last):
    return list(range(first, last + 1))


def require_good(windows, step):
    step_windows = windows.at(step)
    assert step_windows.frames.min() >= 0 and step_windows.frames.max() < windows.frames
    assert all(len(set(window)) == len(window) for window in step_windows.frames.tolist())
    assert step_windows.weights.min() > 0
    total = torch.zeros(windows.frames).index_add(0, step_windows.frames.flatten(), step_windows.weights.flatten())
    torch.testing.assert_close(total, torch.ones(windows.frames))  # so every frame is in a window
    if windows.closed_loop == "none":
        assert bool((step_windows.frames.diff(dim=1) > 0).all())


def test_steps_are_shifted_by_reversed_bits():
    assert [van_der_corput(step) for step in range(8)] == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]


def test_static_windows_overlap_and_the_last_one_ends_with_the_clip():
    assert frames_of(ContextWindows(32, 16, 4, uniform=False), step=3) == [span(0, 15), span(12, 27), span(16, 31)]


def test_windows_are_shifted_from_step_to_step_and_reach_both_ends():
    windows = ContextWindows(40, 16, 4)
    assert frames_of(windows, 0) == [span(0, 15), span(12, 27), span(24, 39)]
    assert frames_of(windows, 1) == [span(0, 15), span(6, 21), span(18, 33), span(24, 39)]


@pytest.mark.parametrize(
    ("frames", "closed_loop", "step", "expected"),
    [  # as sd-webui-animatediff documents them, except that a window with the first frame is first
        (32, "few", 0, [span(0, 15), span(12, 27), span(24, 31) + span(0, 7)]),
        (32, "few", 1, [span(28, 31) + span(0, 11), span(16, 31), span(8, 23)]),
        (40, "few", 0, [span(0, 15), span(12, 27), span(24, 39)]),
        (40, "many", 0, [span(0, 15), span(12, 27), span(24, 39), span(36, 39) + span(0, 11)]),
    ],
)
def test_windows_that_close_the_loop(frames, closed_loop, step, expected):
    assert frames_of(ContextWindows(frames, 16, 4, closed_loop=closed_loop), step) == expected


def test_static_windows_close_the_loop_in_every_step():
    for frames in range(17, 81):
        assert any(
            window[0] > window[-1] for window in frames_of(ContextWindows(frames, 16, 4, uniform=False, closed_loop="few"))
        )


def test_boundaries_are_where_static_windows_begin():
    assert ContextWindows(32, 16, 4, uniform=False).boundaries() == [12, 16]
    assert ContextWindows(32, 16, 4, uniform=False, closed_loop="few").boundaries() == [12, 24]
    assert ContextWindows(32, 16, 4).boundaries() == ContextWindows(16, 16, 4, uniform=False).boundaries() == []


def test_a_larger_stride_adds_windows_of_more_distant_frames():
    windows = ContextWindows(32, 8, 2, stride=9, uniform=False)
    assert windows.distances() == [1, 2, 4]
    assert {window[1] - window[0] for window in frames_of(windows)} == {1, 2, 4}
    assert [0, 4, 8, 12, 16, 20, 24, 28] in frames_of(windows)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_every_frame_is_covered_at_every_step(data):
    length = data.draw(st.integers(1, 32), "length")
    windows = ContextWindows(
        data.draw(st.integers(1, 80), "frames"),
        length,
        data.draw(st.integers(0, length - 1), "overlap"),
        stride=data.draw(st.integers(1, 6), "stride"),
        uniform=data.draw(st.booleans(), "uniform"),
        closed_loop=data.draw(st.sampled_from(CLOSED_LOOPS), "closed_loop"),
        fuse_method=data.draw(st.sampled_from(FUSE_METHODS), "fuse_method"),
    )
    for step in range(STEPS):
        require_good(windows, step)


def test_every_frame_is_covered_in_edge_cases():
    for frames, length in itertools.product((1, 2, 3, 15, 16, 17, 31, 32, 33, 80), (1, 2, 16, 31, 32)):
        for overlap in {0, 1, length // 2, length - 1} & set(range(length)):
            for ways in WAYS:
                for step in range(STEPS if length > 2 else 3):
                    require_good(ContextWindows(frames, length, overlap, stride=2, **ways), step)


def test_a_clip_that_fits_is_one_window():
    for ways in WAYS:
        if ways["closed_loop"] != "many":
            step_windows = ContextWindows(7, 8, 2, stride=3, **ways).at(5)
            assert step_windows.frames.tolist() == [span(0, 6)] and step_windows.weights.tolist() == [[1.0] * 7]
    assert frames_of(ContextWindows(1, 8, closed_loop="many")) == [[0]]


def test_a_clip_that_fits_and_loops_is_two_windows_half_a_clip_apart():
    for ways in WAYS:  # whatever the other settings, which are for several windows
        if ways["closed_loop"] == "many":
            for uniform, step in itertools.product((True, False), range(3)):
                windows = ContextWindows(8, 8, 2, stride=3, uniform=uniform, **ways)
                assert windows.wraps and not windows.needed
                assert frames_of(windows, step) == [span(0, 7), span(4, 7) + span(0, 3)]
                assert windows.at(step).weights[0].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("frames", [*range(2, 18), 24, 31, 32])
def test_the_end_of_a_clip_that_fits_and_loops_is_like_any_other_place(frames):
    windows = ContextWindows(frames, 32, 8, closed_loop="many")
    require_good(windows, 0)
    step_windows = windows.at(0)
    together = torch.zeros(frames)  # the weight of the windows in which a frame and the next one are side by side
    for window, weights in zip(step_windows.frames, step_windows.weights):
        assert sorted(window.tolist()) == span(0, frames - 1)
        assert torch.equal(window.diff() % frames, torch.ones(frames - 1, dtype=torch.long))
        together[window[:-1]] += torch.minimum(weights[:-1], weights[1:])
    assert together.min() >= 1 / 2 - 1e-6
    if frames % 2 == 0:
        assert together.tolist() == pytest.approx(together.roll(frames // 2).tolist())


def test_each_fuse_method_has_its_weights():
    def shares(fuse_method):
        return ContextWindows(6, 4, 2, uniform=False, fuse_method=fuse_method).at(0).weights

    torch.testing.assert_close(shares("flat"), torch.tensor([[1, 1, 1 / 2, 1 / 2], [1 / 2, 1 / 2, 1, 1]]))
    torch.testing.assert_close(shares("pyramid"), torch.tensor([[1, 1, 2 / 3, 1 / 3], [1 / 3, 2 / 3, 1, 1]]))
    torch.testing.assert_close(shares("overlap-linear"), torch.tensor([[1, 1, 2 / 3, 1 / 3], [1 / 3, 2 / 3, 1, 1]]))
    long = ContextWindows(10, 6, 2, uniform=False, fuse_method="overlap-linear").at(0).weights
    assert long[0].tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])
    assert ContextWindows(10, 6, 2, uniform=False).at(0).weights[0].tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])


class FixedOrder(TorchDispatchMode):
    """Fails on operators that add in a random order on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not name.startswith(("index_add", "index_reduce", "scatter", "embedding_bag")), name
        assert not name.startswith("index_put") or not (args[3:] or (kwargs or {}).get("accumulate")), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("closed_loop", CLOSED_LOOPS)
def test_windows_are_added_in_a_fixed_order(closed_loop, kind):
    """The result has the same bits as that of `index_add_` on a CPU."""
    step_windows = ContextWindows(30, 8, 3, stride=2, closed_loop=closed_loop).at(5)
    results = torch.randn(2, *step_windows.frames.shape, 3, 5, generator=torch.Generator().manual_seed(0)).to(kind)
    weighted = results * step_windows.weights.to(kind)[..., None, None]
    expected = torch.zeros(2, 30, 3, 5, dtype=kind).index_add_(1, step_windows.frames.flatten(), weighted.flatten(1, 2))
    assert torch.equal(step_windows.blended(results), expected)


def test_no_operator_adds_windows_in_a_random_order():
    windows, rows = ContextWindows(30, 8, 3, stride=2, closed_loop="many"), torch.randn(60, 32, 2, 2)
    layout = layout_of_call(60, 30)
    with torch.no_grad(), FixedOrder():
        in_windows(Mean(), windows, lambda rows: layout_of_call(rows, 30), rows=60)
        TemporalTransformer(32, 8).residual(rows, layout, windows=windows.at(1))


@pytest.mark.parametrize("overlap", [-1, 4, 5])
def test_windows_cannot_overlap_completely(overlap):
    with pytest.raises(ContextWindowsError, match="cannot overlap by"):
        ContextWindows(8, 4, overlap)


# --- over the whole UNet ---


class Mean(torch.nn.Module):
    """A model that returns the mean of each clip, combined with its other arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.layout_of = None

    def forward(self, x, times, context=None, more=()):
        layout = self.layout_of(len(x))
        self.calls.append(len(x))
        clips = layout.to_clips(x)
        mean = layout.to_rows(clips.mean(dim=1, keepdim=True).expand_as(clips))
        return mean + times.view(-1, 1, 1, 1) + context["text"][0].view(-1, 1, 1, 1) * more[0]


def given_to(rows, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x, times, text = (torch.randn(rows, *rest, generator=draw) for rest in ((4, 2, 2), (), (1,)))
    return (x, times), {"context": {"text": [text], "scale": 2.0}, "more": [torch.tensor(3.0)]}


def in_windows(model, windows, layout_of, step=0, at_once=1, rows=None):
    budget = WindowBudget(torch.device("cpu"))
    budget.windows = lambda _size: at_once
    whole = WindowedUNet(windows, lambda: step, layout_of, budget)
    model.layout_of = whole.layout_of
    positional, named = given_to(rows)
    with whole.applied_to(model):
        found = model(*positional, **named)
    assert "forward" not in vars(model)
    return found


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("closed_loop", CLOSED_LOOPS)
def test_every_window_passes_separately_and_results_are_blended(closed_loop, parts):
    frames, rows = 11, 11 * (parts + 1)
    windows = ContextWindows(frames, 4, 2, closed_loop=closed_loop)
    layout = layout_of_call(rows, frames, parts)
    found = in_windows(Mean(), windows, lambda rows: layout_of_call(rows, frames, parts), step=3, rows=rows)
    (x, times), named = given_to(rows)
    clips, step_windows = layout.to_clips(x), windows.at(3)
    expected = torch.zeros_like(clips)
    for window, weights in zip(step_windows.frames, step_windows.weights):
        for frame, weight in zip(window.tolist(), weights.tolist()):
            expected[:, frame] += weight * clips[:, window].mean(dim=1)
    text = named["context"]["text"][0].view(-1, 1, 1, 1)
    torch.testing.assert_close(found, layout.to_rows(expected) + times.view(-1, 1, 1, 1) + 3 * text)


@pytest.mark.parametrize("at_once", [2, 3, 99])
def test_several_windows_per_call_give_the_same_result(at_once):
    windows, layout_of = ContextWindows(40, 16, 4, stride=2, closed_loop="many"), lambda rows: layout_of_call(rows, 40)
    one, several = Mean(), Mean()
    serial = in_windows(one, windows, layout_of, rows=80)
    torch.testing.assert_close(in_windows(several, windows, layout_of, at_once=at_once, rows=80), serial, rtol=1e-5, atol=1e-5)
    assert sum(several.calls) == sum(one.calls) and len(several.calls) == -(-len(one.calls) // at_once)


def test_after_an_error_the_model_is_unchanged():
    model = Mean()
    whole = WindowedUNet(ContextWindows(8, 4, 2), lambda: 0, lambda rows: layout_of_call(rows, 8))
    model.layout_of = lambda rows: 1 / 0
    before = whole.layout_of(8)
    with pytest.raises(ZeroDivisionError), whole.applied_to(model):
        model(*given_to(8)[0], **given_to(8)[1])
    assert "forward" not in vars(model) and whole.layout_of(8) == before
