"""How videos are read before a training starts."""

import csv
import subprocess

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from motion_module.errors import UnreadableVideo
from motion_module.training import latent_cache
from motion_module.training.batch_order import Order
from motion_module.training.config import ConfigError, read_config
from motion_module.training.data import Clip, DataError, clips_of, find_videos, mirrored_caption, shape_for
from motion_module.training.image_model import load_image_model
from motion_module.training.latent_cache import Example
from motion_module.video_reader import Video
from support.pictures import gradient
from support.small_training import FRAMES, small, stripes, write_base, write_frames, write_video


def clips(video, config):
    return list(clips_of(video, config))


# --- clips ---


@pytest.mark.parametrize(("frames", "stride", "starts"), [(4, 1, [0]), (9, 1, [0, 4]), (13, 2, [0]), (14, 2, [0, 7])])
def test_a_video_makes_as_many_clips_as_fit_without_overlap(tmp_path, frames, stride, starts):
    pictures = stripes(frames)
    video = Video(write_frames(tmp_path / "clips" / "a", pictures), "")
    found = clips(video, small(tmp_path, stride=stride))
    assert [clip.start for clip in found] == starts
    for clip in found:
        assert np.array_equal(clip.frames, pictures[clip.start : clip.start + FRAMES * stride : stride])


def test_a_file_and_a_folder_of_the_same_frames_are_the_same_clip(tmp_path):
    pictures = stripes(FRAMES)
    config = small(tmp_path)
    (of_file,) = clips(Video(write_video(tmp_path / "a.mp4", pictures), ""), config)
    (of_folder,) = clips(Video(write_frames(tmp_path / "b", pictures), ""), config)
    assert np.abs(of_file.frames.astype(int) - of_folder.frames).mean() < 8  # MPEG-4 is lossy


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    pictures = stripes(12)
    folder = write_frames(tmp_path / "clips" / "a", pictures)
    for file in sorted(folder.iterdir()):
        file.rename(file.with_name(f"Frame {int(file.stem) + 1}.png"))
    (found,) = clips(Video(folder, ""), small(tmp_path, frames=12))
    assert np.array_equal(found.frames, pictures)


def test_single_frames_are_taken_a_stride_apart(tmp_path):
    pictures = stripes(7)
    video = Video(write_frames(tmp_path / "clips" / "a", pictures), "")
    found = clips(video, small(tmp_path, train="domain adapter", stride=3))
    assert [clip.start for clip in found] == [0, 3, 6]
    assert np.array_equal(np.concatenate([clip.frames for clip in found]), pictures[[0, 3, 6]])


@pytest.mark.parametrize(
    ("width", "height", "size", "bucket"),
    [(640, 640, 256, (256, 256)), (1920, 1080, 256, (192, 320)), (1080, 1920, 256, (320, 192)), (64, 64, 64, (64, 64)),
     (4000, 100, 256, (128, 512))],
)  # fmt: skip
def test_the_bucket_is_the_one_nearest_in_shape(width, height, size, bucket):
    assert shape_for(np.zeros((height, width, 3), np.uint8), size) == bucket


def test_a_wide_video_is_scaled_and_cut_at_the_middle(tmp_path):
    wide = np.zeros((FRAMES, 100, 400, 3), np.uint8)
    wide[:, :, 150:250] = 255
    (clip,) = clips(Video(write_frames(tmp_path / "a", wide), ""), small(tmp_path))
    assert clip.frames.shape == (FRAMES, 64, 128, 3)
    bright = clip.frames[0, 32, :, 0] > 127
    assert bright.sum() == pytest.approx(64, abs=2)
    assert bright[32:96].sum() == pytest.approx(64, abs=2)


# --- what is odd ---


def test_cuts_and_clips_without_motion_are_reported():
    moving = stripes(8, speed=0.5)
    cut = np.concatenate([moving[:5], 255 - stripes(3, seed=4)])
    assert Clip(0, moving).suspicion == ""
    assert Clip(0, np.repeat(moving[:1], 8, axis=0)).suspicion == "nothing moves"
    assert Clip(0, cut).suspicion == "there seems to be a cut after its frame 5"


# --- captions ---


@pytest.mark.parametrize(
    ("caption", "mirrored"),
    [
        ("a car turning left, then Right", "a car turning right, then Left"),
        ("LEFTMOST leftward", "RIGHTMOST rightward"),
        ("a bright copyright on the leftovers", "a bright copyright on the leftovers"),
    ],
)
def test_left_and_right_are_exchanged_in_mirrored_captions(caption, mirrored):
    assert mirrored_caption(caption) == mirrored
    assert mirrored_caption(mirrored) == caption


def test_captions_are_next_to_videos(tmp_path):
    write_video(tmp_path / "clips" / "a.mp4", stripes(4), "one\n two ")
    write_frames(tmp_path / "clips" / "more" / "b", stripes(4), "three")
    write_video(tmp_path / "clips" / "c.mp4", stripes(4), None)
    write_video(tmp_path / "clips" / "d.mp4", stripes(4), " \n")
    videos, left_out = find_videos(small(tmp_path))
    assert [(video.path.name, video.caption) for video in videos] == [("a.mp4", "one two"), ("b", "three")]
    assert left_out == [
        ("c.mp4", "it has no caption. Describe the video in c.txt in the same folder"),
        ("d.mp4", "it has no caption. Describe the video in d.txt in the same folder"),
    ]


def test_a_folder_of_videos_with_an_image_is_not_a_folder_of_frames(tmp_path):
    write_video(tmp_path / "clips" / "more" / "a.mp4", stripes(4))
    write_frames(tmp_path / "cover", stripes(1))
    (tmp_path / "cover" / "0000.png").rename(tmp_path / "clips" / "more" / "cover.png")
    assert [video.path.name for video in find_videos(small(tmp_path))[0]] == ["a.mp4"]


def test_a_single_file_is_refused(tmp_path):
    write_video(tmp_path / "clip.mp4", stripes(4))
    with pytest.raises(DataError, match=r"clip\.mp4 is neither a folder nor a \.csv file"):
        find_videos(small(tmp_path, data="clip.mp4"))


def test_two_videos_with_the_same_name_are_refused(tmp_path):
    write_video(tmp_path / "clips" / "walk.mp4", stripes(4))
    write_video(tmp_path / "clips" / "walk.avi", stripes(4))
    with pytest.raises(DataError, match=r"walk\.avi and walk\.mp4 have the same name, so walk\.txt could belong to each"):
        find_videos(small(tmp_path))


def write_table(tmp_path, rows, columns=("videoid", "name", "page_dir")):
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return small(tmp_path, data="table.csv", videos="videos")


def test_a_table_has_videos_and_captions(tmp_path):
    write_video(tmp_path / "videos" / "1.mp4", stripes(4), None)
    write_video(tmp_path / "videos" / "pages" / "2.mp4", stripes(4), None)
    write_video(tmp_path / "secret.mp4", stripes(4), None)
    rows = [("1", "a cat, sleeping", ""), ("2", "a dog", "pages"), ("3", "gone", ""), ("../secret", "outside", "")]
    videos, left_out = find_videos(write_table(tmp_path, rows))
    assert [(video.path.name, video.caption) for video in videos] == [("1.mp4", "a cat, sleeping"), ("2.mp4", "a dog")]
    assert [name for name, _ in left_out] == ["3", "../secret"]


def test_a_table_with_a_video_twice_is_refused(tmp_path):
    write_video(tmp_path / "videos" / "1.mp4", stripes(4), None)
    with pytest.raises(DataError, match="'1' twice"):
        find_videos(write_table(tmp_path, [("1", "a cat", ""), ("1", "a dog", "")]))


def test_a_table_without_its_columns_is_refused(tmp_path):
    with pytest.raises(DataError, match="no column 'name'"):
        find_videos(write_table(tmp_path, [("1", "")], ("videoid", "title")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("videoid,name\n1,Café\n".encode("cp1252"), "is not text in UTF-8"),
        (b"videoid,name\n1," + 200_000 * b"a", "is not a CSV file"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, content, said):
    config = write_table(tmp_path, [])
    config.data.write_bytes(content)
    with pytest.raises(DataError, match=said):
        find_videos(config)


def test_what_systems_leave_in_folders_is_neither_a_video_nor_a_frame(tmp_path):
    folder = write_frames(tmp_path / "clips" / "a", stripes(4))
    (folder / "._0000.png").write_bytes(b"left by macOS")
    (folder / "9.png").mkdir()
    (tmp_path / "clips" / "._a.mp4").write_bytes(b"left by macOS")
    write_frames(tmp_path / "clips" / "__MACOSX" / "b", stripes(4))
    ((video,), left_out) = find_videos(small(tmp_path))
    assert (video.path, left_out) == (folder, [])
    assert [file.name for file in video.files()] == ["0000.png", "0001.png", "0002.png", "0003.png"]


def test_latents_are_computed_anew_where_videos_are_read_by_other_rules(tmp_path, monkeypatch):
    video, config = Video(write_frames(tmp_path / "clips" / "a", stripes(4))), small(tmp_path)
    key = latent_cache._key_of(video, config, "an autoencoder")
    assert key == latent_cache._key_of(video, config, "an autoencoder")
    monkeypatch.setattr(latent_cache, "RULES", latent_cache.RULES + 1)
    assert key != latent_cache._key_of(video, config, "an autoencoder")


def test_turned_pictures_and_videos_are_upright_in_the_latents(tmp_path):
    """A phone that is held upright stores pictures on their side, with a note of it."""
    upright = [gradient(64, 96, shift=20 * index) for index in range(FRAMES)]
    lying = [Image.fromarray(np.ascontiguousarray(np.rot90(picture))) for picture in upright]
    folder, turned = tmp_path / "clips", Image.Exif()
    turned[0x0112] = 6
    for name in ("upright", "pictures"):
        (folder / name).mkdir(parents=True)
        (folder / f"{name}.txt").write_text(name)
    for index, (picture, on_its_side) in enumerate(zip(upright, lying)):
        Image.fromarray(picture).save(folder / "upright" / f"{index}.png")
        on_its_side.save(folder / "pictures" / f"{index}.jpg", exif=turned, quality=100, subsampling=0)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "96x64", "-i", "-", "-c:v", "libx264rgb", "-crf", "0"]
    run_ffmpeg(*raw, tmp_path / "lying.mp4", stdin=b"".join(picture.tobytes() for picture in lying))
    run_ffmpeg("-display_rotation", "-90", "-i", tmp_path / "lying.mp4", "-c", "copy", folder / "video.mp4")
    (folder / "video.txt").write_text("video")
    model = load_image_model(write_base(tmp_path / "base.safetensors"))
    examples, report = latent_cache.cached_examples(small(tmp_path), model, lambda videos: videos)
    latents = {example.caption: example.moments() for example in examples}
    assert report.left_out == []
    assert torch.equal(latents["video"], latents["upright"])
    assert (latents["pictures"] - latents["upright"]).abs().mean() < 0.01 * latents["upright"].std()


def run_ffmpeg(*arguments, stdin=None):
    command = [get_ffmpeg_exe(), "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, input=stdin, check=True)


# --- videos that cannot be used ---


def broken(tmp_path, name):
    folder = tmp_path / "clips"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"no video")
    return Video(folder / name, "")


def test_an_unreadable_video_is_reported(tmp_path):
    with pytest.raises(UnreadableVideo, match="its content is not that of a video"):
        clips(broken(tmp_path, "a.mp4"), small(tmp_path))


def test_an_unreadable_frame_is_named(tmp_path):
    folder = write_frames(tmp_path / "clips" / "a", stripes(4))
    (folder / "0002.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableVideo, match=r"0002\.png is not an image that can be read"):
        clips(Video(folder, ""), small(tmp_path))


def test_a_folder_without_frames_is_reported(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableVideo, match="it has no frames"):
        clips(Video(tmp_path / "empty", ""), small(tmp_path))


def test_frames_of_different_sizes_are_refused(tmp_path):
    folder = write_frames(tmp_path / "clips" / "a", stripes(4))
    write_frames(tmp_path / "larger", stripes(1, width=80))
    (tmp_path / "larger" / "0000.png").rename(folder / "0009.png")
    with pytest.raises(UnreadableVideo, match="its frames have different sizes: frame 5 is 80×64, the first is 64×64"):
        clips(Video(folder, ""), small(tmp_path))


def test_the_error_for_a_short_video_says_how_long_it_must_be(tmp_path):
    video = Video(write_frames(tmp_path / "clips" / "a", stripes(6)), "")
    with pytest.raises(
        UnreadableVideo, match=r"it has 6 frames, but a clip of 4 frames with stride 2 needs 7\. Use a longer video"
    ):
        clips(video, small(tmp_path, stride=2))


def test_a_training_without_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="clips does not exist"):
        find_videos(small(tmp_path))
    (tmp_path / "clips").mkdir()
    with pytest.raises(DataError, match="there is no video with a caption"):
        find_videos(small(tmp_path))


# --- order ---


def test_every_clip_is_used_once_per_epoch_and_sizes_are_not_mixed(tmp_path):
    examples = [Example(tmp_path, "", str(i), (64, 64) if i % 3 else (64, 128), "") for i in range(20)]
    order = Order(examples, batch=3, seed=1)
    assert order.batches_per_epoch == 5 + 3  # 13 of one size, 7 of the other
    epochs = [[order.at(epoch * 8 + index) for index in range(8)] for epoch in range(3)]
    for batches in epochs:
        assert all(len(batch) == 3 and len({examples[i].size for i in batch}) == 1 for batch in batches)
        counts = np.bincount(np.concatenate(batches), minlength=20)
        assert counts.min() == 1
        assert counts.sum() == 24
    assert epochs[0] != epochs[1]
    assert Order(examples, batch=3, seed=1).at(17) == order.at(17)
    assert [Order(examples, batch=3, seed=2).at(i) for i in range(8)] != epochs[0]


# --- options ---


def test_a_file_of_options_becomes_a_configuration(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "train: domain adapter\nbase: b.safetensors\ndata: /clips\noutput: o.safetensors\nlearning_rate: 1e-4\n"
        "validation:\n  prompts: [a cat]\n  every: 7\nnoise_schedule:\n  straight_in: betas\n"
    )
    config = read_config(tmp_path / "c.yaml")
    assert config.base == tmp_path / "b.safetensors"
    assert str(config.data) == "/clips"
    assert config.folder == tmp_path / "o-training"
    assert (config.frames, config.learning_rate) == (1, 1e-4)
    assert small(tmp_path, train="domain adapter").noise_schedule.straight_in == "sqrt_betas"
    assert small(tmp_path).noise_schedule.straight_in == "betas"
    assert (config.validation.prompts, config.validation.every, config.validation.steps) == (("a cat",), 7, 25)
    assert config.noise_schedule.straight_in == "betas"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": "a cat"}, "train: 'a cat' is not motion module or motion lora or domain adapter or sparsectrl"),
        ({"train": None}, "train: this option is required"),
        ({"colour": 1}, "colour: there is no such option"),
        ({"steps": "many"}, "steps: 'many' is not a whole number"),
        ({"steps": True}, "steps: True is not a whole number"),
        ({"steps": 0}, "steps: it must be 1 or more"),
        ({"frames": 1}, "frames: it must be 2 or more, not 1"),
        ({"size": 100}, "size: it must be a multiple of 64"),
        ({"ema": 1.5}, "ema: it must be from 0 to below 1, not 1.5"),
        ({"caption_dropout": -0.5}, "caption_dropout: it must be from 0 to 1, not -0.5"),
        ({"learning_rate": 0}, "learning_rate: it must be more than 0"),
        ({"output": "a.ckpt"}, r"a\.ckpt does not end with \.safetensors"),
        ({"train": "motion lora"}, "motion_module: this option is required for a motion LoRA"),
        ({"train": "domain adapter", "motion_module": "a.safetensors"}, "motion_module: a domain adapter is trained without"),
        (
            {"domain_adapter": "a.safetensors", "train": "motion lora", "motion_module": "b.safetensors"},
            "domain_adapter: it is only",
        ),
        ({"precision": False}, "precision: False is not full or fp16 or bf16"),
        ({"validation": {"every": 0}}, "validation: every and steps must be 1 or more, not 0 and "),
        ({"noise_schedule": {"last": 1.2}}, "noise_schedule: first must be above 0, .*, not .*, 1.2 and 1000"),
        ({"seed": -1}, "seed: it must be 0 or more, not -1"),
        ({"data": "a.csv"}, "videos: this option is required"),
        ({"validation": {"prompt": "a"}}, "prompt: there is no such option"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, said):
    with pytest.raises(ConfigError, match=said):
        small(tmp_path, **options)


@pytest.mark.parametrize(("text", "said"), [("", "has no options"), ("a: [", "is not YAML"), ("- a", "has no options")])
def test_a_file_without_options_is_refused(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_config(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "other.yaml")
