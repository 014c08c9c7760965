"""An extension that counts rows and calls of the UNet, as Regional Prompter and NegPiP do, in the form of a stand-in."""

from __future__ import annotations

import pytest

from support.animation import animate, difference, frames_of
from support.server import PROBE, REPOSITORY

STAND_IN = """
import gradio as gr
import torch
from modules import script_callbacks, scripts, shared

calls = 0
counting = []


def begin_step(params):
    global calls
    calls = 0
    for script in counting:
        script.count = 0


script_callbacks.on_cfg_denoiser(begin_step)


class Counting(scripts.Script):
    batch_size = batch = count = 0
    of_frames = []

    def title(self):
        return "Counting"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Checkbox(False, label="acts")]

    def process(self, p, acts):
        self.batch_size = self.batch = p.batch_size
        self.of_frames = [None, torch.linspace(-1, 1, p.batch_size).view(-1, 1, 1)]
        held = getattr(shared.sd_model, "forge_objects", None)
        unet = held.unet.model.diffusion_model if held else shared.sd_model.model.diffusion_model
        for name, part in unet.named_modules():
            if name.endswith("attn2"):
                vars(part).pop("forward", None)
                if acts:
                    part.forward = self.counting(part.forward)
        counting[:] = [self]

    def counting(self, attend):
        def forward(x, *args, **kwargs):
            global calls
            if len(x) != 2 * self.batch_size or self.batch != self.batch_size:
                raise RuntimeError(f"{len(x)} rows, not twice {self.batch_size} and {self.batch}")
            self.count, calls = self.count + 1, calls + 1
            first, second = attend(x, *args, **kwargs).chunk(2)
            return torch.cat([first + 0.006 * (self.count + calls) * self.of_frames[1], second])

        return forward
"""
LONG = {"video_length": 24, "batch_size": 8, "motion_effect": 0}


@pytest.fixture(scope="module")
def host(start_host, tmp_path_factory):
    scripts = tmp_path_factory.mktemp("neighbour") / "scripts"
    scripts.mkdir()
    (scripts / "counting.py").write_text(STAND_IN)
    return start_host(extensions=[REPOSITORY, PROBE, scripts.parent])


def clip(host, *, acts, **args):
    request = animate(**{**LONG, **args})
    request["alwayson_scripts"]["Counting"] = {"args": [acts]}
    return frames_of(host.txt2img(**request, steps=2))


@pytest.fixture(scope="module")
def together(host):
    """All frames in one call: what the extension does to a plain batch."""
    return clip(host, acts=True, context_mode="motion attention")


def test_windows_over_the_whole_unet_are_to_it_what_plain_batches_are(host, together):
    assert difference(clip(host, acts=True), together) <= 1
    assert difference(clip(host, acts=False), together) >= 10, "it acts"


def test_layers_that_wait_in_ram_give_it_all_rows(host, together):
    assert difference(clip(host, acts=True, context_mode="motion attention", offload=True), together) <= 1
