"""A CFG scale for each frame, in both ways in which WebUIs combine a prompt with its negative prompt."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 4
SCALES = (7.0, 1.0, 2.5, 0.0)


@pytest.fixture(autouse=True)
def _a_webui(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo" / "host" / "webui"))  # for its `modules`


def frames(seed):
    return torch.randn(FRAMES, 4, 3, 2, generator=torch.Generator().manual_seed(seed))


def each_by_its_own(combine):
    """Returns the frames of several runs, of each run the one whose scale it has."""
    return torch.stack([combine(scale)[frame] for frame, scale in enumerate(SCALES)])


def test_a_webui_with_scale_1_gets_another_at_which_it_reads_the_negative_prompt():
    from animatediff.job.frame_guidance import FrameGuidance

    p = SimpleNamespace(cfg_scale=1.0, hr_cfg=5.0)
    FrameGuidance(p, (0.0, 0.9999999999999999, 49.0)).give()
    assert (p.cfg_scale, p.hr_cfg) == (2.0, 5.0)


class Combining:
    """AUTOMATIC1111's denoiser, as far as it combines. Rows are frame by frame all parts, then the negative prompts."""

    cond_scale_miltiplier = 1.0
    image_cfg_scale = 1.5

    def combine_denoised(self, x_out, conds_list, uncond, cond_scale):
        negative = x_out[-len(uncond) :]
        added = [
            sum((x_out[row] - negative[frame]) * (weight * cond_scale) for row, weight in of)
            for frame, of in enumerate(conds_list)
        ]
        return negative + torch.stack(added)

    def combine_denoised_for_edit_model(self, x_out, cond_scale):
        text, image, neither = x_out.chunk(3)
        return neither + cond_scale * (text - image) + self.image_cfg_scale * (image - neither)


@pytest.fixture
def ldm():
    from animatediff.host.ldm import Ldm

    return Ldm()


@pytest.mark.parametrize("multiplier", [1.0, 0.08])
def test_weights_of_parts_have_the_scale_of_their_frame(ldm, multiplier):
    denoiser, uncond = Combining(), torch.zeros(FRAMES, 77, 8)
    denoiser.cond_scale_miltiplier = multiplier
    rows = torch.cat([frames(0), frames(1), frames(2)])
    parts = [[(2 * frame, 1.0), (2 * frame + 1, 0.6)] for frame in range(FRAMES)]
    expected = each_by_its_own(lambda scale: denoiser.combine_denoised(rows, parts, uncond, scale * multiplier))
    alone = denoiser.combine_denoised(rows, parts, uncond, 1.0)
    with ldm.guidance(None, denoiser, SCALES):
        assert torch.allclose(denoiser.combine_denoised(rows, parts, uncond, 5 * multiplier), expected, atol=1e-6, rtol=0)
        assert torch.equal(denoiser.combine_denoised(rows, parts, uncond, 1.0), alone), "a step without negative prompt"
    assert vars(denoiser) == {"cond_scale_miltiplier": multiplier}


def test_frames_of_instruct_pix2pix_have_their_scale(ldm):
    denoiser, rows = Combining(), torch.cat([frames(0), frames(1), frames(2)])
    expected = each_by_its_own(lambda scale: denoiser.combine_denoised_for_edit_model(rows, scale))
    with ldm.guidance(None, denoiser, SCALES):
        assert torch.equal(denoiser.combine_denoised_for_edit_model(rows, 5.0), expected)


class Patcher:
    """What Forge and reForge do with their modifiers and a scale in a step."""

    def __init__(self):
        self.model_options = {"conditioning_modifiers": [self.another]}

    def another(self, *arguments):
        return arguments

    def step(self, cond_scale, strengths=(1.0,)):
        cond = [{"strength": strength} for strength in strengths]
        arguments = ("model", frames(3), "timestep", ["uncond"], cond, cond_scale, self.model_options, 0)
        for modifier in self.model_options["conditioning_modifiers"]:
            arguments = modifier(*arguments)
        cond_scale, edit_strength = arguments[5], sum(part["strength"] for part in arguments[4])
        prompt, negative = frames(0), torch.zeros(1) if math.isclose(cond_scale, 1.0) else frames(1)
        if not math.isclose(edit_strength, 1.0):
            return negative + (prompt - negative) * cond_scale * edit_strength
        return negative + (prompt - negative) * cond_scale


@pytest.mark.parametrize("strengths", [(1.0,), (1.0, 0.6)])
def test_the_scale_is_one_for_each_frame(strengths):
    from animatediff.host.unet_patcher import UNetPatcherHost

    unet = Patcher()
    model, before = SimpleNamespace(forge_objects=SimpleNamespace(unet=unet)), dict(unet.model_options)
    negative, prompt, edit = frames(1), frames(0), sum(strengths)
    expected = each_by_its_own(lambda scale: negative + (prompt - negative) * scale * (edit if edit != 1 else 1))
    with UNetPatcherHost().guidance(model, None, SCALES):
        found = unet.step(5.0, strengths)
        assert torch.equal(found, expected) and type(found) is torch.Tensor
        assert torch.equal(unet.step(1.0, strengths), prompt * (edit if edit != 1 else 1)), "a step without negative prompt"
    assert unet.model_options == before
