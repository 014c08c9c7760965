"""Each family in LDM's UNet, compared with an independent implementation in five dimensions."""

import pytest
import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file

from motion_module.attach import attached
from motion_module.checkpoint import load
from motion_module.convert import convert_file
from motion_module.image_encoder import ImageFeatures
from motion_module.motion_layers import Motion
from motion_module.pia import ConditionImage, similarity
from motion_module.row_layout import layout_of_call
from support.authors_unet import AuthorsUNet
from support.published_layouts import FAMILIES, XL_FAMILIES, in_hotshots_layout, module_weights, with_tables

FRAMES, SIZE, TOKENS = 5, 8, 7
TOLERANCE = 1e-5
HEAD_WIDTH = 16
"""The channels of the small model with the layers of SDXL."""


@pytest.fixture(scope="module")
def unet():
    return image_model(attention_resolutions=[4, 2, 1], channel_mult=[1, 2, 4, 4], num_heads=8, transformer_depth=1)


@pytest.fixture(scope="module")
def xl_unet():
    """A UNet like SDXL's, as far as LDM allows. Tests in the live WebUI have several transformers and the label embedding."""
    attention = {"attention_resolutions": [4, 2], "transformer_depth": 1, "use_linear_in_transformer": True}
    return image_model(channel_mult=[1, 2, 4], num_head_channels=HEAD_WIDTH, **attention)


def image_model(**layout):
    torch.manual_seed(0)
    unet = UNetModel(
        image_size=8, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=2, use_spatial_transformer=True,
        context_dim=24, use_checkpoint=False, legacy=False, **layout,
    )  # fmt: skip
    for weight in unet.parameters():  # LDM starts some layers at zero, which would hide what comes before them
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return unet.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def case(unet, xl_unet, tmp_path_factory, request):
    """A family's motion module, the authors' UNet with the same weights, and inputs for both."""
    return Case(xl_unet if request.param in XL_FAMILIES else unet, tmp_path_factory.mktemp("family"), request.param)


class Case:
    def __init__(self, unet, folder, family):
        self.unet, self.facts = unet, ALL[family]
        torch.manual_seed(1)
        weights = module_weights(family)
        path = folder / f"{self.facts.name}.safetensors"
        save_file(in_hotshots_layout(weights) if family == "hotshot" else weights, path)
        self.description, self.module = load(path)
        authors = dict(unet.state_dict())
        self.picture = None
        self.latents = torch.randn(1, 4, SIZE, SIZE) if self.facts.encodes_image else None
        if self.facts.takes_image:
            kernel = torch.cat([authors["input_blocks.0.0.weight"], weights["conv_in.weight"][:, 4:]], dim=1)
            authors["input_blocks.0.0.weight"] = kernel
            self.picture = ConditionImage(torch.randn(1, 4, SIZE, SIZE), similarity("large motion", FRAMES))
        norms = {"over_frames": self.facts.over_frames, "motion_over_frames": self.facts.motion_over_frames}
        head_width = HEAD_WIDTH if family in XL_FAMILIES else None
        self.authors = AuthorsUNet(authors, with_tables(weights), head_width=head_width, picture=self.latents, **norms)

    def inputs(self, clips):
        """Returns noise and text of clips, `(clips, frames, …)`. Each frame has its own text."""
        torch.manual_seed(2)
        return torch.randn(clips, FRAMES, 4, SIZE, SIZE), torch.randn(clips, FRAMES, TOKENS, 24)

    def expected(self, x, context, timestep=500):
        x = x.transpose(1, 2)
        if self.picture is not None:
            mask = torch.tensor(self.picture.similarity)[None, None, :, None, None].expand(len(x), 1, FRAMES, SIZE, SIZE)
            latents = self.picture.latents[:, :, None].expand(len(x), 4, FRAMES, SIZE, SIZE)
            x = torch.cat([x, mask, latents], dim=1)
        return self.authors(x, timestep, context).transpose(1, 2)

    def ours(self, rows, context, parts=1, timestep=500):
        """Returns the results of one UNet call for each batch of rows."""
        layout_of = lambda count: layout_of_call(count, FRAMES, parts)  # noqa: E731
        encoder = self.module.image_encoder
        motion = Motion(self.module, image=ImageFeatures(encoder, self.latents) if encoder else None)
        with attached(self.unet, motion, self.description.family, layout_of, self.picture):
            return [self.unet(x, torch.full((len(x),), timestep), y) for x, y in zip(rows, context)]


ALL = {**FAMILIES, **XL_FAMILIES}
every_family = pytest.mark.parametrize("case", ALL, indirect=True)


@every_family
@pytest.mark.parametrize("clips", [1, 2])
def test_clips_in_one_call(case, clips):
    x, context = case.inputs(clips)
    (ours,) = case.ours([x.flatten(0, 1)], [context.flatten(0, 1)])
    expected = case.expected(x, context)
    assert expected.std() > 0.1
    assert (ours.view_as(expected) - expected).abs().max() < TOLERANCE


@every_family
def test_conditions_in_separate_calls(case):
    x, context = case.inputs(2)
    ours = torch.stack(case.ours(x, context))
    assert (ours - case.expected(x, context)).abs().max() < TOLERANCE


@every_family
@pytest.mark.parametrize("split", [False, True])
def test_prompt_parts_joined_by_and(case, split):
    """Two prompt parts, frame by frame, then the negative prompt in the same call or in another."""
    x, context = case.inputs(3)
    expected = case.expected(x, context)
    order = [(part, frame) for frame in range(FRAMES) for part in range(2)]
    prompt = [torch.stack([values[part, frame] for part, frame in order]) for values in (x, context)]
    if split:
        first, negative = case.ours([prompt[0], x[2]], [prompt[1], context[2]], parts=2)
        ours = torch.cat([first, negative])
    else:
        rows = [torch.cat([values, rest]) for values, rest in zip(prompt, (x[2], context[2]))]
        (ours,) = case.ours([rows[0]], [rows[1]], parts=2)
    wanted = torch.stack([expected[part, frame] for part, frame in order] + list(expected[2]))
    assert (ours - wanted).abs().max() < TOLERANCE


@every_family
def test_the_family_is_identified_and_has_the_authors_facts(case):
    family = case.description.family
    assert case.facts is ALL[family.key]
    assert (family.base == "SDXL") == (family.key in XL_FAMILIES)
    assert (family.unet_norms == "over frames") == case.facts.over_frames
    assert (family.motion_norms == "over frames") == case.facts.motion_over_frames
    assert family.frames == case.facts.frames
    assert family.takes_image == (case.facts.takes_image or case.facts.encodes_image)
    assert family.encodes_image == case.facts.encodes_image == (case.module.image_encoder is not None)
    assert (case.module.condition_kernel is not None) == case.facts.takes_image
    assert case.module.length == (case.facts.positions or 64)


@pytest.mark.parametrize("case", ["v2", "v3", "long-32", "long-64", "lcm", "lightning-4"], indirect=True)
def test_diffusers_agrees_once_its_motion_norm_is_per_frame(case, unet, tmp_path):
    """diffusers' motion layers take the statistics of their norm over all frames, for every family. The authors do so for SDXL
    alone, so here each frame is normed by itself. v1 and PIA are left out: diffusers has no norms over frames in ResBlocks.
    """
    diffusers = pytest.importorskip("diffusers", reason="the WebUI's own environment has no diffusers")
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = {"block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 24, "attention_head_dim": 8, "sample_size": SIZE}
    picture_model = diffusers.UNet2DConditionModel(**config)
    ldm = {f"model.diffusion_model.{key}": value for key, value in unet.state_dict().items()}
    picture_model.load_state_dict(convert_ldm_unet_checkpoint(ldm, {"layers_per_block": 2, **picture_model.config}))
    convert_file(case.description.path, tmp_path / "adapter", "diffusers")
    model = diffusers.UNetMotionModel.from_unet2d(picture_model, diffusers.MotionAdapter.from_pretrained(tmp_path / "adapter"))
    for name, layer in model.named_modules():
        if "motion_modules" in name and isinstance(layer, torch.nn.GroupNorm):
            layer.__class__ = NormOfEachFrame
    x, context = case.inputs(2)
    with torch.no_grad():
        theirs = model(x.transpose(1, 2), 500, context.flatten(0, 1)).sample.transpose(1, 2)
    (ours,) = case.ours([x.flatten(0, 1)], [context.flatten(0, 1)])
    assert (ours.view_as(theirs) - theirs).abs().max() < TOLERANCE


class NormOfEachFrame(torch.nn.GroupNorm):
    def forward(self, clips):
        frames = clips.transpose(1, 2)
        return super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)
