"""Regional Prompter, in the form of a stand-in: its attention in the UNet tells conditions apart by the number of rows."""

from __future__ import annotations

import pytest

from support.animation import animate, frames_of
from support.server import PROBE, REPOSITORY

STAND_IN = """
import gradio as gr
from modules import scripts, shared


class RegionalPrompter(scripts.Script):
    active = hooked = False

    def title(self):
        return "Regional Prompter"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox("", label="Attention or Latent")]

    def process(self, p, how):
        self.active, self.hooked, self.frames = bool(how), how == "Attention", p.batch_size
        for name, part in shared.sd_model.model.diffusion_model.named_modules():
            if name.endswith("attn2"):
                vars(part).pop("forward", None)
                if self.hooked:
                    part.forward = self.counting(part.forward)

    def counting(self, attend):
        def forward(x, *args, **kwargs):
            if len(x) not in (self.frames, 2 * self.frames):
                raise RuntimeError(f"{len(x)} rows")
            return attend(x, *args, **kwargs)

        return forward
"""
LONG = {"video_length": 24, "batch_size": 8}


@pytest.fixture(scope="module")
def host(start_host, tmp_path_factory):
    scripts = tmp_path_factory.mktemp("neighbour") / "scripts"
    scripts.mkdir()
    (scripts / "regions.py").write_text(STAND_IN)
    return start_host(extensions=[REPOSITORY, PROBE, scripts.parent])


def clip(host, how, **args):
    request = animate(**args)
    request["alwayson_scripts"]["Regional Prompter"] = {"args": [how]}
    return host.txt2img(**request, steps=2)


def test_windows_over_the_whole_unet_are_refused(host):
    answer = clip(host, "Attention", **LONG)
    assert answer.status_code == 422
    assert "Regional Prompter needs all 24 frames" in answer.json()["detail"] and "motion attention" in answer.json()["detail"]


@pytest.mark.parametrize("offload", [False, True])
def test_windows_in_the_motion_attention_give_it_all_rows(host, offload):
    answer = clip(host, "Attention", **LONG, context_mode="motion attention", offload=offload)
    assert len(frames_of(answer)) == 24


def test_what_it_does_not_need_the_rows_for_is_not_refused(host):
    for how, args in (("Attention", {"video_length": 8}), ("Latent", LONG), ("", LONG)):
        assert len(frames_of(clip(host, how, **args))) == args["video_length"]
