"""Extensions that act between `init` and sampling: they build the sampler anew, or generate something of their own."""

from __future__ import annotations

import pytest

from support.animation import animate, difference, frames_of
from support.pictures import encode, gradient
from support.server import PROBE, REPOSITORY

STAND_IN = """
import gradio as gr
from modules import processing, scripts, sd_samplers, shared


class Between(scripts.Script):
    def title(self):
        return "Between"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox("", label="what it does")]

    def process_batch(self, p, what, **of_webui):
        if "generate" in what:
            small = dict(width=64, height=64, steps=2, seed=1, prompt="a dog", do_not_save_samples=True)
            processing.process_images(processing.StableDiffusionProcessingTxt2Img(sd_model=shared.sd_model, **small))
        if "sampler" in what:
            p.sampler = sd_samplers.create_sampler(p.sampler_name, shared.sd_model)
"""
START = {"init_images": [encode(gradient())], "denoising_strength": 0.6, "steps": 4}


@pytest.fixture(scope="module")
def host(start_host, tmp_path_factory):
    scripts = tmp_path_factory.mktemp("neighbour") / "scripts"
    scripts.mkdir()
    (scripts / "between.py").write_text(STAND_IN)
    return start_host(extensions=[REPOSITORY, PROBE, scripts.parent])


def frames(host, what, videos):
    request = {**animate("v2"), "n_iter": videos}
    request["alwayson_scripts"]["Between"] = {"args": [what]}
    return frames_of(host.img2img(**request, **START))


@pytest.mark.parametrize("what", ["sampler", "generate, sampler"])
@pytest.mark.parametrize("videos", [1, 2])
def test_a_sampler_that_is_built_between_them_has_the_schedule_of_the_motion_module(host, what, videos):
    """Within one level: the WebUI does not seed the noise of the VAE's encoder. With the checkpoint's schedule it is 53."""
    plain = frames_of(host.img2img(**START))
    assert difference(frames(host, what, videos), frames(host, "", videos)) <= 1
    assert difference(frames_of(host.img2img(**START)), plain) <= 1
