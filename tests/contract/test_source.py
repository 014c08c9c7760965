"""Source videos: img2img from the frames of a video or a folder, with the video's sound."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess

import av
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from demo.real_webui import REFORGE
from support.animation import animate, difference, files_of, frames_of, info_of, recording, stopped_while
from support.pictures import encode, gradient, mean_difference

FAINT = {"denoising_strength": 0.01, "init_images": []}
"""At a strength near zero, each frame must be its own picture after the checkpoint's VAE."""
FRAMES, FPS, RATE = 30, 10, 48_000
TONES = (300, 600, 1200)
"""The pitch in the first, second and third second, in hertz."""


def picture_of(index):
    return gradient(shift=2 * index)


@pytest.fixture(scope="module")
def videos(source_folder, tmp_path_factory):
    """A folder that the settings allow: frames, a lossless video of them with sound, and files that cannot be used."""
    folder = source_folder
    (folder / "frames").mkdir()
    for index in range(FRAMES):
        Image.fromarray(picture_of(index)).save(folder / "frames" / f"{index}.png")
    sine = [f"aevalsrc='sin(2*PI*t*if(lt(t,1),{TONES[0]},if(lt(t,2),{TONES[1]},{TONES[2]})))':s={RATE}:d={FRAMES / FPS}"]
    pictures = ["-framerate", str(FPS), "-start_number", "0", "-i", str(folder / "frames" / "%d.png")]
    codecs = ["-c:v", "libx264rgb", "-crf", "0", "-c:a", "pcm_s16le"]
    run_ffmpeg(*pictures, "-f", "lavfi", "-i", *sine, *codecs, str(folder / "talks.mkv"))
    run_ffmpeg(*pictures, "-c:v", "libx264rgb", "-crf", "0", str(folder / "silent.mkv"))
    (folder / "broken.mp4").write_bytes((folder / "talks.mkv").read_bytes()[:300])
    (folder / "notes.txt").write_text("no video")
    (folder / "empty").mkdir()
    shutil.copytree(folder / "frames", folder / "mixed")
    Image.fromarray(gradient(32, 48)).save(folder / "mixed" / "3.png")
    (tmp_path_factory.mktemp("elsewhere") / "private.mkv").write_bytes((folder / "talks.mkv").read_bytes())
    private = next(folder.parent.glob("elsewhere*/private.mkv"))
    (folder / "link.mkv").symlink_to(private)
    (folder / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{private}\n#EXT-X-ENDLIST\n")
    return folder


def run_ffmpeg(*arguments):
    subprocess.run([get_ffmpeg_exe(), "-loglevel", "error", *arguments], check=True)


@pytest.fixture(scope="module")
def alone(host):
    """The result of each picture by itself, as a single image."""
    request = {**FAINT, "steps": 4}
    return [frames_of(host.img2img(**{**request, "init_images": [encode(picture_of(index))]}))[0] for index in range(FRAMES)]


def which(frames, alone):
    """Returns the indices of the pictures that are most similar to these frames."""
    return [int(np.argmin([mean_difference(frame, other) for other in alone])) for frame in frames]


# --- frames ---


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        ({"video_path": "frames"}, {"video_length": 0}, range(30)),
        ({"video_source": "talks.mkv"}, {"video_length": 8}, range(8)),
        ({"video_path": "talks.mkv"}, {"video_length": 6, "source_start": 11, "source_stride": 3}, range(11, 28, 3)),
        ({"video_source": "frames"}, {"video_length": 0, "source_start": 20, "source_stride": 4}, (20, 24, 28)),
    ],
)
def test_each_frame_starts_from_its_frame_of_the_source(host, videos, alone, source, settings, expected):
    path = {key: str(videos / name) for key, name in source.items()}
    with recording(host) as record:
        answer = host.img2img(**animate(**path, **settings), **FAINT)
    assert which(frames_of(answer), alone) == list(expected)
    assert len(record["sampler_runs"]) == 1


def test_the_source_frames_replace_the_init_image(host, videos, alone):
    request = {**FAINT, "init_images": [encode(255 - gradient())]}
    answer = host.img2img(**animate(video_path=str(videos / "frames"), video_length=4), **request)
    assert which(frames_of(answer), alone) == [0, 1, 2, 3]
    request = {**FAINT, "init_images": [encode(picture_of(9))]}
    assert set(which(frames_of(host.img2img(**animate(), **request)), alone)) == {9}, "the next job uses its own picture again"


def test_without_a_number_all_init_images_are_frames(host, alone):
    pictures = [encode(picture_of(index)) for index in (4, 2, 7)]
    answer = host.img2img(**animate(video_length=0), **{**FAINT, "init_images": pictures})
    assert which(frames_of(answer), alone) == [4, 2, 7]


def test_transparent_pixels_show_the_background_in_every_way(host, videos):
    picture = Image.fromarray(gradient()).convert("RGBA")
    picture.paste((0, 255, 0, 0), (0, 0, 32, 64))
    (videos / "transparent").mkdir()
    for index in range(2):
        picture.save(videos / "transparent" / f"{index}.png")
    run_ffmpeg("-i", str(videos / "transparent" / "%d.png"), "-c:v", "png", str(videos / "transparent.mov"))
    below = Image.new("RGBA", picture.size, "#204060")
    below.alpha_composite(picture)
    opaque = encode(np.asarray(below.convert("RGB")))
    with host.settings(img2img_background_color="#204060"):
        expected = frames_of(host.img2img(**animate(video_length=2), **{**FAINT, "init_images": [opaque] * 2}))
        for values, images in (
            ({"video_path": str(videos / "transparent")}, []),
            ({"video_path": str(videos / "transparent.mov")}, []),
            ({}, [base64.b64encode((videos / "transparent" / "0.png").read_bytes()).decode()] * 2),
        ):
            frames = frames_of(host.img2img(**animate(**values, video_length=2), **{**FAINT, "init_images": images}))
            assert difference(frames, expected) <= 1, "the VAE's own noise is drawn anew"


def test_the_infotext_has_the_file_name_without_its_folder(host, videos):
    settings = {"video_length": 2, "source_start": 4, "fps": 0}
    answer = host.img2img(**animate(video_source=str(videos / "talks.mkv"), **settings), **FAINT)
    text = info_of(answer)["infotexts"][0]
    assert "video_source: talks.mkv, source_start: 4" in text and "fps: 10," in text and str(videos) not in text


# --- refusals ---


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"video_source": "https://example.com/a.mp4"}, ["URL", "upload it on the page"]),
        ({"video_source": "file:///etc/passwd"}, ["URL"]),
        ({"video_path": "concat:a.mp4|b.mp4"}, ["URL"]),
        ({"video_source": "/etc/passwd"}, ["/etc/passwd", "outside", "settings of AnimateDiff"]),
        ({"video_path": "/"}, ["outside"]),
        ({"video_source": "{videos}/../elsewhere0/private.mkv"}, ["outside"]),
        ({"video_source": "{videos}/link.mkv"}, ["link.mkv", "outside"]),
        ({"video_source": "{videos}/gone.mp4"}, ["gone.mp4", "does not exist"]),
        ({"video_source": "{videos}/a\0.mp4"}, ["not a valid path"]),
        ({"video_source": "{videos}/notes.txt"}, ["notes.txt", ".mp4"]),
        ({"video_source": "{videos}/broken.mp4"}, ["broken.mp4", "cannot be read, or has no frames"]),
        ({"video_source": "{videos}/list.mp4"}, ["list.mp4", "is not a video by its content"]),
        ({"video_path": "{videos}/empty"}, ["empty", "has no frames"]),
        ({"video_path": "{videos}/mixed", "video_length": 0}, ["mixed", "frame 4 is 32×48", "the first is 64×64"]),
        ({"video_path": "{videos}/frames", "video_length": 31}, ["video_length", "31", "30"]),
        ({"video_path": "{videos}/frames", "source_start": 28, "source_stride": 3}, ["1 can be taken", "(source_stride) at 3"]),
        ({"video_path": "{videos}/frames", "source_start": 30}, ["30 frames", "source_start"]),
        ({"video_path": "{videos}/frames", "video_source": "{videos}/talks.mkv"}, ["video_source", "video_path", "one"]),
    ],
)
def test_an_unusable_source_is_refused_with_a_message(host, videos, values, words):
    values = {key: value.format(videos=videos) if isinstance(value, str) else value for key, value in values.items()}
    with recording(host) as record:
        answer = host.img2img(**animate(**values), **FAINT)
    assert answer.status_code == 422, answer.text
    assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]
    assert record["sampler_runs"] == [] and record["text_encoder_forwards"] == 0


@pytest.mark.not_on(("Forge", "Neo", "reForge"), "it has a ControlNet of its own, which takes the source")
def test_txt2img_refuses_a_source(host, videos):
    answer = host.txt2img(**animate(video_path=str(videos / "frames")))
    assert (
        answer.status_code == 422 and "in txt2img drives ControlNet, which this WebUI does not have" in answer.json()["detail"]
    )


def test_pictures_of_different_sizes_are_refused(host):
    pictures = [encode(gradient()), encode(gradient(32, 48))]
    answer = host.img2img(**animate(video_length=2), **{**FAINT, "init_images": pictures})
    assert answer.status_code == 422 and "picture 2 is 32×48, the first is 64×64" in answer.json()["detail"]


def lists_no_settings_of_extensions(host):
    return getattr(host, "kind", None) is REFORGE


@pytest.mark.not_on(("Forge", "Neo"), "its API changes every setting, also those that are closed to it")
def test_the_api_cannot_change_settings_that_are_paths(host, videos):
    before, models = host.get("/sdapi/v1/options").json(), host.get("/animatediff/v1/models").json()
    keys = [f"animatediff_{name}" for name in ("model_path", "source_folders", "training_folders")]
    change = dict.fromkeys(keys, "/")
    host.post("/sdapi/v1/options", change).raise_for_status()
    after = host.get("/sdapi/v1/options").json()
    assert [after.get(key) for key in keys] == [before.get(key) for key in keys]
    assert str(videos) in after.get("animatediff_source_folders", "") or lists_no_settings_of_extensions(host)
    assert host.get("/animatediff/v1/models").json() == models != []
    answer = host.img2img(**animate(video_path="/usr"), **FAINT, override_settings=change)
    assert answer.status_code == 422 and "outside" in answer.json()["detail"]


def test_a_frame_rate_too_high_for_a_gif_is_refused_even_if_it_is_the_sources(host, videos):
    answer = host.img2img(
        **animate(video_source=str(videos / "talks.mkv"), format=["GIF"], interp="optical flow", interp_x=6, fps=0), **FAINT
    )
    assert answer.status_code == 422 and "60 frames per second" in answer.json()["detail"]


@pytest.mark.parametrize("how", ["interrupt", "skip"])
def test_reading_a_source_can_be_interrupted(host, videos, how):
    folder = videos / f"large {how}"
    folder.mkdir()
    Image.new("RGB", (4096, 4096)).save(folder / "0.png")
    for index in range(1, 100):  # reading all of them would take much longer than this test
        (folder / f"{index}.png").hardlink_to(folder / "0.png")
    request = animate(video_path=str(folder), source_start=99, video_length=1)
    with recording(host) as record:
        answer = stopped_while(host, "reading", lambda: host.img2img(**request, **FAINT), how)
    assert answer.status_code == 422 and "was interrupted at frame" in answer.json()["detail"]
    assert record["sampler_runs"] == []
    request = animate(video_path=str(videos / "frames"), video_length=2)
    assert len(frames_of(host.img2img(**request, **FAINT))) == 2, "the next job is not interrupted"


# --- frame rate and sound ---


def talking(videos, **values):
    return animate(video_source=str(videos / "talks.mkv"), **values)


def decoded(answer):
    """Decodes the only video of an answer: its frames, its duration, and its sound's duration and samples of one channel."""
    (data,) = (base64.b64decode(text) for text in answer.json()["images"])
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        seconds = float((frames[-1].pts - frames[0].pts) * stream.time_base + 1 / stream.average_rate)
    with av.open(io.BytesIO(data)) as container:
        if not container.streams.audio:
            return len(frames), seconds, 0.0, np.zeros(0)
        parts = list(container.decode(audio=0))
        samples = np.concatenate([part.to_ndarray().reshape(len(part.layout.channels), -1)[0] for part in parts])
        return len(frames), seconds, len(samples) / parts[0].sample_rate, samples


def pitch(samples, second, rate=RATE):
    """Returns the strongest frequency within a fifth of a second."""
    part = samples[int(second * rate) :][: rate // 5]
    return np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part))))) * 5


@pytest.mark.parametrize("name", ["MP4", "WEBM"])
def test_sound_is_copied_and_lasts_as_long_as_the_video(host, videos, name):
    answer = host.img2img(**talking(videos, format=[name], fps=0, video_length=0), **FAINT, steps=1)
    frames, seconds, heard, samples = decoded(answer)
    assert frames == FRAMES and seconds == pytest.approx(3, abs=0.01)
    assert heard == pytest.approx(3, abs=1024 / RATE)
    assert [pitch(samples, second) for second in (0.4, 1.4, 2.4)] == pytest.approx(TONES, abs=10)
    assert "AnimateDiff warnings" not in info_of(answer)["extra_generation_params"]


@pytest.mark.parametrize(
    ("settings", "lasts", "tones"),
    [
        ({"source_start": 11, "video_length": 8}, 0.8, {0.3: TONES[1]}),
        ({"source_start": 2, "source_stride": 2, "video_length": 10}, 2.0, {0.3: TONES[0], 1.3: TONES[1]}),
        ({"source_start": 5, "video_length": 10, "interp": "optical flow", "interp_x": 2}, 0.95, {0.1: 300, 0.65: 600}),
    ],
)
def test_sound_starts_with_the_first_frame_and_ends_with_the_last(host, videos, settings, lasts, tones):
    answer = host.img2img(**talking(videos, format=["MP4"], fps=0, closed_loop="N", **settings), **FAINT, steps=1)
    _, seconds, heard, samples = decoded(answer)
    assert seconds == pytest.approx(lasts, abs=0.01) and heard == pytest.approx(lasts, abs=1024 / RATE)
    assert [pitch(samples, second) for second in tones] == pytest.approx(list(tones.values()), abs=10)


def test_another_frame_rate_drops_the_sound_with_a_warning(host, videos):
    answer = host.img2img(**talking(videos, format=["MP4"], fps=12, video_length=4), **FAINT, steps=1)
    assert decoded(answer)[2] == 0
    (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
    assert "FPS (fps) is 12, but the frames of talks.mkv are played at 10. Set FPS to 0" in warning


@pytest.mark.parametrize(("name", "formats"), [("silent.mkv", ["MP4"]), ("talks.mkv", ["GIF"])])
def test_a_source_without_sound_gives_no_warning(host, videos, name, formats):
    source = str(videos / name)
    answer = host.img2img(**animate(video_source=source, format=formats, fps=9, video_length=3), **FAINT, steps=1)
    assert "AnimateDiff warnings" not in info_of(answer)["extra_generation_params"]


def test_a_gif_has_the_frame_rate_of_its_source(host, videos):
    answer = host.img2img(**talking(videos, format=["GIF"], fps=0, video_length=5, source_stride=2), **FAINT, steps=1)
    (gif,) = files_of(answer)
    assert gif.info["duration"] == 200


def test_a_folder_gets_our_default_frame_rate(host, videos):
    answer = host.img2img(**animate(video_path=str(videos / "frames"), video_length=2), **FAINT, steps=1)
    assert "fps: 8," in info_of(answer)["infotexts"][0]
