"""The published families of motion modules, with the facts that are not in their files.

Sources: the authors' configurations and training code. guoyww/AnimateDiff (v1, v2, v3: `configs/inference/*.yaml`), Lightricks
LongAnimateDiff, G-U-N/AnimateLCM, ByteDance AnimateDiff-Lightning (arXiv 2403.12706), open-mmlab/PIA (arXiv 2312.13964). For
SDXL: guoyww/AnimateDiff, branch `sdxl` (`configs/inference/inference.yaml`, `motion_module.py`), and hotshotco/Hotshot-XL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .noise_schedule import ANIMATEDIFF, STABLE_DIFFUSION, NoiseSchedule

Norms = Literal["per frame", "over frames"]
SIDE_OF_LATENT = 8
"""Pixels along the side of one element of the latents, as Stable Diffusion's VAE makes them."""


@dataclass(frozen=True)
class Advice:
    """The sampling settings that a family is made for, in the WebUI's names.

    `sampler`, `schedule_type`, `steps`, `cfg` and `motion_scale` are those of its authors, as is `denoising` for img2img if
    they give it. `side`: the side of a square with as many pixels as they use, for a module that is made for one size; else 0.
    Other settings that work too are in `samplers` and `schedule_types` (empty: any), `steps_between` and `cfg_between`;
    distilled modules have narrow ranges.
    """

    sampler: str = "DDIM"
    schedule_type: str = "Automatic"
    steps: int = 25
    cfg: float = 7.5
    samplers: tuple[str, ...] = ()
    schedule_types: tuple[str, ...] = ()
    motion_scale: float = 1.0
    denoising: float | None = None
    side: int = 0
    steps_between: tuple[int, int] = (1, 1000)
    cfg_between: tuple[float, float] = (0.0, 100.0)

    def is_far_from(self, width: int, height: int) -> bool:
        """Returns whether an image has less than half or more than twice as many pixels as the authors use."""
        return self.side > 0 and not 0.5 <= width * height / self.side**2 <= 2

    def contradictions(self, sampler: str, schedule_type: str, steps: int, cfg: float, width: int, height: int) -> list[str]:
        """Returns which of these settings the family was not made for, in words."""
        contradictions = []
        if self.samplers and sampler not in self.samplers:
            contradictions.append(f"the sampler is {sampler}, not {' or '.join(self.samplers)}")
        if self.schedule_types and schedule_type not in self.schedule_types:
            contradictions.append(f"the schedule type is {schedule_type}, not {' or '.join(self.schedule_types)}")
        for name, value, (least, most) in (
            ("number of steps", steps, self.steps_between),
            ("CFG scale", cfg, self.cfg_between),
        ):
            if not least <= value <= most:
                contradictions.append(f"the {name} is {value:g}, not {least:g}" + (f" to {most:g}" if most > least else ""))
        if self.is_far_from(width, height):
            contradictions.append(f"the size is {width}×{height}, not about as large as {self.side}×{self.side}")
        return contradictions


def _distilled(steps: int) -> Advice:
    """Returns the settings of AnimateDiff-Lightning: Euler on trailing timesteps, no guidance. The 2-step module works with
    3.
    """
    return Advice(
        sampler="Euler",
        schedule_type="Trailing",
        steps=steps,
        cfg=1.0,
        samplers=("Euler",),
        schedule_types=("Trailing", "SGM Uniform"),
        steps_between=(steps, 3 if steps == 2 else steps),
        cfg_between=(1.0, 2.0),
    )


@dataclass(frozen=True)
class Family:
    """The facts about one family.

    `unet_norms`: whether the group norms of the UNet's ResBlocks and of its output compute their statistics over one frame, or
    over all frames of a clip together. The authors' v1 UNet is inflated with plain `nn.GroupNorm` over five dimensions
    (`use_inflated_groupnorm: false` in inference-v1.yaml), so it was trained with the latter. The norms of the UNet's
    SpatialTransformers are per frame in all families.
    `motion_norms`: the same for the norms of the motion layers. Only those of AnimateDiff-XL beta are over all frames.
    `size_conditioning`: (original height, original width), (target height, target width) for SDXL's UNet, if the authors use
    the same for all clips.
    `frames`: the length of the clips it was trained on, and so the best one.
    `positions`: the rows of the positional encoding, a fixed sinusoid, if the file has none.
    `original_steps`: the timesteps of the consistency training, from which its sampler has to choose; 0 if there was none.
    `lora`: the LoRA that has to be in the prompt.
    `takes_image`: whether its UNet takes an image in addition to the noise. `encodes_image`: whether an encoder of its own
    shows that image to motion layers, rather than the UNet's first convolution.
    """

    key: str
    title: str
    base: Literal["SD 1.5", "SDXL"] = "SD 1.5"
    schedule: NoiseSchedule = ANIMATEDIFF
    unet_norms: Norms = "per frame"
    motion_norms: Norms = "per frame"
    frames: int = 16
    positions: int = 32
    original_steps: int = 0
    lora: str = ""
    takes_image: bool = False
    encodes_image: bool = False
    size_conditioning: tuple[tuple[int, int], tuple[int, int]] | None = None
    advice: Advice = Advice()


V1 = Family("v1", "AnimateDiff v1", unet_norms="over frames", positions=24)
TEMPORALDIFF = Family("temporaldiff", "TemporalDiff", unet_norms="over frames", positions=24)
STABILIZED = Family("stabilized", "mm-Stabilized", unet_norms="over frames", positions=24)
V2 = Family("v2", "AnimateDiff v2")
V3 = Family("v3", "AnimateDiff v3")
LONG_32 = Family("long-32", "LongAnimateDiff, 32 frames", frames=32, positions=64, advice=Advice(motion_scale=1.15))
LONG_64 = Family("long-64", "LongAnimateDiff, 64 frames", frames=64, positions=128, advice=Advice(steps=20, motion_scale=1.15))
LCM = Family(
    "lcm",
    "AnimateLCM",
    positions=64,
    original_steps=100,
    lora="AnimateLCM_sd15_t2v_lora",
    advice=Advice(
        sampler="LCM",
        steps=6,
        cfg=1.5,
        samplers=("LCM",),
        schedule_types=("Automatic",),
        steps_between=(4, 8),
        cfg_between=(1.0, 2.0),
    ),
)
LCM_I2V = Family(
    "lcm-i2v",
    "AnimateLCM-I2V",
    schedule=NoiseSchedule("betas", last=0.014),
    positions=64,
    original_steps=200,
    lora="AnimateLCM_sd15_i2v_lora",
    takes_image=True,
    encodes_image=True,
    advice=Advice(
        sampler="LCM",
        steps=4,
        cfg=1.0,
        denoising=1.0,
        samplers=("LCM",),
        schedule_types=("Automatic",),
        steps_between=(2, 25),
        cfg_between=(1.0, 2.0),
    ),
)
LIGHTNING = {
    steps: Family(f"lightning-{steps}", f"AnimateDiff-Lightning, {steps} step{'s' * (steps > 1)}", advice=_distilled(steps))
    for steps in (1, 2, 4, 8)
}
PIA = Family("pia", "PIA", unet_norms="over frames", takes_image=True, advice=Advice(denoising=1.0))

XL_BETA = Family(
    "xl-beta",
    "AnimateDiff-XL beta",
    base="SDXL",
    schedule=NoiseSchedule("sqrt_betas", last=0.020),
    motion_norms="over frames",
    advice=Advice(sampler="Euler", schedule_type="DDIM", steps=100, cfg=8.5, side=1024),
)
HOTSHOT = Family(
    "hotshot",
    "HotShot-XL",
    base="SDXL",
    schedule=STABLE_DIFFUSION,
    unet_norms="over frames",
    frames=8,
    positions=24,
    size_conditioning=(
        (1920, 1080),
        (512, 512),
    ),  # inference.py's own, and those of the validation in fine_tune.py; in this order
    advice=Advice(sampler="Euler a", steps=30, cfg=5.0, side=512),
)

FAMILIES = {
    family.key: family
    for family in (
        *(V1, TEMPORALDIFF, STABILIZED, V2, V3, LONG_32, LONG_64, LCM, LCM_I2V, *LIGHTNING.values(), PIA),
        *(XL_BETA, HOTSHOT),
    )
}

KNOWN_FILES = {
    "3cb569f7ce3dc6a1": TEMPORALDIFF,
    "016275b9e5ce42ed": TEMPORALDIFF,
    "39de8b71b1c09f10": STABILIZED,
    "0aaf157b9c51a0ae": STABILIZED,
    "5f45da3a6ffa5edb": LIGHTNING[1],
    "ca4ea6e68f4634d7": LIGHTNING[1],
    "29b4879520056657": LIGHTNING[2],
    "fbd62904484d3e08": LIGHTNING[2],
    "aeb66ae8ff4a868d": LIGHTNING[4],
    "8f3330914edd8fc2": LIGHTNING[4],
    "5173ea8209053dd5": LIGHTNING[8],
    "849e93641e2ae7dd": LIGHTNING[8],
    "fb08053b37ee27d6": LCM,
    "1997997a982432f5": LCM,
}
"""Published files with the keys and shapes of another family, by the first 16 digits of their SHA-256."""
