"""Random requests for the host's API, as hypothesis strategies: every key of the table, typed and mistyped."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from animatediff.request.params import FIELDS, Option, option_of
from animatediff.video.formats import VIDEO_FORMATS
from support.animation import LONG
from support.pictures import encode, gradient

MODULES = ("mm_tiny_v1.safetensors", "mm_tiny_v2.safetensors", "mm_tiny_v3.safetensors", "mm_tiny_v3.ckpt")
MOST_FRAMES = 20
HUGE = 10**400
MISTYPED: tuple[Any, ...] = (
    *(None, True, False, "", " ", "off", "None", "no", "16", "1e3", "GIF", "mp4", "Infinity", "nan"),
    *(-1, 0, 1, 2.5, 300_000, 10**9, HUGE, 1e30, -1e30, 1e-300, float("inf"), float("nan")),
    *([], [1], ["GIF"], {}, {"a": 1}, "x" * 300, "é" * 200, "9" * 4400, "\ud800", "a\nb", "\0"),
    *("../../etc/passwd", "/etc/passwd", "data:image/png;base64,AAAA", "<b>"),
)
PROMPTS = (
    *("a cat", "", "16:9 photo at 12:30", LONG, "a (cat:1.2) BREAK a dog", "a [cat:dog:0.5]", "a cat <lora:lora_tiny:0.5>"),
    *(
        "0: sleeping\n3: awake",
        "a cat\n0: asleep\n50%: awake\n-1: running\nsharp",
        "0-2: a\n3: " + LONG,
        "0: a AND b\n2: c AND d",
    ),
    *('"0": "a",\n"8": "b"', "0：a\n2：b", "0: a, 2: b", "1990: retro style", "3-1: a", "9" * 4400 + ": a", "0: a\n0: b"),
)
SAMPLERS = ("Euler a", "Euler", "DPM++ 2M", "DDIM")
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.5}
SMALL: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(MODULES),
    "model_2": st.sampled_from(("", "None", *MODULES)),
    "video_length": st.integers(0, MOST_FRAMES),
    "batch_size": st.integers(0, 16),
    "fps": st.sampled_from((0, 1, 8, 12.5, 50)),
    "interp": st.sampled_from(("Off", "Off", "optical flow")),
    "interp_x": st.integers(1, 3),
    "loop_number": st.integers(0, 3),
    "format": st.sets(st.sampled_from((*VIDEO_FORMATS, "PNG", "TXT"))).map(lambda names: [*sorted(names), "Frame"]),
    "freeinit_iters": st.integers(1, 2),
    "speed": st.sampled_from(("Exact",) * 7 + ("Fast",)),
    "stride": st.integers(1, 4),
    "overlap": st.integers(-1, 8),
    "last_frame": st.sampled_from(("", encode(gradient(shift=9)))),
    "motion_mask": st.sampled_from(("", encode(gradient(32, 48)))),
    "motion_mask_path": st.sampled_from(("", "", "", "/nowhere")),
    "motion_rules": st.sampled_from(("", "up_3: scale 1.2", "mid 0.5-1: effect 0.8", "down_9: scale 1", "x")),
    "motion_scale_frames": st.sampled_from(("", "0: 1\n50%: 0.4", "0: 11", "12: 1")),
    "motion_effect_frames": st.sampled_from(("", "0: 0, -1: 1", "x")),
    "cfg_scale_frames": st.sampled_from(("", "0: 1\n-1: 7", "0: 3", "0-2: 5, 1: 2")),
    "denoising_strength_frames": st.sampled_from(("", "0: 0, 100%: 0.7", "0: 0", "0: 2")),
    "sparse_strength_frames": st.sampled_from(("", "0: 1\n-1: 0", "0: 11")),
    "controlnet_frames": st.sampled_from(("", "0: 1\n-1: 0", "unit 0: 0: 1", "0: 11")),
    "video_source": st.just(""),
    "sparse_ctrl": st.sampled_from(("", "", "", "sparsectrl_tiny_rgb", "nowhere")),
    "sparse_pictures": st.lists(st.just(encode(gradient(shift=9))), max_size=2),
    "sparse_frames": st.sampled_from(("", "", "0", "0, -1", "x")),
    "sparse_more": st.just([]),
    "video_path": st.sampled_from(("", "", "", "/nowhere")),
    "mask_path": st.sampled_from(("", "", "", "/nowhere")),
    "camera": st.sampled_from(("", "None")),
    "camera_motion": st.sampled_from(("", "pan left", "x")),
    "camera_poses": st.just(""),
    "detail_box": st.sampled_from(("", "8, 8, 40, 40", "-9 0 900 900", "x")),
    "detail_prompt": st.sampled_from(("", "a face", "0: a\n2: b")),
    "detail_steps": st.integers(0, 3),
    "detail_most": st.integers(1, 2),
    "detail_size": st.just(64),
    "request_id": st.sampled_from(("", "42", "a/b", "x" * 100)),
}
"""Values of the parameters whose range of the table would take too long, or hardly ever be right."""


@dataclass(frozen=True)
class RandomRequest:
    """One request: the route's name, the fields of its body, AnimateDiff's arguments, and which of these are mistyped."""

    route: str
    body: dict[str, Any]
    arguments: dict[str, Any]
    mistyped: tuple[str, ...]

    @property
    def json(self) -> dict[str, Any]:
        return {**self.body, "alwayson_scripts": {"AnimateDiff": {"args": [self.arguments]}}}

    def is_sure(self, *keys: str) -> bool:
        """Returns whether none of these arguments is mistyped."""
        return not set(keys) & set(self.mistyped)


def _in_table(option: Option, kind: str) -> st.SearchStrategy[Any]:
    if option.choices:
        return st.sampled_from(option.choices)
    if kind == "bool":
        return st.booleans()
    least, most = option.minimum, option.maximum
    if kind == "int":
        return st.integers(int(least or 0), int(most if most is not None else 64))
    if kind == "float":
        return st.floats(least if least is not None else -2, most if most is not None else 40, allow_nan=False)
    return st.text(max_size=20)


def _value(field: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    return SMALL[field.name] if field.name in SMALL else _in_table(option_of(field), str(field.type))


VALUES = {field.name: _value(field) for field in FIELDS if field.name != "enable"}


@st.composite
def arguments(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[str, ...]]:
    """AnimateDiff's arguments: some right ones, and in a third of all requests one or two mistyped ones."""
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=8, unique=True))
    values = {"enable": True, "model": MODULES[2], "video_length": 4, "format": ["Frame"]}
    values |= {name: draw(VALUES[name]) for name in chosen}
    count = draw(st.sampled_from((0, 0, 0, 0, 1, 2)))
    wrong = tuple(
        draw(st.lists(st.sampled_from(["enable", "unknown_key", *VALUES]), min_size=count, max_size=count, unique=True))
    )
    return {**values, **{name: draw(st.sampled_from(MISTYPED)) for name in wrong}}, wrong


@st.composite
def requests(draw: st.DrawFn) -> RandomRequest:
    """A whole request of txt2img or img2img, small enough to be made in a fraction of a second."""
    args, mistyped = draw(arguments())
    body: dict[str, Any] = {
        "prompt": draw(st.sampled_from(PROMPTS) | st.text(max_size=30)),
        "negative_prompt": draw(st.sampled_from(("", "", "blurry", "0: blurry\n2: dark"))),
        "steps": draw(st.integers(1, 3)),
        "sampler_name": draw(st.sampled_from(SAMPLERS)),
        "cfg_scale": draw(st.sampled_from((1, 7))),
        "n_iter": draw(st.sampled_from((1, 1, 1, 2))),
        "seed": draw(st.integers(0, 9)),
    }
    route = draw(st.sampled_from(("txt2img", "img2img")))
    if route == "txt2img":
        return RandomRequest(route, body | draw(st.sampled_from(({}, {}, HIRES))), args, mistyped)
    count = draw(st.sampled_from((1, 1, 1, 0, 4, 10)))
    body |= {"init_images": [encode(gradient(shift=shift)) for shift in range(count)], "denoising_strength": 0.5}
    return RandomRequest(route, body, args, mistyped)
