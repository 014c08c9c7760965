"""Every kind of file, through the API: frames equal those of the authors' UNet, with the same sampler."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from motion_module.pia import similarity
from support.animation import animate, difference, frames_of, info_of
from support.pictures import encode, gradient, mean_difference
from support.published_layouts import FAMILIES, in_diffusers_layout, module_weights
from support.server import PROBE, REPOSITORY
from support.strange_files import write_strange_files

FRAMES = 4
JOB = {"steps": 3, "negative_prompt": "bad"}
LIMIT = 2
"""The largest difference allowed, in levels of 255."""
POWER = 10
RANK = 4

F16, BF16, F8 = torch.float16, torch.bfloat16, torch.float8_e4m3fn
# file name: family, number format, file layout
KINDS = {
    **{f"{facts.name}-{family}.safetensors": (family, torch.float32, "original") for family, facts in FAMILIES.items()},
    "v1-half.ckpt": ("v1", F16, "original"),
    "v2-brain.safetensors": ("v2", BF16, "original"),
    "v2-eight-bits.safetensors": ("v2", F8, "original"),
    "v3-distributed.ckpt": ("v3", torch.float32, "module."),
    "v3-nested.pth": ("v3", torch.float32, "state_dict"),
    "v2-whole-unet.ckpt": ("v2", torch.float32, "whole UNet"),
    "v1-for-diffusers.safetensors": ("v1", torch.float32, "diffusers"),
    "lightning-4step-diffusers.safetensors": ("lightning-4", F16, "diffusers"),
    "adapter-v3/diffusion_pytorch_model.safetensors": ("v3", F16, "diffusers"),
    "AnimateLCM/diffusion_pytorch_model.fp16.safetensors": ("lcm", F16, "diffusers"),
    "adapter-pia/diffusion_pytorch_model.bin": ("pia", torch.float32, "diffusers"),
}
ON_BOTH_HOSTS = [
    name for name, (family, dtype, how) in KINDS.items() if how == "original" and family in ("v1", "v3", "lcm", "lcm-i2v")
]
at_length = pytest.mark.webui_only("outside the WebUI three kinds of files are enough")


def weights_of(family, dtype):
    torch.manual_seed(list(FAMILIES).index(family))
    weights = module_weights(family)
    for key, value in weights.items():  # random layers change much, where trained ones each change a little
        if "proj_out" in key:
            weights[key] = value * 0.5
    return {key: value.to(dtype) for key, value in weights.items()}


def save(path, weights, how):
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "diffusers":
        weights = in_diffusers_layout(weights)
        config = {"_class_name": "MotionAdapter", "motion_max_seq_length": 32}
        (path.parent / "config.json").write_text(json.dumps(config))
    if how in ("module.", "whole UNet"):
        weights = {f"module.{key}": value for key, value in weights.items()}
    if how == "whole UNet":
        weights |= {
            "module.conv_in.weight": torch.zeros(32, 4, 3, 3),
            "module.down_blocks.0.resnets.0.norm1.bias": torch.zeros(32),
        }
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights, "epoch": 1} if how != "original" else weights, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for name, (family, dtype, how) in KINDS.items():
        weights = weights_of(family, dtype)
        save(folder / "motion" / name, weights, how)
        save(folder / "authors" / name.replace("/", "-"), weights, "original")
        save_file({key: value.float() for key, value in weights.items()}, reference_of(folder, name))
    return folder


def reference_of(folder, name):
    path = folder / "authors" / (name.replace("/", "-") + ".safetensors")
    path.parent.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="module")
def server(start_host, folder, loras):
    server = start_host(
        extensions=[REPOSITORY, PROBE],
        options={"animatediff_model_path": str(folder / "motion")},
        extra_args=["--lora-dir", str(folder / "lora")],
    )
    yield server
    server.stop()


@pytest.fixture
def expected(server, folder):
    """Returns the frames of a request from the authors' UNet, without the extension."""

    def run(name, family, mask=None, loras=None, **request):
        facts = FAMILIES[family]
        body = {"module": str(reference_of(folder, name)), "frames": FRAMES, "over_frames": facts.over_frames}
        if facts.encodes_image:
            body |= {"shows_picture": True, "betas": "straight to 0.014"}
        assert server.post("/probe/v1/reference", {**body, "mask": mask, "loras": loras or {}}).ok
        method = server.img2img if "init_images" in request else server.txt2img
        try:
            return frames_of(method(batch_size=FRAMES, override_settings={"return_grid": False}, **request))
        finally:
            assert server.post("/probe/v1/reference", {}).ok

    return run


def ours(server, name, **request):
    args = request.pop("args", {})
    method = server.img2img if "init_images" in request else server.txt2img
    return frames_of(method(**animate(model=name, video_length=FRAMES, **args), **request))


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ON_BOTH_HOSTS else at_length) for name in KINDS])
def test_frames_equal_those_of_the_authors_unet(server, folder, expected, name):
    family = KINDS[name][0]
    if FAMILIES[family].starts_from_image:  # at strength 1 it starts from noise alone, like a clip from text
        picture = {"init_images": [encode(gradient())], "denoising_strength": 1.0}
        frames = ours(server, name, args={"pia_motion": "large motion"}, **JOB, **picture)
        mask = similarity("large motion", FRAMES) if FAMILIES[family].takes_image else None
        wanted = expected(name, family, mask, **JOB)
    else:
        frames, wanted = ours(server, name, **JOB), expected(name, family, **JOB)
    assert difference(frames, wanted) <= LIMIT
    assert mean_difference(frames[0], frames[3]) > POWER


def test_another_picture_or_drift_makes_another_clip_of_animatelcm_i2v(server, expected):
    name = f"{FAMILIES['lcm-i2v'].name}-lcm-i2v.safetensors"

    def clip(picture, **args):
        return ours(server, name, args=args, init_images=[encode(picture)], denoising_strength=1.0, **JOB)

    other, drifting = clip(gradient()[::-1, ::-1]), clip(gradient(), image_drift=0)
    right = clip(gradient())
    wanted = expected(name, "lcm-i2v", **JOB)
    assert difference(right, wanted) <= LIMIT
    assert min(difference(other, wanted), difference(drifting, wanted)) >= POWER


@pytest.mark.parametrize("fault", ["no positions", "frames permuted", "schedule of the checkpoint", "norms per frame"])
def test_the_comparison_detects_a_fault(server, expected, fault):
    """Wrong frames must differ by at least ten levels; right ones differ by at most two."""
    name = f"{FAMILIES['v1'].name}-v1.safetensors"
    wanted = expected(name, "v1", **JOB)
    server.post("/probe/v1/break-method", {"how": fault}).raise_for_status()
    try:
        frames = ours(server, name, **JOB)
    finally:
        server.post("/probe/v1/break-method", {"how": None})
    assert difference(frames, wanted) >= POWER


# --- files that are not what they seem ---


def test_each_file_is_described_by_itself(server, folder):
    strange = folder / "motion" / "strange"
    strange.mkdir()
    said = write_strange_files(strange)
    (strange / os.fsdecode(b"not utf-8 \xff.ckpt")).touch()
    began = time.monotonic()
    models = {model["name"]: model for model in server.get("/animatediff/v1/models").json()}
    assert time.monotonic() - began < len(models)  # less than a second each
    for name, text in said.items():
        assert models[f"strange/{name}"]["family"] is None and text in models[f"strange/{name}"]["problem"]
    assert models["strange/not utf-8 ?.ckpt"]["problem"] == "Its name is not UTF-8. Rename the file."
    assert {name for name, model in models.items() if not model["problem"]} == set(KINDS)
    answer = server.txt2img(**animate(model="strange/page.ckpt", video_length=FRAMES), **JOB)
    assert answer.status_code == 422 and "page.ckpt is a web page, not weights" in answer.json()["detail"]
    for name, said in ((300 * "a" + ".ckpt", "is missing. Choose a motion module from"), ("\ud800.ckpt", "half a character")):
        answer = server.txt2img(**animate(model=name, video_length=FRAMES), **JOB)
        assert answer.status_code == 422 and said in answer.json()["detail"]


def test_weights_that_are_not_numbers_are_refused_with_the_key(server, folder):
    weights = weights_of("v3", F16)
    key = next(key for key in weights if key.endswith("proj_out.weight"))
    weights[key][3, 4] = float("nan")
    save_file(weights, folder / "motion" / "diverged-v3.safetensors")
    answer = server.txt2img(**animate(model="diverged-v3.safetensors", video_length=FRAMES), **JOB)
    assert answer.status_code == 422
    assert f"diverged-v3.safetensors cannot be used: {key} contains values that are not numbers" in answer.json()["detail"]
    (folder / "motion" / "diverged-v3.safetensors").unlink()


# --- LoRAs ---

MODULE = "module-v2.safetensors"
TOWER = "down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0."
QUERY = TOWER + "attention_blocks.0.to_q"
MIDDLE = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_out.0"
ADAPTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
IN_LDM = {
    ADAPTED: "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
    "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k": "input_blocks.8.1.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": "middle_block.1.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_v": "output_blocks.5.1.transformer_blocks.0.attn2.to_v",
    "up_blocks.3.attentions.0.transformer_blocks.0.attn2.to_q": "output_blocks.9.1.transformer_blocks.0.attn2.to_q",
}
SIZES = dict(zip([QUERY, MIDDLE, *IN_LDM], [(32, 32), (128, 128), (32, 32), (128, 64), (128, 128), (128, 64), (32, 32)]))
"""The numbers of outputs and inputs. The text embedding is 64 wide."""


def plain(name):
    return (
        name.replace("temporal_transformer.", "").replace("attention_blocks.0", "attn1").replace("attention_blocks.1", "attn2")
    )


def processor(name):
    matrix = name.removesuffix(".0").rsplit(".", 1)
    return f"{matrix[0]}.processor.{matrix[1]}_lora"


LORAS = {
    "official.ckpt": ([QUERY, MIDDLE], processor, ".down.weight", ".up.weight"),
    "diffusers.safetensors": ([QUERY, MIDDLE], lambda name: "unet." + plain(name), ".lora.down.weight", ".lora.up.weight"),
    "peft.safetensors": ([QUERY, MIDDLE], lambda name: "unet." + plain(name), ".lora_A.weight", ".lora_B.weight"),
    "motiondirector.safetensors": (
        [QUERY, MIDDLE],
        lambda name: f"{name[: -len('.0')]}.processor.0_lora" if name.endswith(".0") else processor(name),
        ".down.weight",
        ".up.weight",
    ),
    "kohya.safetensors": (
        [QUERY, MIDDLE],
        lambda name: "lora_unet_" + name.replace(".", "_"),
        ".lora_down.weight",
        ".lora_up.weight",
    ),
    "underscores.safetensors": (
        [QUERY, MIDDLE],
        lambda name: name.replace(".", "_"),
        ".lora_down.weight",
        ".lora_up.weight",
    ),
    "adapter.ckpt": (list(IN_LDM), processor, ".down.weight", ".up.weight"),
}


@pytest.fixture(scope="module")
def loras(folder):
    """The files, and for each the matrices that must be added, by the key of the weight."""
    changes = {}
    for index, (file, (names, key, down_end, up_end)) in enumerate(LORAS.items()):
        torch.manual_seed(index)
        tensors, dense = {}, {}
        for name in names:
            outputs, inputs = SIZES[name]
            down, up = torch.randn(RANK, inputs) / 4, torch.randn(outputs, RANK) / 4
            tensors[key(name) + down_end], tensors[key(name) + up_end] = down, up
            dense[IN_LDM.get(name, name) + ".weight"] = up @ down
        path = folder / "lora" / file
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".ckpt":
            torch.save(tensors, path)
        else:
            save_file(tensors, path, {"sshs_model_hash": "ab" * 32})
        save_file(dense, folder / f"{path.stem}.dense.safetensors")
        changes[path.stem] = dense
    return changes


def dense(folder, name):
    return str(folder / f"{name}.dense.safetensors")


@pytest.mark.parametrize("name", [file.split(".")[0] for file in LORAS])
def test_a_lora_in_the_prompt_gives_the_frames_of_the_changed_weights(server, folder, expected, name):
    so_far = len(server.log_text())
    frames = ours(server, MODULE, **JOB, prompt=f"a cat <lora:{name}:0.8>")
    assert difference(frames, expected(MODULE, "v2", loras={dense(folder, name): 0.8}, **JOB)) <= LIMIT
    assert difference(frames, expected(MODULE, "v2", **JOB)) > LIMIT
    assert "Traceback" not in server.log_text()[so_far:], "the WebUI's own loader saw it"


def test_several_loras_of_all_kinds_apply_together(server, folder, expected):
    frames = ours(server, MODULE, **JOB, prompt="<lora:official:0.5>, a cat <lora:adapter:1:0.7> <lora:kohya:-0.4>")
    changes = {dense(folder, "official"): 0.5, dense(folder, "adapter"): 0.7, dense(folder, "kohya"): -0.4}
    assert difference(frames, expected(MODULE, "v2", loras=changes, **JOB, prompt=", a cat")) <= LIMIT


@pytest.mark.parametrize("name", ["official", "kohya", "adapter"])
def test_a_lora_may_have_a_strength_for_each_frame(server, name):
    """The same one in all frames gives the same frames as one strength; another one in the last frame does not."""
    one = ours(server, MODULE, **JOB, prompt=f"a cat <lora:{name}:0.8>")
    assert difference(ours(server, MODULE, **JOB, prompt=f"a cat <lora:{name}:0: 0.8, 100%: 0.8>"), one) <= 1
    fading = ours(server, MODULE, **JOB, prompt=f"a cat <lora:{name}:0: 0.8, 100%: 0>")
    without = ours(server, MODULE, **JOB, prompt="a cat")
    assert min(difference(fading, other) for other in (one, without)) > LIMIT


@pytest.mark.parametrize(
    ("tag", "equals"),
    [
        ("official:0.2:0.8", "official:0.8"),
        ("official:te=0.8", "official:0.8"),
        ("official:1:te=0.2:unet=0.8", "official:0.8"),
        ("official:0.8:dyn=4", "official:0.8"),
        ("official:0.8:0.8:2", "official:0.8:dyn=2"),
    ],
)
def test_arguments_of_a_tag_are_read_as_the_webui_reads_them(server, tag, equals):
    one, other = (ours(server, MODULE, **JOB, prompt=f"a cat <lora:{text}>") for text in (tag, equals))
    assert difference(one, other) == 0


@pytest.mark.parametrize("name", ["official", "adapter"])
def test_a_lower_rank_gives_other_frames(server, name):
    whole, part = (ours(server, MODULE, **JOB, prompt=f"a cat <lora:{name}:0.8{rank}>") for rank in ("", ":dyn=1"))
    assert difference(whole, part) > LIMIT


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("1:lbw=OUTALL:stop=10", "lbw, stop in <lora:official:1:lbw=OUTALL:stop=10> have no effect"),
        ("1:1:4:8:unet=0.5:start=3", "8, start in <lora:official:1:1:4:8:unet=0.5:start=3> have no effect"),
        ("unet=0.5:step=2-5", "step in <lora:official:unet=0.5:step=2-5> has no effect"),
        ("0.5:lbwe=1", "lbwe in <lora:official:0.5:lbwe=1> has no effect"),
        ("1:1:dyn=2:te=1", None),
    ],
)
def test_arguments_without_effect_are_named(server, arguments, named):
    answer = server.txt2img(**animate(model=MODULE, video_length=2), **JOB, prompt=f"a cat <lora:official:{arguments}>")
    warnings = info_of(answer)["extra_generation_params"].get("AnimateDiff warnings", [])
    assert len(warnings) == (named is not None)
    assert named is None or named in warnings[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("much", "The strength in <lora:official:much> must be a number"),
        ("nan", "The strength in <lora:official:nan> must be a number"),
        ("unet=-inf", "The strength in <lora:official:unet=-inf> must be a number"),
        ("1:dyn=0", "The rank (dyn) in <lora:official:1:dyn=0> must be a whole number"),
        ("1:1:1.5", "The rank (dyn) in <lora:official:1:1:1.5> must be a whole number"),
    ],
)
def test_arguments_that_are_no_numbers_are_refused(server, arguments, said):
    answer = server.txt2img(**animate(model=MODULE, video_length=2), **JOB, prompt=f"a cat <lora:official:{arguments}>")
    assert answer.status_code == 422 and said in answer.json()["detail"]


def weights(server, folder, name=None, **request):
    """Returns the effective matrices while a request is sampled, or now."""
    file = folder / "effective.safetensors"
    file.unlink(missing_ok=True)
    assert server.post("/probe/v1/effective-weights", {"file": str(file), "now": name is None}).ok
    if name is not None:
        ours(server, name, **request)
    return load_file(file)


@pytest.mark.parametrize("name", [file.split(".")[0] for file in LORAS])
def test_effective_weights_are_exact_and_afterwards_as_before(server, folder, loras, name):
    before, unet_before = weights(server, folder, MODULE, **JOB), server.get("/probe/v1/unet-digest").json()
    merged = weights(server, folder, MODULE, **JOB, prompt=f"a cat <lora:{name}:0.8>")
    changed = {key for key, value in merged.items() if not torch.equal(value, before[key])}
    if name == "adapter":
        assert changed == {"attn1.to_q"}
        expected = before["attn1.to_q"] + 0.8 * loras[name][IN_LDM[ADAPTED] + ".weight"]
        assert (merged["attn1.to_q"] - expected).abs().max() < 1e-6
    else:
        query, middle = "layers.down_0_1.attentions.0.to_qkv.weight", "layers.mid_0.attentions.1.to_out.weight"
        assert changed == {query, middle}
        assert (merged[query][:32] - before[query][:32] - 0.8 * loras[name][QUERY + ".weight"]).abs().max() < 1e-6
        assert torch.equal(merged[query][32:], before[query][32:])
        assert (merged[middle] - before[middle] - 0.8 * loras[name][MIDDLE + ".weight"]).abs().max() < 1e-6
    after = weights(server, folder)
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert server.get("/probe/v1/unet-digest").json() == unet_before


@pytest.mark.parametrize("name", ["official", "adapter"])
def test_strength_zero_equals_no_lora_to_the_bit(server, name):
    assert difference(ours(server, MODULE, **JOB, prompt=f"a cat <lora:{name}:0>"), ours(server, MODULE, **JOB)) == 0


@pytest.mark.parametrize(
    "name",
    [
        "peft",
        pytest.param(
            "adapter", marks=pytest.mark.not_on(("Forge", "Neo", "reForge"), "it applies adapters to single images itself")
        ),
    ],
)
def test_a_lora_that_was_first_used_without_animatediff_works(server, folder, expected, name):
    prompt = f"a cat <lora:{name}:0.8>"
    still = frames_of(server.txt2img(**JOB, prompt=prompt))
    assert difference(still, frames_of(server.txt2img(**JOB))) == 0, "in a single image it has nothing to change"
    frames = ours(server, MODULE, **JOB, prompt=prompt)
    assert difference(frames, expected(MODULE, "v2", loras={dense(folder, name): 0.8}, **JOB)) <= LIMIT
    assert difference(frames_of(server.txt2img(**JOB)), still) == 0


@pytest.mark.webui_only("the embedded host has no prompts of its own for the hires pass")
def test_the_hires_pass_has_its_own_loras(server):
    hires = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    one = "a cat <lora:official:4>"
    both = ours(server, MODULE, **JOB, **hires, prompt=one)
    first = ours(server, MODULE, **JOB, **hires, prompt=one, hr_prompt="a cat")
    second = ours(server, MODULE, **JOB, **hires, prompt="a cat", hr_prompt=one)
    assert min(difference(both, first), difference(both, second), difference(first, second)) > LIMIT
    assert difference(both, ours(server, MODULE, **JOB, **hires, prompt=one, hr_prompt=one)) == 0


def test_a_broken_lora_is_refused_with_the_key(server, folder):
    name = processor(QUERY) + ".down.weight"
    save_file({name: torch.zeros(RANK, 32)}, folder / "lora" / "broken.safetensors")
    answer = server.txt2img(**animate(model=MODULE, video_length=FRAMES), **JOB, prompt="a cat <lora:broken:1>")
    assert answer.status_code == 422
    assert "broken.safetensors" in answer.json()["detail"] and name in answer.json()["detail"]
    assert difference(ours(server, MODULE, **JOB), ours(server, MODULE, **JOB)) == 0


def test_the_infotext_has_the_prompt_as_typed_and_the_hash_of_the_file(server):
    answer = server.txt2img(**animate(model=MODULE, video_length=FRAMES), **JOB, prompt="a cat <lora:peft:1>")
    (infotext, *_) = info_of(answer)["infotexts"]
    assert "<lora:peft:1>" in infotext and 'Lora hashes: "peft: abababababab"' in infotext


def test_a_strength_that_is_no_number_is_refused(server):
    answer = server.txt2img(**animate(model=MODULE, video_length=FRAMES), **JOB, prompt="a cat <lora:peft:strong>")
    assert answer.status_code == 422 and "<lora:peft:strong>" in answer.json()["detail"]
