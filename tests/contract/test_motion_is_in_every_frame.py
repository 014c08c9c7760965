"""No pictures are called a video unless the motion module acted on each of them, whoever samples."""

from __future__ import annotations

import numpy as np
import pytest

from support.animation import FRAMES, animate, difference, files_of, frames_of, info_of, text_of_refusal
from support.pictures import encode, gradient, pictures_of

IMG2IMG = {"init_images": [encode(gradient())], "denoising_strength": 0.5}
BY_ITSELF = "The script “Probe script”, or another extension, samples or calls the UNet in a way of its own. Choose None under"


def chosen(how):
    return {"script_name": "Probe script", "script_args": [how]}


@pytest.fixture
def bypass(host):
    """Arms a way around the motion layers, and undoes it after the test."""
    yield lambda how, step=1: host.post("/probe/v1/bypass", {"how": how, "step": step}).raise_for_status()
    host.post("/probe/v1/bypass", {"how": None}).raise_for_status()


class TestScripts:
    def test_one_that_generates_by_the_webui_gives_its_video(self, host):
        answer = host.txt2img(**animate(format=["GIF"]), **chosen("passes_on"))
        assert answer.json()["images"] == host.txt2img(**animate(format=["GIF"])).json()["images"]
        assert "AnimateDiff warnings" not in info_of(answer)["extra_generation_params"]

    def test_one_that_replaces_sampling_is_named(self, host):
        still = pictures_of(host.txt2img())
        text = text_of_refusal(host.txt2img(**animate(format=["GIF"]), **chosen("samples_itself")))
        assert text.startswith(f"The pictures were sampled without the motion module. {BY_ITSELF}")
        assert text in host.log_text()
        assert np.array_equal(pictures_of(host.txt2img()), still)

    def test_one_that_never_starts_a_job_is_named(self, host):
        text = text_of_refusal(host.txt2img(**animate(), **chosen("draws_itself")))
        assert text.startswith("The script “Probe script” has generated without AnimateDiff. Choose None under Script")
        assert host.txt2img(**chosen("draws_itself")).ok, "with AnimateDiff off"

    def test_one_that_makes_pictures_of_videos_says_so_in_its_answer(self, host):
        answer = host.txt2img(**animate(format=["GIF"]), **chosen("combines"))
        assert [file.format for file in files_of(answer)] == ["PNG"]
        (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
        assert warning.startswith("The answer of the script “Probe script” has no video")

    def test_one_that_swallows_a_refusal_does_not_hide_it(self, host):
        assert "at least 0" in text_of_refusal(host.txt2img(**animate(fps=-1), **chosen("swallows")))

    def test_one_that_goes_on_without_a_refused_video_says_so(self, host):
        answer = host.txt2img(**animate(format=["GIF"]), **chosen("swallows_the_second"))
        assert [file.n_frames for file in files_of(answer)] == [FRAMES]
        (warning,) = info_of(answer)["extra_generation_params"]["AnimateDiff warnings"]
        assert warning.startswith("The script “Probe script” has left out a video: ") and "at least 0" in warning

    def test_what_is_watched_is_forgotten_with_the_request(self, host):
        assert text_of_refusal(host.txt2img(**animate(), **chosen("draws_itself")))
        assert host.txt2img(**chosen("draws_itself")).ok
        assert host.txt2img(**animate(), **chosen("passes_on")).ok

    @pytest.mark.webui_only("the embedded host has none of the WebUI's own scripts")
    @pytest.mark.not_on(("Neo",), "it has none of them, and another SD upscale")
    @pytest.mark.parametrize(
        ("name", "args"),
        [
            ("SD upscale", ["", 16, "None", 2]),
            ("Outpainting mk2", ["", 16, 8, ["left"], 1, 0.05]),
            ("Poor man's outpainting", [16, 4, "fill", ["left"]]),
            pytest.param(
                "img2img alternative test",
                ["", True, True, "a", "b", True, 2, True, 1, 0, False],
                marks=pytest.mark.not_on(("Forge",), "it fails there in any request"),
            ),
        ],
    )
    def test_those_of_the_webui_that_make_one_picture_are_refused(self, host, name, args):
        script = {"script_name": name, "script_args": args}
        before = frames_of(host.txt2img())
        text = text_of_refusal(host.img2img(**animate(), **IMG2IMG, **script))
        assert text.startswith(f"The script “{name}” ") and text.endswith(
            "Choose None under Script, or switch AnimateDiff off."
        )
        np.testing.assert_array_equal(frames_of(host.txt2img()), before)
        assert host.img2img(**IMG2IMG, **script).ok, "without AnimateDiff"
        assert len(frames_of(host.img2img(**animate(), **IMG2IMG))) == FRAMES

    @pytest.mark.webui_only("the embedded host has none of the WebUI's own scripts")
    def test_prompts_from_a_textbox_make_one_video_each(self, host):
        script = {"script_name": "prompts from file or textbox", "script_args": [False, False, "start", "a dog\na bird"]}
        answer = host.txt2img(**animate(format=["GIF"]), **script, override_settings={"return_grid": False})
        assert [file.n_frames for file in files_of(answer)][-2:] == [FRAMES, FRAMES]  # after a grid, in Forge


class TestSampling:
    def test_a_sampler_that_never_calls_the_unet_is_refused(self, host, bypass):
        bypass("sampler")
        text = text_of_refusal(host.txt2img(**animate(format=["GIF"])))
        assert text.startswith("A sampler ran without the motion module. Another extension, or this WebUI itself, samples")

    @pytest.mark.parametrize(("step", "without"), [(1, 4), (4, 1)])
    def test_another_unet_in_the_middle_is_refused(self, host, bypass, step, without):
        bypass("unet", step)
        text = text_of_refusal(host.txt2img(**animate()))
        assert text.startswith(f"The motion module did not act on every frame in {without} of 4 sampling steps.")

    def test_another_unet_in_the_second_video_or_in_the_hires_pass_is_refused(self, host, bypass):
        hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6}
        for request in ({"n_iter": 2}, hires):
            bypass("unet", 6)
            assert "did not act" in text_of_refusal(host.txt2img(**animate(), **request))

    def test_nothing_is_resumed_from_frames_without_motion(self, host, bypass):
        request = {**animate(video_length=8, batch_size=4, overlap=2), "seed": 71}
        bypass("unet", 3)
        assert "did not act" in text_of_refusal(host.txt2img(**request))
        bypass(None)
        assert host.get("/animatediff/v1/unfinished").json() == []
        assert "AnimateDiff went on after" not in info_of(host.txt2img(**request))["extra_generation_params"]

    @pytest.mark.parametrize(
        "args",
        [
            {"motion_effect": 0},
            {"motion_start": 0.9, "motion_end": 0.95},
            {"motion_rules": "down: effect 0\nmid: effect 0\nup: effect 0"},
            {"freeinit_enable": True, "freeinit_iters": 2},
            {"video_length": 8, "batch_size": 4, "overlap": 2},
        ],
        ids=str,
    )
    def test_strength_windows_and_rounds_are_no_hindrance(self, host, args):
        frames = args.get("video_length", FRAMES)
        assert len(frames_of(host.txt2img(**animate(**args), steps=2))) == frames

    @pytest.mark.webui_only("the embedded host does not merge tokens")
    @pytest.mark.not_on(("Neo",), "merging tokens fails there, also in plain pictures: “randint() received …”")
    def test_merged_tokens_are_no_hindrance(self, host):
        merged = {"override_settings": {"token_merging_ratio": 0.5}}
        frames = frames_of(host.txt2img(**animate(), **merged))
        assert len(frames) == FRAMES and difference(frames, frames_of(host.txt2img(**animate()))) > 3

    def test_a_sampler_that_takes_no_step_has_nothing_to_move(self, host):
        """DDIM announces one step more than it takes, in img2img two."""
        assert len(frames_of(host.txt2img(**animate(), sampler_name="DDIM", steps=1))) == FRAMES
        from_picture = {**IMG2IMG, "denoising_strength": 0.5, "sampler_name": "DDIM"}
        for steps in (2, 3):
            assert len(frames_of(host.img2img(**animate(), **from_picture, steps=steps))) == FRAMES

    @pytest.mark.parametrize("how", ["interrupt", "skip"])
    def test_an_interrupt_at_the_first_step_is_no_hindrance(self, host, how):
        host.post("/probe/v1/interrupt-at", {"step": 1, "how": how})
        assert len(frames_of(host.txt2img(**animate()))) == FRAMES


class TestWrappedBlocks:
    @pytest.fixture
    def wrap(self, host):
        yield lambda how: host.post("/probe/v1/wrap-block", {"how": how}).raise_for_status()
        host.post("/probe/v1/wrap-block", {"how": None}).raise_for_status()

    @pytest.mark.parametrize(
        "args", [{}, {"video_length": 8, "batch_size": 4, "overlap": 2, "windows": "motion attention", "offload": True}]
    )
    @pytest.mark.not_on(("reForge",), "its UNet takes no module around a block, also for plain pictures")
    def test_motion_layers_act_inside_a_module_that_another_extension_left(self, host, wrap, args):
        expected = frames_of(host.txt2img(**animate(**args)))
        wrap("around")
        assert difference(frames_of(host.txt2img(**animate(**args))), expected) == 0

    def test_a_module_in_place_of_a_block_is_named(self, host, wrap):
        wrap("in place")
        text = text_of_refusal(host.txt2img(**animate()))
        assert text.startswith("A module Scaler of webui_probe.bypass is in the UNet's input_blocks")
