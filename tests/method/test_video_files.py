"""Video files that ffmpeg made here, and the frames that are read of them.

Every frame has its number in it, and another colour in each of its corners: which frames are read, in which order and which way
up is known and not compared with another reader.
"""

from __future__ import annotations

import re
import subprocess
import time
from io import BytesIO

import numpy as np
import psutil
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from motion_module import pictures, video_file
from motion_module.errors import MissingDependency, UnreadableVideo
from motion_module.pictures import MovingPicture
from motion_module.video_file import VideoFile
from motion_module.video_reader import Video, is_readable, pictures_below
from support.stuck_ffmpeg import replace_ffmpeg

WIDTH, HEIGHT, SIDE, FPS = 64, 48, 8, 25
CORNERS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
HIDDEN, BACKGROUND = (0, 255, 0), "#8040c0"
LOSSLESS = ("-c:v", "libx264rgb", "-crf", "0")
VP8 = ("-c:v", "libvpx", "-pix_fmt", "yuv420p", "-b:v", "2M", "-deadline", "realtime")
PALETTE = ("-lavfi", "split[a][b];[a]palettegen[p];[b][p]paletteuse")
SOUND = ("-f", "lavfi", "-i", "sine=440:d=1.7")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "10", "-g", "8")


def painted(number, alpha=False):
    """Returns a picture `(48, 64, 4)`: corners, between them the digits of a number, and below them a band."""
    picture = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    for colour, (top, left) in zip(CORNERS.values(), ((0, 0), (0, -SIDE), (32, 0), (32, -SIDE))):
        picture[top : top + SIDE, left : left + SIDE if left == 0 else None, :3] = colour
    for digit in range(WIDTH // SIDE):
        picture[SIDE : 4 * SIDE, digit * SIDE : (digit + 1) * SIDE, :3] = 220 if number >> digit & 1 else 30
    picture[5 * SIDE :, :] = (*HIDDEN, 0) if alpha else (128, 128, 128, 255)
    return picture


def number_of(frame):
    """Returns the number of a frame of 64×48, which must be the right way up."""
    assert frame.shape == (HEIGHT, WIDTH, 3)
    for (name, colour), (row, column) in zip(CORNERS.items(), ((4, 4), (4, -4), (36, 4), (36, -4))):
        assert np.abs(frame[row, column].astype(int) - colour).max() < 60, f"{name} is not in its corner"
    return sum(1 << digit for digit in range(WIDTH // SIDE) if frame[20, digit * SIDE + 4, 1] > 125)


def numbers(video):
    return [number_of(frame) for frame in video]


def ffmpeg(*arguments, stdin=None):
    command = [get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout


def write(file, count, *options, alpha=False, turned=0, before=(), fps=FPS):
    """Writes the pictures 0, 1, … as a video; each is turned anticlockwise by `turned` quarters."""
    pictures = [np.rot90(painted(number, alpha), turned) for number in range(count)]
    size = f"{pictures[0].shape[1]}x{pictures[0].shape[0]}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", size, "-r", fps, "-i", "-", *before]
    output = ffmpeg(*source, *options, file, stdin=b"".join(picture.tobytes() for picture in pictures))
    if file == "-":
        return output
    return file


def pictures_of(count, alpha=False):
    return [Image.fromarray(painted(number, alpha)) for number in range(count)]


# --- number, order, orientation ---

FILES = {
    "mp4": ("a.mp4", H264),
    "b frames": ("a.mp4", (*H264, "-bf", "3")),
    "mov": ("a.mov", H264),
    "mkv": ("a.mkv", H264),
    "webm": ("a.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-crf", "10", "-b:v", "0", "-deadline", "realtime")),
    "avi": ("a.avi", ("-c:v", "mpeg4", "-q:v", "2")),
    "avi of stills": ("a.avi", ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")),
    "fragments": ("a.mp4", (*H264, "-movflags", "frag_keyframe+empty_moov")),
    "ten bits": ("a.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv420p10le", "-crf", "10")),
    "colours not halved": ("a.mkv", LOSSLESS),
    "23.976 a second": ("a.webm", VP8),
    "a name like an option": ("-i %d [b], c'd: #1?.mp4", H264),
    "a name of another kind": ("a.avi", ("-f", "mp4", *H264)),
}


@pytest.mark.parametrize("case", FILES)
def test_every_frame_is_read_once_and_in_order(tmp_path, case):
    name, options = FILES[case]
    fps = "24000/1001" if "23" in case else FPS
    video = Video(write(tmp_path / name, 30, *options, fps=fps))
    assert numbers(video) == list(range(30))
    assert video.fps() == pytest.approx(24000 / 1001 if "23" in case else 25)
    assert video.time_of(20) == pytest.approx(20 / video.fps(), abs=0.003 if name.endswith("webm") else 1e-9)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_upright(tmp_path, degrees):
    stored = write(tmp_path / "stored.mp4", 3, *H264, turned=degrees // 90)
    ffmpeg("-display_rotation", -degrees, "-i", stored, "-c", "copy", tmp_path / "a.mp4")
    assert numbers(Video(tmp_path / "a.mp4")) == [0, 1, 2]


def test_a_live_recording_without_a_duration_is_read(tmp_path):
    options = (*VP8, "-live", "1", "-f", "webm")
    (tmp_path / "a.webm").write_bytes(write("-", 12, *options))
    assert numbers(Video(tmp_path / "a.webm")) == list(range(12))


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_video_of_one_frame_is_read(tmp_path, name):
    assert numbers(Video(write(tmp_path / name, 1, "-pix_fmt", "yuv420p"))) == [0]


def test_what_an_edit_list_hides_is_not_read(tmp_path):
    write(tmp_path / "whole.mp4", 40, *H264)
    ffmpeg("-ss", 0.5, "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "a.mp4")
    assert numbers(Video(tmp_path / "a.mp4")) == list(range(13, 40))


def test_a_cover_picture_is_no_video(tmp_path):
    write(tmp_path / "plain.mp4", 5, *H264)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "cover.png")
    cover = ["-i", tmp_path / "cover.png", "-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", tmp_path / "plain.mp4", *cover, tmp_path / "a.mp4")
    assert numbers(Video(tmp_path / "a.mp4")) == [0, 1, 2, 3, 4]
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", *cover, tmp_path / "song.mp4")
    with pytest.raises(UnreadableVideo, match="cannot be read, or has no frames"):
        numbers(Video(tmp_path / "song.mp4"))


def test_odd_sizes_stay_and_pixels_that_are_not_square_become_so(tmp_path):
    odd = write(tmp_path / "odd.webm", 2, "-vf", "scale=63:47", *VP8)
    assert [frame.shape for frame in Video(odd)] == [(47, 63, 3)] * 2
    narrow = write(tmp_path / "narrow.mp4", 2, "-vf", "scale=32:48,setsar=2", *H264)
    assert [frame.shape for frame in Video(narrow)] == [(48, 64, 3)] * 2


# --- times ---


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_varying_rate_becomes_constant(tmp_path, name):
    """One second at 25 frames, then one at 5."""
    video = Video(write(tmp_path / name, 50, "-vf", "select='lt(t,1)+not(mod(n,5))'", "-fps_mode", "vfr", *H264))
    read = numbers(video)
    assert video.fps() == 25
    assert read[:46] == [*range(25), *(number for number in (25, 30, 35, 40) for _ in range(5)), 45]
    assert set(read[46:]) <= {45} and len(read) <= 50


def test_a_video_that_begins_later_than_its_sound_keeps_its_frames(tmp_path):
    write(tmp_path / "plain.mp4", 10, *H264)
    sound = ["-f", "lavfi", "-i", "sine=d=2", "-map", "0", "-map", "1", "-c:v", "copy"]
    ffmpeg("-itsoffset", 0.5, "-i", tmp_path / "plain.mp4", *sound, tmp_path / "a.mp4")
    video = Video(tmp_path / "a.mp4")
    assert numbers(video) == list(range(10))
    assert video.time_of(5) == pytest.approx(0.7)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize(
    ("lasts", "fps", "read"),
    [
        ([42, 43, 42, 43], 1000 / 42.5, [0, 1, 2, 3]),
        ([100, 100, 300, 100], 10, [0, 1, 2, 2, 2, 3]),
        ([200, 100, 100, 500], 10, [0, 0, 1, 2, 3, 3, 3, 3, 3]),
    ],
    ids=["rounded", "a pause", "a pause at both ends"],
)
def test_moving_pictures_are_read_at_a_constant_rate(tmp_path, kind, lasts, fps, read):
    if kind == "GIF" and lasts[0] == 42:
        lasts = [40, 50, 40, 40]  # a GIF has hundredths of a second
    first, *others = pictures_of(4)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / "a", kind, save_all=True, append_images=others, duration=lasts, **lossless)
    video = Video(tmp_path / "a")
    assert numbers(video) == read
    assert video.fps() == pytest.approx(fps)


def test_the_still_picture_within_an_apng_is_not_one_of_its_frames(tmp_path):
    still, *others = pictures_of(4)
    still.save(tmp_path / "a.png", save_all=True, append_images=others, default_image=True, duration=100)
    assert numbers(Video(tmp_path / "a.png")) == [1, 2, 3]


# --- transparency ---


def bands(video):
    """Returns the colours of the lowest rows."""
    return [tuple(frame[44, column]) for frame in video for column in (8, 56)]


TRANSPARENT = {
    "vp9": ("a.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-crf", "4", "-b:v", "0", "-deadline", "realtime")),
    "vp8": ("a.webm", ("-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-b:v", "2M", "-deadline", "realtime")),
    "prores": ("a.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le", "-profile:v", "4444")),
    "png in mov": ("a.mov", ("-c:v", "png")),
    "palette in mov": ("a.mov", (*PALETTE, "-c:v", "png")),
    "animation": ("a.mov", ("-c:v", "qtrle", "-pix_fmt", "argb")),
    "gif": ("a.gif", PALETTE),
    "apng": ("a.png", ("-f", "apng")),
    "webp": ("a.webp", ("-c:v", "libwebp_anim", "-lossless", "1")),
}


@pytest.mark.parametrize("case", TRANSPARENT)
def test_what_is_transparent_shows_the_background_and_never_the_hidden_colours(tmp_path, case):
    name, options = TRANSPARENT[case]
    file = write(tmp_path / name, 3, *options, alpha=True)
    video = Video(file, background=BACKGROUND)
    assert numbers(video) == [0, 1, 2]
    assert np.abs(np.array(bands(video), int) - (0x80, 0x40, 0xC0)).max() <= 3
    assert np.abs(np.array(bands(Video(file)), int) - 255).max() <= 3, "white, unless something else is said"


def test_half_transparent_pixels_are_blended_as_the_webui_does_it(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    below = Image.new("RGBA", (WIDTH, HEIGHT), BACKGROUND)
    below.paste(Image.fromarray(colours), mask=Image.fromarray(colours))
    expected = np.asarray(below.convert("RGB"))
    (tmp_path / "frames").mkdir()
    Image.fromarray(colours).save(tmp_path / "frames" / "0.png")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", f"{WIDTH}x{HEIGHT}", "-i", "-"]
    ffmpeg(*raw, "-c:v", "png", tmp_path / "a.mov", stdin=colours.tobytes())
    for path in (tmp_path / "frames", tmp_path / "frames" / "0.png", tmp_path / "a.mov"):
        (frame,) = Video(path, background=BACKGROUND)
        assert np.array_equal(frame, expected)


def test_a_gif_clears_what_its_frames_say(tmp_path):
    """A square that moves: with disposal 2 it is alone in each frame, with 1 it leaves a trace."""
    squares = []
    for index in range(3):
        squares.append(Image.new("RGBA", (30, 10)))
        squares[-1].paste((200, 0, 0, 255), (10 * index, 0, 10 * index + 10, 10))
    for disposal, shown in ((2, [1, 1, 1]), (1, [1, 2, 3])):
        file = tmp_path / f"{disposal}.gif"
        squares[0].save(file, save_all=True, append_images=squares[1:], duration=100, disposal=disposal, loop=0)
        found = list(Video(file, background="#0000ff"))
        assert [int((frame[5, 5::10, 0] == 200).sum()) for frame in found] == shown
        assert [int((frame[5, 5::10, 2] == 255).sum()) for frame in found] == [3 - count for count in shown]


@pytest.mark.parametrize(
    ("name", "options", "transparent"),
    [
        ("a.mp4", H264, False),
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray"), False),
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "gbrp"), False),
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "bgra"), True),
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "ya8"), True),
        TRANSPARENT["vp9"] + (True,),
    ],
)
def test_only_of_formats_with_transparency_is_it_asked(tmp_path, monkeypatch, name, options, transparent):
    file, channels = write(tmp_path / name, 2, *options), []
    monkeypatch.setattr(
        video_file, "_on_background", lambda pixels, background: channels.append(pixels.shape[-1]) or pixels[..., :3]
    )
    list(Video(file))
    assert channels == [4 if transparent else 3] * 2


# --- folders ---


def test_pictures_in_folders_of_a_folder_are_in_natural_order_of_their_paths(tmp_path):
    names = ["2.png", "10.png", "b2/1.png", "b10/3.png", "b10/sub.png/4.png"]
    for name in [*names, ".hidden/5.png", "__MACOSX/6.png", "b2/._1.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b2" / "back").symlink_to(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in pictures_below(tmp_path)] == names


def test_a_folder_has_its_pictures_upright_in_natural_order_and_nothing_else(tmp_path):
    for number in (0, 2, 10):
        picture = np.ascontiguousarray(painted(number)[..., :3])
        Image.fromarray(picture).save(tmp_path / f"frame{number}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(painted(11)[..., :3])))
    turned.save(tmp_path / "frame11.JPG", "JPEG", exif=exif, quality=95)
    Image.fromarray(painted(12)).convert("P").save(tmp_path / "frame12.png")
    (tmp_path / "sub.png").mkdir()
    for name in (".DS_Store", "._frame0.png", ".hidden.png", "Thumbs.db", "desktop.ini", "notes.txt"):
        (tmp_path / name).write_bytes(b"no picture")
    assert numbers(Video(tmp_path)) == [0, 2, 10, 11, 12]
    assert [file.name for file in Video(tmp_path).files()][:3] == ["frame0.png", "frame2.png", "frame10.png"]


def test_a_picture_that_is_damaged_is_named_and_a_damaged_exif_does_not_matter(tmp_path):
    picture = Image.fromarray(np.ascontiguousarray(painted(3)[..., :3]))
    picture.save(tmp_path / "0.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert numbers(Video(tmp_path)) == [3]
    picture.save(tmp_path / "1.jpg")
    cut(tmp_path / "1.jpg", 0.9)
    with pytest.raises(UnreadableVideo, match=r"1\.jpg is damaged\. Save it again, or leave it out"):
        numbers(Video(tmp_path))
    with pytest.raises(UnreadableVideo, match="it is a picture that cannot be read"):
        numbers(Video(tmp_path / "1.jpg"))


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)).save(tmp_path / "a.png")
    (frame,) = Video(tmp_path / "a.png")
    assert np.array_equal(frame[..., 0].ravel(), np.arange(256))


# --- damage ---


def cut(file, part):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    return file


CUT = {
    "mp4": ("a.mp4", (*H264, "-movflags", "+faststart")),
    "fragments": ("a.mp4", (*H264, "-movflags", "frag_keyframe+empty_moov")),
    "mkv": ("a.mkv", H264),
    "webm": ("a.webm", VP8),
    "avi": ("a.avi", ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")),
}


@pytest.mark.parametrize("case", CUT)
def test_a_file_that_is_cut_off_says_how_far_it_can_be_read(tmp_path, case):
    name, options = CUT[case]
    video = Video(cut(write(tmp_path / name, 40, *options), 0.7))
    read = []
    with pytest.raises(UnreadableVideo, match=r"cut off or damaged after its first \d+ frames\. Download") as raised:
        read.extend(map(number_of, video))  # those before the error stay
    said = int(re.search(r"first (\d+) frames", str(raised.value))[1])
    assert 5 < said <= len(read) < 40
    assert [number_of(frame) for frame in video.first(said)] == list(range(said)), "these can be used"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_moving_picture_that_is_cut_off_is_said(tmp_path, kind):
    first, *others = pictures_of(10)
    first.save(tmp_path / "a", kind, save_all=True, append_images=others, duration=100)
    with pytest.raises(UnreadableVideo, match=r"cut off or damaged|not an image that can be read"):
        numbers(Video(cut(tmp_path / "a", 0.7)))


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_damage_in_the_middle_is_said(tmp_path, name):
    file = write(
        tmp_path / name, 40, *((*H264, "-movflags", "+faststart") if name == "a.mp4" else ("-c:v", "mpeg4", "-q:v", "2"))
    )
    content = bytearray(file.read_bytes())
    at = len(content) * 3 // 4
    content[at : at + 80] = bytes(80)
    file.write_bytes(content)
    for most in (None, 39):
        with pytest.raises(UnreadableVideo, match="it is damaged: some of its frames cannot be decoded"):
            list(Video(file).first(most))
    assert [number_of(frame) for frame in Video(file).first(8)] == list(range(8)), "what comes later does not matter"


@pytest.fixture
def damaged_animation(tmp_path):
    """QuickTime's Animation, which not every container can carry: 100 frames, of which number 50 is damaged."""
    file = write(tmp_path / "a.mov", 100, "-c:v", "qtrle", "-g", "1", "-pix_fmt", "rgb24")
    content = bytearray(file.read_bytes())
    at = content.index(b"mdat") + 4
    for _ in range(50):  # frames begin with their lengths
        at += int.from_bytes(content[at : at + 4], "big")
    content[at : at + 4] = b"\x7f" * 4
    file.write_bytes(content)
    return file


def test_damage_of_an_unusual_codec_is_said_where_it_is(damaged_animation):
    video = Video(damaged_animation)
    read = []
    with pytest.raises(UnreadableVideo, match="some of its frames cannot be decoded"):
        read.extend(video)
    assert [number_of(frame) for frame in video.first(50)] == list(range(50))
    with pytest.raises(UnreadableVideo, match="some of its frames cannot be decoded"):
        list(video.first(51))
    file = VideoFile(damaged_animation)
    assert [file._is_damaged_within(count) for count in (1, 40, 50, 51, 100)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mov", ("-c:v", "qtrle")), ("a.avi", (*PALETTE, "-c:v", "rawvideo")), ("a.mp4", (*H264, "-bf", "3"))],
)
def test_a_file_without_damage_is_never_called_damaged(tmp_path, name, options):
    file = VideoFile(write(tmp_path / name, 60, *options))
    assert not any(file._is_damaged_within(count) for count in (1, 30, 60))


@pytest.mark.parametrize("name", ["a.mp4", "late.mp4", "a.gif", "folder"])
def test_one_frame_is_the_same_as_among_all(tmp_path, name):
    if name == "folder":
        (tmp_path / name).mkdir()
        for number, picture in enumerate(pictures_of(12)):
            picture.save(tmp_path / name / f"{number}.png")
    elif name == "late.mp4":
        ffmpeg("-itsoffset", 0.5, "-i", write(tmp_path / "b.mp4", 12, *H264), "-c", "copy", tmp_path / name)
    else:
        write(tmp_path / name, 12, *(H264 if name == "a.mp4" else TRANSPARENT["gif"][1]))
    video = Video(tmp_path / name)
    for index in (0, 7, 11):
        assert np.array_equal(video.frame(index), list(video)[index])
    assert video.frame(12) is None


def test_one_frame_alone_passes_the_pipe(tmp_path, monkeypatch):
    video, passed = Video(write(tmp_path / "a.mkv", 60, *LOSSLESS)), []
    monkeypatch.setattr(video_file, "_on_background", lambda pixels, background: passed.append(number_of(pixels)) or pixels)
    video.frame(50)
    assert passed == [50]


def test_one_frame_behind_the_end_of_a_file_that_is_cut_off_says_how_far_it_can_be_read(tmp_path):
    video = Video(cut(write(tmp_path / "a.webm", 40, *VP8), 0.7))
    with pytest.raises(UnreadableVideo, match=r"cut off or damaged after its first \d+ frames"):
        video.frame(38)
    assert number_of(video.frame(9)) == 9


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_a_moving_picture_is_read_without_the_others(tmp_path, monkeypatch, kind):
    first, *others = pictures_of(9)
    first.save(tmp_path / "a", kind, save_all=True, append_images=others, duration=100, lossless=True)
    first.save(tmp_path / "still", kind)
    decoded, upright = [], pictures._upright
    monkeypatch.setattr(MovingPicture, "_milliseconds", property(lambda picture: pytest.fail("all frames were decoded")))
    monkeypatch.setattr(pictures, "_upright", lambda image: decoded.append(image.tell()) or upright(image))
    assert [number_of(frame) for frame in Video(tmp_path / "a").first(1)] == [0] and decoded == [0]
    monkeypatch.undo()
    monkeypatch.setattr(Image.Image, "seek", lambda image, frame: pytest.fail("a still picture was searched"))
    assert Video(tmp_path / "still").fps() == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "folder"])
def test_a_few_frames_are_read_without_the_others(tmp_path, monkeypatch, name):
    file = tmp_path / name
    if name == "folder":
        file.mkdir()
        for number in range(40):
            Image.fromarray(painted(number)).save(file / f"{number}.png")
    else:
        write(file, 40, *(PALETTE if name == "a.gif" else H264), before=() if name == "a.gif" else SOUND)
    video = Video(file)
    count, is_exact = video.stated_count()
    assert is_exact == (name in ("a.gif", "folder")) and (count == 40 if is_exact else 40 < count <= 44)
    monkeypatch.setattr(VideoFile, "frames", None)  # which decodes all that comes before
    asked = [0, 9, 17, 39]
    assert [(index, number_of(frame)) for index, frame in video.glimpses(asked, 60)] == list(zip(asked, asked))
    if not is_exact:
        assert [number_of(frame) for _, frame in video.glimpses([count - 1], 60)] == [39], "the last where there are fewer"


def test_an_empty_folder_has_no_glimpses(tmp_path):
    with pytest.raises(UnreadableVideo, match="it has no frames"):
        list(Video(tmp_path).glimpses([0], 60))


def test_glimpses_end_when_their_time_is_over(tmp_path):
    for number in range(4):
        Image.fromarray(painted(number)).save(tmp_path / f"{number}.png")
    assert list(Video(tmp_path).glimpses([0, 3], 0)) == []


def test_a_long_moving_picture_is_not_decoded_to_count_it(tmp_path, monkeypatch):
    file = tmp_path / "a.gif"
    write(file, 20, *PALETTE)
    monkeypatch.setattr(pictures, "MOST_COUNTED", 19 * WIDTH * HEIGHT)
    monkeypatch.setattr(MovingPicture, "_repeats", None)
    assert Video(file).stated_count() == (20, False)
    assert [number_of(frame) for _, frame in Video(file).glimpses([3, 7], 60)] == [3, 7]


def test_a_video_without_its_index_cannot_be_read(tmp_path):
    file = cut(write(tmp_path / "a.mp4", 10, *H264), 0.6)
    with pytest.raises(UnreadableVideo, match="cannot be read, or has no frames"):
        list(Video(file))


# --- what is not opened ---


def test_files_that_refer_to_others_are_not_opened(tmp_path):
    write(tmp_path / "secret.mp4", 3, *H264)
    secret = tmp_path / "secret.mp4"
    texts = {
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
        "concat.mov": f"ffconcat version 1.0\nfile '{secret}'\n",
        "dash.webm": f"<?xml version='1.0'?><MPD><Period><BaseURL>{secret}</BaseURL></Period></MPD>",
        "sdp.avi": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "eps.png": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "svg.gif": "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert not is_readable(tmp_path / name)
        with pytest.raises(UnreadableVideo, match="not that of a video"):
            list(Video(tmp_path / name))


def test_a_playlist_behind_the_first_bytes_of_a_video_is_not_followed(tmp_path):
    secret = write(tmp_path / "secret.mp4", 3, *H264)
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x08free" + f"\n#EXTM3U\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n".encode())
    assert is_readable(tmp_path / "a.mp4")
    with pytest.raises(UnreadableVideo, match="cannot be read"):
        list(Video(tmp_path / "a.mp4"))


def test_frames_without_bounds_are_refused_before_they_are_decoded(tmp_path):
    data = BytesIO()
    Image.new("1", (20000, 4000)).save(data, "PNG")
    (tmp_path / "a.png").write_bytes(data.getvalue())
    with pytest.raises(UnreadableVideo, match=r"its frames are 20000×4000, but may have at most 67,108,864 pixels"):
        list(Video(tmp_path / "a.png"))


def test_ffmpeg_ends_where_no_more_frames_are_wanted(tmp_path):
    frames = iter(Video(write(tmp_path / "a.mkv", 200, *H264)))
    assert number_of(next(frames)) == 0
    frames.close()
    assert not [process for process in psutil.Process().children() if "ffmpeg" in process.name()]


# --- ffmpeg that gets stuck ---

NO_PROGRESS = r"^ffmpeg made no progress with it for 1 seconds\. Convert it to MP4 with another program, or choose"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(video_file, "PATIENCE", 1)
    monkeypatch.setattr(video_file, "PATIENCE_FOR_ALL", 1)
    yield
    assert not [child for child in psutil.Process().children() if child.name() in ("sleep", "stuck_ffmpeg")], "it was ended"


def test_a_file_at_whose_beginning_ffmpeg_gets_stuck_is_refused(tmp_path, monkeypatch, impatient):
    file = write(tmp_path / "a.mkv", 3, *LOSSLESS)
    replace_ffmpeg(tmp_path, monkeypatch)
    began = time.monotonic()
    with pytest.raises(UnreadableVideo, match=NO_PROGRESS):
        Video(file).fps()
    assert time.monotonic() - began < 10


def test_a_file_in_which_ffmpeg_gets_stuck_is_refused_after_the_frames_before(tmp_path, monkeypatch, impatient):
    file = write(tmp_path / "a.mkv", 9, *LOSSLESS)
    replace_ffmpeg(tmp_path, monkeypatch, "image2pipe", passed=5 * WIDTH * HEIGHT * 3)
    read = []
    with pytest.raises(UnreadableVideo, match=NO_PROGRESS):
        read.extend(map(number_of, Video(file)))
    assert read == [0, 1, 2, 3]
    assert numbers(Video(file).first(3)) == [0, 1, 2], "what comes later does not matter"


def test_one_frame_that_ffmpeg_never_reaches_is_refused(tmp_path, monkeypatch, impatient):
    file = write(tmp_path / "a.mkv", 3, *LOSSLESS)
    replace_ffmpeg(tmp_path, monkeypatch, "select=")
    with pytest.raises(UnreadableVideo, match=NO_PROGRESS):
        Video(file).frame(2)


def test_a_look_for_damage_in_which_ffmpeg_gets_stuck_ends(tmp_path, monkeypatch, impatient):
    file = VideoFile(write(tmp_path / "a.mkv", 3, *LOSSLESS))
    for look, option in ((file._is_damaged_within, "debug_ts"), (file._before_gap, "showinfo")):
        replace_ffmpeg(tmp_path, monkeypatch, option)
        with pytest.raises(UnreadableVideo, match=NO_PROGRESS):
            look(3)
        monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")


def test_ffmpeg_may_wait_for_who_reads_slowly(tmp_path, monkeypatch):
    file = write(tmp_path / "a.mkv", 60, *LOSSLESS)
    monkeypatch.setattr(video_file, "PATIENCE", 0.5)
    frames = iter(Video(file))
    read = [number_of(next(frames))]
    time.sleep(1.5)
    assert read + numbers(frames) == list(range(60))


def test_without_ffmpeg_the_text_says_what_to_do(tmp_path, monkeypatch):
    file = write(tmp_path / "a.mp4", 1, *H264)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingDependency, match="pip install imageio-ffmpeg"):
        list(Video(file))
