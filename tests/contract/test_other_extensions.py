"""The extensions that people run beside AnimateDiff, in a live WebUI: their own code, on and off.

They lie in $EXTENSIONS_DIR, each in a folder of its usual name. A clip without motion must be what the extension makes of a
plain batch with the noise schedule of the motion module.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.animation import LONG, animate, difference, frames_of, info_of, text_of_refusal
from support.pictures import encode, gradient
from support.server import PROBE, REPOSITORY
from support.webui_models import make_models

pytestmark = [
    pytest.mark.webui_only("the embedded host has none of the WebUI's parts that other extensions change"),
    pytest.mark.not_on(("Forge", "Neo", "reForge"), "these extensions are for AUTOMATIC1111"),
]


WINDOWS = ("one window", "whole UNet", "motion attention")
EVERY = tuple(product(WINDOWS, ("txt2img", "img2img")))
ONE, UNET, ATTENTION = WINDOWS
"""What the windows of a clip apply to."""
FEW = ((ONE, "txt2img"), (UNET, "img2img"))
SOME = (*FEW, (ATTENTION, "txt2img"))
"""For what acts in the same way in all windows."""


@dataclass(frozen=True)
class Neighbour:
    """What a request switches on: an extension, or something of the WebUI's own."""

    folder: str = ""
    """Of the extension; empty for the WebUI's own."""
    script: str = ""
    args: list[Any] = field(default_factory=list)
    request: dict[str, Any] = field(default_factory=dict)
    """What is asked for in any case."""
    switch: dict[str, Any] = field(default_factory=dict)
    """What switches it on beside the script."""
    acts: int = 10
    """By how many levels it changes a picture at least."""
    module: str = "mm_tiny_v3.safetensors"
    window: int = 16
    """How many frames one window has. A clip in windows has two and a half times as many."""
    cases: Collection[tuple[str, str]] = EVERY
    """The windows and the tabs in which it is compared: those that tell its ways apart."""


def with_argument(args: list[Any], number: int, value: Any) -> list[Any]:
    return [*args[:number], value, *args[number + 1 :]]


def regional(calc: str) -> list[Any]:
    on, off = [True, False, "Matrix", "Columns", "Mask", "Prompt", "1,1", "0.2"], [False, False, False]
    return [*on, *off, calc, [], "0", "0", "0.4", None, "0", "0", False]


def of_webui(switch: dict[str, Any], **request: Any) -> Neighbour:
    return Neighbour(switch=switch, request=request, window=4, cases=[(UNET, "img2img")])


def settings(**changes: Any) -> dict[str, Any]:
    return {"override_settings": changes}


def tiled(method: str) -> list[Any]:
    """Returns the arguments for two tiles of 64×64 pixels."""
    return [True, method, False, True, 1024, 1024, 8, 8, 4, 4, "None", 2, False, 10, 1, 1, 64, False, False, False, False]


RP = "sd-webui-regional-prompter"
MULTIDIFFUSION = "multidiffusion-upscaler-for-automatic1111"
COLORS = "5,-5,-5;0,0,5"
NEGPIP = Neighbour("sd-webui-negpip", "NegPiP", [True], {"prompt": "a cat (red:-1.5)"})
NEIGHBOURS = {
    "Regional Prompter, equal parts": Neighbour(
        RP, "Regional Prompter", regional("Attention"), {"prompt": "a cat BREAK a dog", "negative_prompt": "bad BREAK low"}
    ),
    "Regional Prompter, one call": Neighbour(
        RP, "Regional Prompter", regional("Attention"), {"prompt": "a cat BREAK a dog", "negative_prompt": LONG}
    ),
    "Regional Prompter, a call for each condition": Neighbour(
        RP, "Regional Prompter", regional("Attention"), {"prompt": "a cat BREAK a dog"}
    ),
    "Regional Prompter, Latent": Neighbour(RP, "Regional Prompter", regional("Latent"), {"prompt": "a cat BREAK a dog"}),
    "NegPiP": NEGPIP,
    "Dynamic Thresholding": Neighbour(
        "sd-dynamic-thresholding",
        "Dynamic Thresholding (CFG Scale Fix)",
        [True, 5, 100, "Constant", 0, "Constant", 0, 4, True, "MEAN", "AD", 1],
        {"cfg_scale": 15},
    ),
    "Detail Daemon": Neighbour(
        "sd-webui-detail-daemon", "Detail Daemon", [True, True, False, "both", 0.2, 0.8, 0.5, 1, 1, 0, 0, 0, True]
    ),
    "CD Tuner": Neighbour(
        "sd-webui-cd-tuner",
        "CD Tuner",
        [True, *[5] * 8, 0, 0, False, -1, -1, 5, 5, "1,1", "Horizontal", COLORS, 2, 1, []],
        cases=SOME,
    ),
    "Tiled Diffusion, MultiDiffusion": Neighbour(
        MULTIDIFFUSION,
        "Tiled Diffusion",
        tiled("MultiDiffusion"),
        {"width": 96},
        window=8,
        cases=[(ONE, "img2img"), (UNET, "txt2img")],
    ),
    "Tiled Diffusion, Mixture of Diffusers": Neighbour(
        MULTIDIFFUSION,
        "Tiled Diffusion",
        tiled("Mixture of Diffusers"),
        {"width": 96},
        window=8,
        cases=[(UNET, "img2img"), (ATTENTION, "txt2img")],
    ),
    "Tiled VAE": Neighbour(
        MULTIDIFFUSION,
        "Tiled VAE",
        [True, 64, 8, True, True, True, False],
        {"width": 256, "steps": 2},
        window=2,
        cases=FEW,
    ),
    "LoRA Block Weight": Neighbour(
        "sd-webui-lora-block-weight",
        "LoRA Block Weight",
        ["HALF:" + ",".join(["0.5"] * 17), True, 0],
        {"prompt": "a cat <lora:lora_tiny:1:lbw=HALF>"},
        window=8,
        cases=FEW,
    ),
    "FreeU": Neighbour(
        "sd-webui-freeu",
        "FreeU",
        [True, 0, 1, 0, "Version 2", *[1.3, 0.7, 0, 0.5, 0.3, 1] * 3],
        {"width": 128, "steps": 1, "override_settings": {"sd_model_checkpoint": "sd15.safetensors"}},
        module="mm_sd15_v3.safetensors",
        window=2,
        cases=[(UNET, "txt2img")],
    ),
    "Kohya hires fix": Neighbour(
        "sd-webui-kohya-hiresfix", "Kohya Hires.fix", [True, True, 3, 4, 0.5, 0.6, "bicubic", 0.5, 2, True, False]
    ),
    "Hypertile": of_webui(settings(hypertile_enable_unet=True), width=256),
    "merged tokens": of_webui(settings(token_merging_ratio=0.5)),
    "CLIP skip": of_webui(settings(CLIP_stop_at_last_layers=2)),
    "textual inversion": of_webui({"prompt": "a cat, gizmo"}),
    "hypernetwork": of_webui({"prompt": "a cat <hypernet:random:1>"}),
    "another VAE": of_webui(settings(sd_vae="other.safetensors")),
    "TAESD": of_webui(settings(sd_vae_encode_method="TAESD", sd_vae_decode_method="TAESD")),
}
ULTIMATE = "ultimate-upscale-for-automatic1111"
DYNAMIC_PROMPTS = "sd-dynamic-prompts"
ITS_SETTINGS = {
    "dp_ignore_whitespace": False,
    "dp_write_raw_template": False,
    "dp_write_prompts_to_file": False,
    "dp_parser_variant_start": "{",
    "dp_parser_variant_end": "}",
    "dp_parser_wildcard_wrap": "__",
    "dp_limit_jinja_prompts": False,
    "dp_auto_purge_cache": False,
    "dp_wildcard_manager_no_dedupe": False,
    "dp_wildcard_manager_no_sort": False,
    "dp_wildcard_manager_shuffle": False,
    "dp_magicprompt_default_model": "",
    "dp_magicprompt_batch_size": 1,
}
"""It adds them too late to the settings of a WebUI that starts for the first time."""
TEMPLATE = "{% for what in ['cat', 'dog'] %}{% prompt %}a {{ what }}{% endprompt %}{% endfor %}"
EVEN = {"image_mode": "strength ramp", "ramp_length": 0}
"""Every frame starts from the picture, as in a batch."""


def extensions() -> list[Path]:
    """Returns the folders of the neighbours that are there."""
    root = os.environ.get("EXTENSIONS_DIR")
    found = sorted(Path(root).iterdir()) if root else []
    known = {DYNAMIC_PROMPTS, ULTIMATE, *(neighbour.folder for neighbour in NEIGHBOURS.values())}
    return [folder for folder in found if folder.name in known]


@pytest.fixture(scope="module")
def crowd(start_host, weights, tmp_path_factory):
    """A host with all of them that are there, and with small models of the kinds that the WebUI adds to a checkpoint."""
    folder = tmp_path_factory.mktemp("crowd")
    make_models(folder, weights / "checkpoints")
    (folder / "ui-config.json").write_text("{}")  # NegPiP reads it when it is loaded; a WebUI that has run before has it
    return start_host(data_dir=folder, extensions=[REPOSITORY, PROBE, *extensions()], options=ITS_SETTINGS)


def require(folder: str) -> None:
    if folder and folder not in {found.name for found in extensions()}:
        pytest.skip(f"{folder} is not there")


def asked(neighbour: Neighbour, tab: str, *, on: bool) -> dict[str, Any]:
    """Returns a request without its scripts."""
    width = neighbour.request.get("width", 64)
    start = {"init_images": [encode(gradient(width))], "denoising_strength": 0.6} if tab == "img2img" else {}
    return {"steps": 3, **start, **neighbour.request, **(neighbour.switch if on else {})}


def script_of(neighbour: Neighbour) -> dict[str, Any]:
    return {neighbour.script: {"args": neighbour.args}} if neighbour.script else {}


def plain_batch(host, neighbour: Neighbour, tab: str, frames: int, *, on: bool) -> np.ndarray:
    """Returns a batch of pictures without AnimateDiff, but with the noise schedule of its motion module."""
    request = asked(neighbour, tab, on=on)
    overridden = {**request.pop("override_settings", {}), "return_grid": False}
    host.post("/probe/v1/schedule", {"on": True}).raise_for_status()
    try:
        batch = {"batch_size": frames, "alwayson_scripts": script_of(neighbour) if on else {}, "override_settings": overridden}
        return frames_of(getattr(host, tab)(**request, **batch))
    finally:
        host.post("/probe/v1/schedule", {"on": False}).raise_for_status()


@pytest.mark.parametrize(
    ("name", "windows", "tab"),
    [(name, *case) for name, neighbour in NEIGHBOURS.items() for case in EVERY if case in neighbour.cases],
)
def test_a_clip_without_motion_is_what_it_makes_of_a_plain_batch(crowd, name, windows, tab):
    neighbour = NEIGHBOURS[name]
    require(neighbour.folder)
    before = frames_of(crowd.txt2img())
    how = {} if windows == ONE else {"batch_size": neighbour.window, "context_mode": windows}
    frames = neighbour.window if windows == ONE else neighbour.window * 5 // 2
    every_frame = EVEN if tab == "img2img" else {}
    clip = animate(model=neighbour.module, motion_effect=0, video_length=frames, **how, **every_frame)
    clip["alwayson_scripts"] |= script_of(neighbour)
    made = frames_of(getattr(crowd, tab)(**clip, **asked(neighbour, tab, on=True)))
    batch = plain_batch(crowd, neighbour, tab, frames, on=True)
    assert difference(made, batch) <= 1
    assert difference(batch[:2], plain_batch(crowd, neighbour, tab, 2, on=False)) >= neighbour.acts, "it acts"
    np.testing.assert_array_equal(frames_of(crowd.txt2img()), before)


REGIONS_BY_WORDS = with_argument(regional("Attention"), 2, "Prompt")
PICTURE = {"init_images": [encode(gradient(96))], "denoising_strength": 0.6, "width": 96}
REFUSED = {
    "Regional Prompter by words": (
        RP,
        {"Regional Prompter": REGIONS_BY_WORDS},
        {"video_length": 8, "batch_size": 4},
        {"prompt": "a cat and a dog BREAK a red cat, cat"},
        "Regional Prompter's mode",
    ),
    "Regional Prompter and keyframes": (
        RP,
        {"Regional Prompter": regional("Attention")},
        {},
        {"prompt": "0: a cat BREAK a dog\n2: a cow"},
        "Regional Prompter",
    ),
    "Tiled Diffusion's noise inversion": (
        MULTIDIFFUSION,
        {"Tiled Diffusion": with_argument(tiled("MultiDiffusion"), 12, True)},
        {},
        PICTURE,
        "Tiled Diffusion's",
    ),
    "DemoFusion": (MULTIDIFFUSION, {"DemoFusion": [True, "DemoFusion"]}, {}, {}, "DemoFusion samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_leaves_nothing_of_them(crowd, name):
    folder, scripts, how, request, said = REFUSED[name]
    require(folder)
    make = crowd.img2img if "init_images" in request else crowd.txt2img
    before = frames_of(crowd.txt2img())
    clip = animate(**how)
    clip["alwayson_scripts"] |= {title: {"args": args} for title, args in scripts.items()}
    assert text_of_refusal(make(**clip, **request)).startswith(said)
    np.testing.assert_array_equal(frames_of(crowd.txt2img()), before)


def test_ultimate_sd_upscale_is_refused(crowd):
    require(ULTIMATE)
    tiles = ["", 64, 64, 8, 16, 64, 0.35, 32, 0, True, 0, False, 8, 0, 1, 128, 64, 2]
    script = {"script_name": "Ultimate SD upscale", "script_args": tiles}
    picture = {"init_images": [encode(gradient())], "denoising_strength": 0.5}
    before = frames_of(crowd.txt2img())
    said = text_of_refusal(crowd.img2img(**animate(), **picture, **script))
    assert said.startswith("The script “Ultimate SD upscale” puts one picture together from tiles")
    np.testing.assert_array_equal(frames_of(crowd.txt2img()), before)
    assert frames_of(crowd.img2img(**picture, **script)).shape[1:3] == (64, 128), "without AnimateDiff"


class TestDynamicPrompts:
    @pytest.fixture
    def ask(self, crowd):
        """Generates with it, and returns the answer."""
        titles = crowd.get("/sdapi/v1/scripts").json()["txt2img"]
        title = next((title for title in titles if title.startswith("dynamic prompts")), None)
        if title is None:
            pytest.skip(f"{DYNAMIC_PROMPTS} is not there, or its package dynamicprompts is not in the WebUI's environment")

        def ask(combinatorial=False, fixed=False, jinja=False, no_images=False, **request):
            no_magic = [False, False, False, 1.1, 1.5, 100, 0.7]
            args = [True, combinatorial, 1, *no_magic, fixed, False, True, jinja, no_images, 0, "", ""]
            clip = animate(video_length=3)
            clip["alwayson_scripts"][title] = {"args": args}
            return crowd.txt2img(**clip, **{"steps": 2, **request})

        return ask

    @staticmethod
    def clips(host, wanted, **request):
        """Returns the frames of clips with these prompts and seeds, one after another."""
        clip = animate(video_length=3)
        answers = [host.txt2img(**clip, **{"steps": 2, **request}, prompt=prompt, seed=seed) for prompt, seed in wanted]
        return np.concatenate([frames_of(answer) for answer in answers])

    @pytest.mark.parametrize(
        ("request_", "wanted"),
        [
            ({"prompt": "a {cat|dog|cow}", "combinatorial": True}, [("a cat", 1), ("a dog", 4), ("a cow", 7)]),
            ({"prompt": "a {cat|dog}", "combinatorial": True, "fixed": True}, [("a cat", 1), ("a dog", 1)]),
            ({"prompt": TEMPLATE, "jinja": True}, [("a cat", 1), ("a dog", 4)]),
            (
                {"prompt": "0: a {cat|dog}\n2: a cow", "combinatorial": True},
                [("0: a cat\n2: a cow", 1), ("0: a dog\n2: a cow", 4)],
            ),
        ],
        ids=["as many as frames", "one seed", "Jinja", "keyframes"],
    )
    def test_each_combination_is_a_video(self, crowd, ask, request_, wanted):
        answer = ask(**request_)
        np.testing.assert_array_equal(frames_of(answer), self.clips(crowd, wanted))
        texts = info_of(answer)["infotexts"][::3]
        assert [text.partition("\nSteps:")[0] for text in texts] == [prompt for prompt, _ in wanted]
        assert [f", Seed: {seed}," in text for text, (_, seed) in zip(texts, wanted)] == [True] * len(wanted)

    def test_a_random_prompt_is_for_a_whole_video(self, crowd, ask):
        answer = ask(prompt="a {cat|dog|cow|bird|fish}", n_iter=2)
        prompts = info_of(answer)["all_prompts"]
        assert [len(set(prompts[:3])), len(set(prompts[3:]))] == [1, 1] and len(set(prompts)) == 2
        np.testing.assert_array_equal(frames_of(answer), self.clips(crowd, [(prompts[0], 1), (prompts[3], 4)]))

    @pytest.mark.parametrize(
        ("request_", "said"),
        [
            ({"prompt": "a {cat|dog}", "no_images": True}, "Dynamic Prompts is set not to generate images"),
            ({"prompt": "{% for", "jinja": True}, "Dynamic Prompts cannot read the prompt: "),
        ],
    )
    def test_what_is_no_video_is_refused(self, ask, request_, said):
        assert text_of_refusal(ask(**request_)).startswith(said)
