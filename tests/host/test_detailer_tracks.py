"""Boxes of single frames become tracks: on drawn clips, whose truth is known."""

import numpy as np
import pytest

from animatediff.detailer.boxes import Box, each_once
from animatediff.detailer.movement import Move, movement
from animatediff.detailer.tracks import EASE, FADE, MOST_MISSED, Tracker, eased, presence, smoothed
from support.drawn_faces import across, clip, detections, on_an_arc, truth

FRAMES = 32
PATHS = {"one": [on_an_arc], "two": [on_an_arc, across]}


@pytest.fixture(scope="module")
def clips():
    return {name: clip(paths, FRAMES) for name, paths in PATHS.items()}


def tracks_of(frames, boxes, **settings):
    tracker = Tracker(**settings)
    for frame, found in zip(frames, boxes):
        tracker.add(frame, found)
    return tracker.tracks()


def measures(box):
    return np.array([*box.centre, box.width, box.height])


def errors(track, path, frames=FRAMES):
    """Returns by how many pixels a track is off in each frame: centre to the right and down, width, height."""
    boxes = truth(path, frames)[track.first : track.end]
    return np.abs([measures(box) - measures(true) for box, true in zip(track.boxes, boxes)])


def track_on(tracks, path, frames=FRAMES):
    return min(tracks, key=lambda track: errors(track, path, frames).mean())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PATHS)
def test_tracks_are_the_truth_within_two_pixels(clips, name, seed):
    """Boxes are off by up to 6 pixels, and a fifth of them is missing."""
    found = tracks_of(clips[name], detections(PATHS[name], FRAMES, seed=seed))
    assert len(found) == len(PATHS[name])
    for path in PATHS[name]:
        assert errors(track_on(found, path), path).max() <= 2


def test_a_crop_does_not_jump_with_the_boxes(clips):
    (track,) = tracks_of(clips["one"], detections([on_an_arc], FRAMES))
    centres = np.array([box.centre for box in track.boxes])
    true = np.array([box.centre for box in truth(on_an_arc, FRAMES)[track.first : track.end]])
    assert np.abs(np.diff(centres, 2, axis=0) - np.diff(true, 2, axis=0)).max() < 0.5


def test_gaps_of_a_few_frames_are_closed_and_longer_ones_are_not(clips):
    boxes = [[box] for box in truth(on_an_arc, FRAMES)]
    short = [[] if 10 <= number < 10 + MOST_MISSED else found for number, found in enumerate(boxes)]
    long = [[] if 10 <= number < 11 + MOST_MISSED else found for number, found in enumerate(boxes)]
    (whole,) = tracks_of(clips["one"], short)
    assert (whole.first, whole.end, whole.seen) == (0, FRAMES, FRAMES - MOST_MISSED)
    assert errors(whole, on_an_arc).max() < 2
    assert sorted((track.first, track.end) for track in tracks_of(clips["one"], long)) == [(0, 10), (11 + MOST_MISSED, FRAMES)]


def test_the_largest_is_first(clips):
    first, second = tracks_of(clips["two"], detections(PATHS["two"], FRAMES))
    assert first.size > second.size and errors(first, on_an_arc).mean() < errors(first, across).mean()


def test_a_box_on_a_single_frame_is_no_subject(clips):
    boxes = [[box] for box in truth(on_an_arc, FRAMES)]
    boxes[5] = [*boxes[5], Box(300, 250, 60, 60)]
    assert len(tracks_of(clips["one"], boxes)) == 1


def test_in_a_clip_of_one_frame_it_is(clips):
    (track,) = tracks_of(clips["one"][:1], [[on_an_arc(0)]])
    assert (track.first, track.end, track.presence) == (0, 1, [1.0])
    assert track.boxes[0] == pytest.approx(on_an_arc(0))


def test_a_box_around_something_else_moves_nothing(clips):
    boxes = [[box] for box in truth(on_an_arc, FRAMES)]
    x, y, width, height = boxes[16][0]
    boxes[16] = [Box(x - 30, y - 20, width + 40, height + 40)]
    (track,) = tracks_of(clips["one"], boxes)
    assert errors(track, on_an_arc).max() < 1


def test_a_box_drawn_on_the_first_frame_is_followed_to_the_end(clips):
    boxes = [[on_an_arc(0)], *[[]] * (FRAMES - 1)]
    (track,) = tracks_of(clips["one"], boxes, follows=True)
    assert (track.first, track.end, track.seen) == (0, FRAMES, 1)
    assert errors(track, on_an_arc).max() < 3


def test_one_that_leaves_the_picture_ends_there():
    def out(part):
        return Box(380 + 300 * part, 150, 80, 100)

    frames = clip([out], 24)
    (track,) = tracks_of(frames, [[out(0)], *[[]] * 23], follows=True)
    inside = sum(box.centre[0] < 512 for box in truth(out, 24))
    assert abs(track.end - inside) <= 2 and track.presence[-1] < 0.5


def test_faces_that_pass_each_other_keep_their_tracks():
    """Their boxes overlap in the middle, and the looks tell them apart."""

    def right(part):
        return Box(60 + 280 * part, 120, 90, 110)

    def left(part):
        return Box(360 - 280 * part, 190, 90, 110)

    frames = clip([right, left], 40)
    found = tracks_of(frames, detections([right, left], 40, jitter=3, missing=0))
    assert len(found) == 2
    for path in (right, left):
        assert errors(track_on(found, path, 40), path, 40).mean() < 3


def test_who_enters_fades_in_and_who_leaves_fades_out(clips):
    steps = [number / (FADE + 1) for number in range(1, FADE + 1)]
    assert presence(12, enters=True, leaves=False) == pytest.approx([*steps, *[1.0] * (12 - FADE)])
    assert presence(12, enters=False, leaves=True) == pytest.approx([*[1.0] * (12 - FADE), *steps[::-1]])
    assert presence(3, enters=True, leaves=True) == pytest.approx([0.2, 0.4, 0.2])
    boxes = [[box] if 8 <= number < 24 else [] for number, box in enumerate(truth(on_an_arc, FRAMES))]
    (track,) = tracks_of(clips["one"], boxes)
    assert (track.first, track.end) == (8, 24) and track.presence[0] == track.presence[-1] == pytest.approx(0.2)


def test_a_path_loses_its_shake_and_nothing_else():
    """Against the same least squares with whole matrices."""
    straight = 3.5 * np.arange(20) + 7
    assert np.allclose(eased(straight), straight)
    changes = np.diff(np.eye(20), 2, axis=0)
    shaking = straight + np.where(np.arange(20) % 2, 4.0, -4.0)
    assert np.allclose(eased(shaking), np.linalg.solve(np.eye(20) + EASE * changes.T @ changes, shaking))
    assert np.abs(eased(shaking) - straight)[2:-2].max() < 0.4


def test_a_flow_that_shakes_does_not_shake_the_track():
    moves = [Move(4.0 if number % 2 else -4.0, 0, 0) for number in range(19)]
    boxes = smoothed([Box(100, 100, 50, 50), *[None] * 19], moves)
    assert np.abs(np.diff([box.x for box in boxes]))[2:-2].max() < 1


def test_movement_and_growth_are_measured(clips):
    before, after = on_an_arc(0), on_an_arc(1 / (FRAMES - 1))
    move = movement(clips["one"][0], clips["one"][1], before)
    found = move.of(before)
    assert measures(found) == pytest.approx(measures(after), abs=0.3)


def test_of_boxes_around_one_subject_the_surest_is_taken():
    sure, unsure, other = Box(10, 10, 50, 50), Box(14, 12, 50, 50), Box(200, 10, 50, 50)
    assert each_once([(unsure, 2), (other, 1), (sure, 9)]) == [sure, other]
