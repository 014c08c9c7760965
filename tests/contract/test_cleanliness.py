"""AnimateDiff that is off changes nothing, and after any job the host is as it was before."""

from __future__ import annotations

import numpy as np
import pytest

from support import checkpoint_pairs
from support.animation import FRAMES, animate, frames_of, recording
from support.pictures import decode, encode, gradient, mean_difference, pictures_of

NO_GRIDS = pytest.mark.not_on(("Neo",), "its API saves no grid: “Invalid quality setting”, also of plain pictures")
LOOPBACK = {"script_name": "loopback", "script_args": [3, 0.5, "Linear", "None"]}
SEEDS = {
    "script_name": "x/y/z plot",
    "script_args": [1, "1,2,3", [], 0, "", [], 0, "", [], True, True, False, False, False, False, False, 0, False],
}


def state(host):
    return host.get("/probe/v1/state").json()


def stills(server):
    """Plain images that would show any trace: with two samplers, since v1's norms and the noise schedule affect both."""
    return [pictures_of(server.txt2img(sampler_name=sampler, batch_size=2)) for sampler in ("Euler a", "DDIM")]


@pytest.fixture(scope="module")
def untouched(plain_host):
    """The same plain images from a host without the extension."""
    return stills(plain_host)


@pytest.fixture
def clean(host, untouched):
    """Checks after the test that it left nothing behind."""
    before = state(host)
    yield
    assert np.array_equal(stills(host), untouched)
    assert state(host) == before
    assert before["unet"]["forward_hooks"] == before["unet"]["forward_pre_hooks"] == 0
    assert before["unet"]["instance_forwards"] == []
    assert before["patched_functions"] == before["patched_methods"] == []


@pytest.mark.usefixtures("clean")
class TestNothingIsLeft:
    @pytest.mark.parametrize("off", [{}, {"alwayson_scripts": {"AnimateDiff": {"args": [False]}}}], ids=["absent", "false"])
    def test_with_the_panel_closed(self, host, off):
        assert host.txt2img(**off).ok

    @pytest.mark.parametrize("family", ["v1", "v2", "v3"])
    def test_after_an_animation(self, host, family):
        frames_of(host.txt2img(**animate(family)))

    @pytest.mark.parametrize("family", ["v1", "v3"])
    def test_after_an_exception_in_the_unet(self, host, family):
        host.post("/probe/v1/fault", {"step": 2})
        answer = host.txt2img(**animate(family))
        assert answer.status_code == 500 and "probe fault" in answer.text

    def test_after_an_exception_in_the_hires_pass(self, host):
        host.post("/probe/v1/fault", {"step": 6})
        hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.6}
        assert host.txt2img(**animate("v1"), **hires).status_code == 500

    def test_after_an_exception_in_img2img(self, host):
        host.post("/probe/v1/fault", {"step": 1})
        answer = host.img2img(**animate("v1"), init_images=[encode(gradient())], denoising_strength=0.5)
        assert answer.status_code == 500

    @pytest.mark.parametrize("how", ["interrupt", "skip"])
    def test_after_interrupt_and_skip(self, host, how):
        host.post("/probe/v1/interrupt-at", {"step": 2, "how": how})
        assert len(frames_of(host.txt2img(**animate("v1")))) == FRAMES

    def test_after_a_refusal(self, host):
        assert host.txt2img(**animate(fps=-1)).status_code == 422

    @pytest.mark.not_on(("Neo", "reForge"), "the refiner is a model of its own, which the probe does not break")
    def test_after_an_exception_after_the_refiner_took_over(self, host):
        request = {"refiner_checkpoint": "tiny-swap.ckpt", "refiner_switch_at": 0.3}
        checkpoint = {"override_settings": {"sd_model_checkpoint": "tiny-swap.safetensors"}}
        assert host.txt2img(**checkpoint, steps=1).ok  # load it now, so that the probe patches the model that will run
        host.post("/probe/v1/fault", {"step": 4})
        assert host.txt2img(**animate("v1"), **request, **checkpoint).status_code == 500


@pytest.mark.parametrize(("loaded", "asked"), checkpoint_pairs.PAIRS)
def test_an_overridden_checkpoint_is_loaded_completely(host, weights, loaded, asked):
    host.post("/sdapi/v1/options", {"sd_model_checkpoint": loaded})
    override = {"override_settings": {"sd_model_checkpoint": asked}, "override_settings_restore_afterwards": False}
    try:
        before = frames_of(host.txt2img(**animate("v1")))
        after = frames_of(host.txt2img(**animate("v1"), **override))
        assert mean_difference(before, after) > 3
        file = weights / "checkpoints" / asked
        from_file = host.get("/probe/v1/checkpoint-digest", params={"file": str(file)}).json()
        assert host.get("/probe/v1/unet-digest").json() == from_file
    finally:
        host.post("/sdapi/v1/options", {"sd_model_checkpoint": "tiny-a.safetensors"})


@pytest.mark.parametrize("at", ["process_before_every_sampling", "postprocess_image", "postprocess_batch"])
def test_a_copy_generated_during_a_job_is_a_plain_image(host, at):
    expected = frames_of(host.txt2img(**animate("v1")))
    host.post("/probe/v1/nested", {"at": at})
    host.txt2img()
    plain = host.get("/probe/v1/nested").json()
    host.post("/probe/v1/nested", {"at": at})
    with recording(host) as record:
        frames = frames_of(host.txt2img(**animate("v1")))
    nested = host.get("/probe/v1/nested").json()
    assert nested["error"] is None
    assert nested == plain, "the nested image is what it would be without AnimateDiff around it"
    assert np.array_equal(frames, expected)
    assert len(record["sampler_runs"]) == 2


def test_a_copy_that_fails_during_a_job_does_not_affect_the_animation(host):
    expected = frames_of(host.txt2img(**animate("v1")))
    host.post("/probe/v1/nested", {"at": "process_before_every_sampling"})
    host.post("/probe/v1/fault", {"step": 1})  # the first UNet call is the copy's
    assert np.array_equal(frames_of(host.txt2img(**animate("v1"))), expected)
    assert "probe fault" in host.get("/probe/v1/nested").json()["error"]


def test_postprocess_with_an_empty_result_loses_no_frames(host):
    expected = frames_of(host.txt2img(**animate()))
    host.post("/probe/v1/nested", {"at": "postprocess_image", "mode": "postprocess"})
    assert np.array_equal(frames_of(host.txt2img(**animate())), expected)
    assert host.get("/probe/v1/nested").json()["error"] is None


@NO_GRIDS
@pytest.mark.webui_only("the embedded host has none of the WebUI's own scripts")
def test_loopback_makes_one_video_after_another(host):
    start = {"init_images": [encode(gradient())], "denoising_strength": 0.5}
    with recording(host) as record:
        answer = host.img2img(**animate(format=["GIF"]), **LOOPBACK, **start)
    videos = [np.stack(decode(text)) for text in answer.json()["images"][-3:]]  # before them comes Loopback's own grid
    assert [len(video) for video in videos] == [FRAMES] * 3
    assert not np.array_equal(videos[0], videos[1]) and not np.array_equal(videos[1], videos[2])
    assert len(record["sampler_runs"]) == 3
    assert {call["rows"] for run in record["sampler_runs"] for call in run["denoiser_calls"]} == {FRAMES}


@pytest.mark.webui_only("the embedded host has none of the WebUI's own scripts")
@pytest.mark.not_on(("reForge",), "its X/Y/Z plot has other arguments")
@NO_GRIDS
def test_xyz_over_seeds_is_the_same_as_each_alone(host):
    answer = host.txt2img(**animate(), **SEEDS)
    cells = answer.json()["images"][-3:]
    for seed, cell in zip((1, 2, 3), cells):
        alone = host.txt2img(**animate(), seed=seed).json()["images"][0]
        assert np.array_equal(decode(cell), decode(alone))
