"""Trajectories: from files and from words, and their rays, against numbers worked out by hand."""

import math

import pytest
import torch

from motion_module.camera_poses import (
    ANGLE,
    LENGTH,
    MOVES,
    PIVOT,
    USUAL_FOCUS,
    CameraPosesError,
    Trajectory,
    read_poses,
    trajectory_of,
)
from support.camera_weights import authors_rays, pose_file

FRAMES = 17
"""So that a move at speed 1 goes its whole way."""


def line(*matrix, focus=(0.5, 0.5, 0.5, 0.5), size=(0, 0)):
    return " ".join(map(str, (0, *focus, *size, *matrix)))


def camera(turn=torch.eye(3), at=(0.0, 0.0, 0.0), focus=(0.5, 0.5, 0.5, 0.5), size=(1.0, 1.0)):
    """A trajectory of the origin and one other frame."""
    matrices = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    matrices[1, :3, :3], matrices[1, :3, 3] = turn, torch.tensor(at)
    return Trajectory(matrices, torch.tensor([focus, focus], dtype=torch.float64), size)


def rays_at(trajectory, row, column, side=3, frame=1):
    return trajectory.rays(side, side, torch.tensor([frame]))[0, :, row, column].tolist()


def near(numbers):
    return pytest.approx(numbers, abs=1e-6)


# --- rays ---


def test_the_ray_of_the_centre_goes_straight_ahead():
    assert rays_at(camera(), 1, 1) == near([0, 0, 0, 0, 0, 1])


def test_the_ray_of_a_corner_goes_through_the_middle_of_its_pixel():
    """At a focal length of half the width, the middle of the first of three pixels is at -2/3 along x and y."""
    long = math.sqrt(1 + 2 * (2 / 3) ** 2)
    assert rays_at(camera(), 0, 0) == near([0, 0, 0, -2 / 3 / long, -2 / 3 / long, 1 / long])


def test_a_camera_that_has_moved_ahead_has_no_moment_at_the_centre_and_one_beside_it():
    """The moment is the position (0, 0, 2) times the direction (a, 0, b), which is (0, 2a, 0)."""
    moved = camera(at=(0.0, 0.0, 2.0))
    across = 2 / 3 / math.sqrt(1 + (2 / 3) ** 2)
    assert rays_at(moved, 1, 1) == near([0, 0, 0, 0, 0, 1])
    assert rays_at(moved, 1, 2) == near([0, 2 * across, 0, across, 0, 3 / 2 * across])


def test_a_camera_that_has_turned_to_the_right_looks_along_x():
    turned = camera(turn=torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]), at=(0.0, 1.0, 0.0))
    assert rays_at(turned, 1, 1) == near([0, 0, -1, 1, 0, 0])


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 16), (9, 16)])
@pytest.mark.parametrize("size", [(0.0, 0.0), (640.0, 480.0)])
def test_rays_of_a_file_are_those_of_the_authors(height, width, size):
    text = pose_file(6, size=size)
    ours = read_poses(text).rays(height, width, torch.arange(6)).transpose(0, 1)[None]
    theirs = authors_rays(text, height, width, *(size if any(size) else (1280, 720)))
    assert (ours - theirs).abs().max() < 1e-5
    assert (theirs[:, :, 1:] - theirs[:, :, :1]).abs().max() > 0.5


def test_rays_of_some_frames_are_theirs():
    trajectory = read_poses(pose_file(6))
    every = trajectory.rays(4, 4, torch.arange(6))
    assert torch.equal(trajectory.rays(4, 4, torch.tensor([4, 1])), every[[4, 1]])


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (360, 640, (320, 324)),  # the file's own proportions
        (512, 512, (0.5 * 512 * 16 / 9, 0.9 * 512)),  # the sides are cut off
        (256, 1024, (0.5 * 1024, 0.9 * 1024 * 9 / 16)),  # top and bottom are
    ],
)
def test_pixels_stay_square_at_any_size(height, width, expected):
    trajectory = read_poses(line(*IDENTITY, focus=(0.5, 0.9, 0.5, 0.5)))
    focal_x, focal_y, centre_x, centre_y = trajectory.in_pixels(height, width)[0].tolist()
    assert (focal_x, focal_y) == pytest.approx(expected) and (centre_x, centre_y) == (width / 2, height / 2)


def test_twice_the_size_has_twice_the_focal_length_and_the_same_rays():
    trajectory = read_poses(pose_file(2))
    assert torch.allclose(trajectory.in_pixels(512, 768), 2 * trajectory.in_pixels(256, 384))
    small, large = (trajectory.rays(side, side, torch.arange(2)) for side in (3, 9))
    assert torch.allclose(large[:, :, 1::3, 1::3], small, atol=1e-6)


# --- files ---

IDENTITY = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)


def test_poses_are_relative_to_the_first():
    """The file has world to camera; a camera at (0, 0, 5) that is at (0, 0, 7) later has moved two units ahead."""
    text = "address\n" + line(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, -5) + "\n\n" + line(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, -7)
    first, second = read_poses(text).matrices
    assert torch.equal(first, torch.eye(4, dtype=torch.float64))
    assert second[:3, 3].tolist() == [0, 0, 2]


def test_the_first_line_may_be_missing():
    assert read_poses(line(*IDENTITY)).frames == 1
    assert read_poses("\ufeff" + line(*IDENTITY)).frames == 1, "what some editors begin a file with"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The file has no poses"),
        ("https://address", "The file has no poses"),
        ("address\n1 2 3", "Line 2 has 3 numbers, not 19"),
        ("address\n" + line(*IDENTITY[:-1], "x"), "Line 2 has a word that is no number"),
        ("address\n" + line(*IDENTITY[:-1], "nan"), "Line 2 has a number that is infinite, or not a number"),
        (line(*IDENTITY, focus=(480, 840, 0.5, 0.5)), "focal lengths in line 1 are 480 and 840, but must be from 0.05 to 20"),
        (line(*IDENTITY, focus=(0.5, 0, 0.5, 0.5)), "focal lengths in line 1 are 0.5 and 0"),
        (line(*IDENTITY, focus=(0.5, 0.5, 320, 0.5)), "centre of the picture in line 1 is 320, 0.5"),
        (line(2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0), "matrix in line 1 is no rotation"),
        (line(-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0), "matrix in line 1 is no rotation"),
        (line(0, 1e308, 1e308, 0, 0, 1e308, -1e308, 0, 0, 0, 1, 0), "matrix in line 1 is no rotation"),
        (line(*IDENTITY, size=(1e-300, 1e300)), "size of the picture in line 1 is 1e-300, 1e.300, but must be from 1 to"),
        (line(*IDENTITY, size=(640, 0)), "size of the picture in line 1 is 640, 0"),
        (line(*IDENTITY, size=(-640, 480)), "size of the picture in line 1 is -640, 480"),
        (line(*IDENTITY, size=(8, 6)) + "\n" + line(*IDENTITY), "size of the picture in line 2 is 0, 0, but another"),
        (line(1, 0, 0, 2000, 0, 1, 0, 0, 0, 0, 1, 0), "shift in line 1 is 2000, but must be within 1000"),
    ],
)
def test_files_with_impossible_cameras_are_refused(text, said):
    with pytest.raises(CameraPosesError, match=said):
        read_poses(text)


# --- words ---


def last(words, frames=FRAMES):
    """The last camera: where it is, and where it looks."""
    matrix = trajectory_of(words, frames).matrices[-1]
    return matrix[:3, 3].tolist(), matrix[:3, 2].tolist()


SINE, COSINE = math.sin(ANGLE), math.cos(ANGLE)


@pytest.mark.parametrize(
    ("words", "place", "ahead"),
    [
        ("still", (0, 0, 0), (0, 0, 1)),
        ("", (0, 0, 0), (0, 0, 1)),
        ("pan right", (0, 0, 0), (SINE, 0, COSINE)),
        ("pan left", (0, 0, 0), (-SINE, 0, COSINE)),
        ("tilt up", (0, 0, 0), (0, -SINE, COSINE)),
        ("tilt down", (0, 0, 0), (0, SINE, COSINE)),
        ("dolly in", (0, 0, LENGTH), (0, 0, 1)),
        ("dolly out 2", (0, 0, -2 * LENGTH), (0, 0, 1)),
        ("truck right", (LENGTH, 0, 0), (0, 0, 1)),
        ("pedestal up", (0, -LENGTH, 0), (0, 0, 1)),
        ("roll clockwise", (0, 0, 0), (0, 0, 1)),
        ("zoom in", (0, 0, 0), (0, 0, 1)),
        ("orbit right", (PIVOT * SINE, 0, PIVOT - PIVOT * COSINE), (-SINE, 0, COSINE)),
        ("orbit left", (-PIVOT * SINE, 0, PIVOT - PIVOT * COSINE), (SINE, 0, COSINE)),
        ("Dolly In 0.5, Truck Left .5", (-LENGTH / 2, 0, LENGTH / 2), (0, 0, 1)),
        ("0: dolly in\n8: dolly out", (0, 0, 0), (0, 0, 1)),
        ("8: dolly out\n0: dolly in", (0, 0, 0), (0, 0, 1)),
        ("0-4: dolly in", (0, 0, LENGTH / 4), (0, 0, 1)),
        ("50%: dolly in", (0, 0, LENGTH / 2), (0, 0, 1)),
        ("dolly in\ntruck right", (LENGTH, 0, LENGTH), (0, 0, 1)),
        ("dolly in ease", (0, 0, LENGTH), (0, 0, 1)),
    ],
)
def test_words_move_the_camera(words, place, ahead):
    assert last(words) == (near(place), near(ahead))


def test_a_roll_turns_the_right_hand_side_down():
    right = trajectory_of("roll clockwise", FRAMES).matrices[-1][:3, 0]
    assert right.tolist() == near([COSINE, SINE, 0])


def test_a_pan_is_about_the_vertical_also_after_a_tilt():
    """On a tripod: the horizon stays level."""
    right = trajectory_of("0: tilt up\n8: pan right 2", FRAMES).matrices[-1][:3, 0]
    assert float(right[1]) == pytest.approx(0)


def test_a_zoom_changes_the_focal_length_alone():
    focus = trajectory_of("zoom in", FRAMES).focus
    assert focus[0].tolist() == near(USUAL_FOCUS)
    assert focus[-1].tolist() == near([1.5 * USUAL_FOCUS[0], 1.5 * USUAL_FOCUS[1], 0.5, 0.5])
    assert torch.equal(trajectory_of("zoom in", FRAMES).matrices, trajectory_of("still", FRAMES).matrices)


def test_a_longer_clip_goes_further_at_the_same_speed():
    assert last("dolly in", 33)[0] == near([0, 0, 2 * LENGTH])


@pytest.mark.parametrize(
    ("ease", "middle"), [("", 0.5), (" ease", 0.5), (" ease in", 0.25), (" ease out", 0.75), (" ease-in", 0.25)]
)
def test_moves_begin_and_end_softly(ease, middle):
    way = trajectory_of(f"dolly in{ease}", FRAMES).matrices[:, 2, 3] / LENGTH
    assert float(way[8]) == pytest.approx(middle) and float(way[-1]) == pytest.approx(1)
    begins, ends = float(way[1]) < 0.5 / 16, float(way[-1] - way[-2]) < 0.5 / 16
    assert (begins, ends) == (ease in (" ease", " ease in", " ease-in"), ease in (" ease", " ease out"))


def test_every_move_has_an_opposite_that_takes_it_back():
    for kind, ways in MOVES.items():
        there, back = (next(way for way, sign in ways.items() if sign == wanted) for wanted in (1, -1))
        trajectory = trajectory_of(f"0: {kind} {there}\n8: {kind} {back}", FRAMES)
        assert torch.allclose(trajectory.matrices[-1], torch.eye(4, dtype=torch.float64), atol=1e-9), kind
        assert torch.allclose(trajectory.focus[-1], trajectory.focus[0]), kind


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pan up", "“pan up” is no move of the camera. Write one of pan left/right, tilt up/down"),
        ("fly", "“fly” is no move of the camera"),
        ("pan left fast", "“pan left fast” is no move"),
        ("pan left -1", "“pan left -1” is no move"),
        ("pan left eaſe", "“pan left eaſe” is no move"),
        ("pan left ease ın", "“pan left ease ın” is no move"),
        ("0: pan left, tilt up, PAN right 2", "two moves of the kind pan at the same time"),
        ("pan left\npan left", "two moves of the kind pan at the same time"),
        ("dolly in 21", "speed in “dolly in 21” is above 20"),
        ("20: pan left", "outside the video, whose frames are numbered 0 to 16"),
        ("8-4: pan left", "ends before it begins"),
        ("0-8: pan left\n4: tilt up", "Two lines move the camera at frame 4"),
        ("4: pan left\n4: tilt up", "Two lines move the camera at frame 4"),
        ("0: pan left\ntilt up", "“tilt up” has no frame, but other lines have one"),
        ("zoom in 20", "zooms too far"),
    ],
)
def test_other_words_are_refused(words, said):
    with pytest.raises(CameraPosesError, match=said):
        trajectory_of(words, FRAMES)


def test_a_range_goes_on_to_an_adjoining_line_and_otherwise_holds():
    steps = trajectory_of("0-7: dolly in\n8-12: dolly in\n14-15: dolly in", FRAMES).matrices[:, 2, 3].diff() * 16 / LENGTH
    assert steps.tolist() == near([1] * 12 + [0, 0, 1, 0])


def test_a_camera_that_goes_too_far_is_refused():
    with pytest.raises(CameraPosesError, match="farther than 1000 units"):
        trajectory_of("dolly in 20", 2_000)
