"""The layout of the rows of a UNet call."""

import pytest
import torch

from motion_module.row_layout import RowLayoutError, layout_of_call


def rows_of(frames, parts, with_negative):
    """Returns the rows of a UNet call with guidance in the WebUI's order: each is a (condition, frame)."""
    rows = [(part, frame) for frame in range(frames) for part in range(parts)]
    return rows + [("negative", frame) for frame in range(frames)] * with_negative


@pytest.mark.parametrize("frames", [1, 3, 16])
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("with_negative", [True, False])
def test_every_clip_is_one_condition_with_its_frames_in_order(frames, parts, with_negative):
    rows = rows_of(frames, parts, with_negative)
    layout = layout_of_call(len(rows), frames, parts)
    clips = layout.to_clips(torch.arange(len(rows)))
    for clip in clips:
        found = [rows[index] for index in clip]
        assert [frame for _, frame in found] == list(range(frames))
        assert len({condition for condition, _ in found}) == 1
    assert torch.equal(layout.to_rows(clips), torch.arange(len(rows)))


def test_a_call_with_the_negative_prompt_alone():
    layout = layout_of_call(4, frames=4, parts=3)
    assert layout.to_clips(torch.arange(4)).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("rows", "frames", "parts"), [(16, 12, 1), (8, 16, 1), (0, 4, 1), (12, 4, 2 + 2), (8, 4, 3), (20, 4, 3)]
)
def test_rows_that_are_not_whole_clips_are_refused(rows, frames, parts):
    with pytest.raises(RowLayoutError, match=str(rows)):
        layout_of_call(rows, frames, parts)


def test_a_wrong_number_of_rows_is_refused():
    with pytest.raises(RowLayoutError):
        layout_of_call(8, 4).to_clips(torch.zeros(4, 1))
