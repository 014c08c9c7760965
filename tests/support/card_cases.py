"""Calls a small UNet with each part of the method on a device besides the CPU: `python -m support.card_cases`.

Prints, as JSON by the name of the case, how far each result is from that of the same call on the CPU, on which device it is,
and what was copied between the devices in the last call.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from motion_module.attach import attached
from motion_module.camera_ctrl import Camera, load_camera
from motion_module.camera_poses import read_poses
from motion_module.checkpoint import load
from motion_module.context_windows import ContextWindows, StepWindows
from motion_module.deep_features import DeepFeatures
from motion_module.families import Family
from motion_module.frame_loras import added_by_frame
from motion_module.image_encoder import ImageFeatures
from motion_module.layer_offload import OffloadOnDemand, in_chunks
from motion_module.light_steps import LightSteps
from motion_module.lora import load_lora
from motion_module.motion_layers import Motion, SecondModule
from motion_module.motion_mask import MotionMask
from motion_module.motion_strength import LayerStrength, MotionStrength
from motion_module.network import MotionModule
from motion_module.pia import ConditionImage
from motion_module.row_layout import layout_of_call
from motion_module.self_attention import FirstFrameAttention, self_attention_over
from motion_module.sparse_control import SparseControl, controlled
from motion_module.sparse_ctrl import load_sparse_ctrl
from motion_module.step_reuse import NEGATIVE, StepReuse
from motion_module.windowed_unet import WindowedUNet
from support.authors_sparse import sparse_weights
from support.camera_weights import camera_weights, pose_file
from support.ldm_unet import make_unet
from support.on_a_card import OnCard
from support.published_layouts import module_weights
from support.tensor_memory import card

FRAMES = 4
WINDOWS = ContextWindows(FRAMES, 3, 1, uniform=False)
CPU = torch.device("cpu")
LORA = "down_blocks.1.motion_modules.0.temporal_transformer.proj_in_lora"


small_unet = cache(make_unet)


class Job:
    """A UNet with motion on a device, as a job has them: weights of ours begin on the CPU. `folder`: its files."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.unet = copy.deepcopy(small_unet())
        self.folder, self.device, self.step, self.calls = folder, device, 0, 2
        self.parts = ExitStack()
        self.unet.to(device)

    def module(self, family: str) -> tuple[MotionModule, Family]:
        description, module = load(self.file(family, lambda: module_weights(family)))
        return module, description.require_motion_module()

    def file(self, name: str, weights: Callable[[], dict[str, Tensor]]) -> Path:
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(1)
            save_file({key: tensor.contiguous() for key, tensor in weights().items()}, path)
        return path

    def layout_of(self, rows: int) -> Any:
        return layout_of_call(rows, FRAMES)

    def animate(self, family: str = "v3", layout_of: Any = None, image: ConditionImage | None = None, **how: Any) -> None:
        module, facts = self.module(family)
        motion = Motion(module, **how)
        self.enter(attached(self.unet, motion, facts, layout_of or self.layout_of, image))

    def step_windows(self) -> Callable[[], StepWindows]:
        windows = WINDOWS.at(0).to(self.device)
        return lambda: windows

    def enter(self, part: Any) -> None:
        self.parts.enter_context(part)

    def arguments(self, step: int) -> list[Tensor]:
        """Returns what the UNet is called with in a step, on its device."""
        draw = torch.Generator().manual_seed(step)
        x = torch.randn(FRAMES, 4, 8, 8, generator=draw).repeat(2, 1, 1, 1)
        context = torch.randn(2 * FRAMES, 7, 24, generator=draw)
        times = torch.full((2 * FRAMES,), 900 - 100 * step)
        return [given.to(self.device) for given in (x, times, context)]

    def call(self, arguments: list[Tensor]) -> Tensor:
        """Calls the UNet in the next step."""
        found: Tensor = self.unet(*arguments)
        self.step += 1
        return found


def picture() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def alone(_job: Job) -> None:
    """The UNet without anything of ours."""


def motion(job: Job) -> None:
    job.animate()


def motion_of_all_frames_together(job: Job) -> None:
    job.animate("v1")


def numbers_for_each_frame(job: Job) -> None:
    each = tuple(frame / FRAMES for frame in range(FRAMES))
    job.animate(strength=MotionStrength(LayerStrength(scale=each, effect=each)))


def two_modules(job: Job) -> None:
    job.animate(second=SecondModule(job.module("v2")[0], "chain", 0.3))


def mask(job: Job) -> None:
    shares = MotionMask(torch.rand(FRAMES, 64, 64, generator=torch.Generator().manual_seed(1)))
    job.animate(mask=lambda: shares)


def windows_of_the_attention(job: Job) -> None:
    job.animate(step_windows=job.step_windows())


def windows_of_the_unet(job: Job) -> None:
    windowed = WindowedUNet(WINDOWS, lambda: job.step, job.layout_of)
    job.enter(windowed.applied_to(job.unet))
    job.animate(layout_of=windowed.layout_of)


def frames_in_ram(job: Job) -> None:
    job.enter(in_chunks(job.unet, 3, job.device))
    job.animate(step_windows=job.step_windows(), device=lambda: job.device)


def frames_in_ram_on_demand(job: Job) -> None:
    """The first call finds too little memory."""
    offload = OffloadOnDemand(3, job.device, lambda _latents: True)
    job.enter(offload.applied_to(job.unet, job.unet))
    job.animate(device=lambda: job.device if offload.begun else None)

    def allocate(_module: nn.Module, inputs: Any) -> None:
        if len(inputs[0]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    job.parts.callback(job.unet.middle_block[0].in_layers[2].register_forward_pre_hook(allocate).remove)


def light_steps(job: Job, waiting: torch.device | None = None) -> None:
    """The calls are two full steps, each with a light one after it."""
    job.calls = 4
    deep = DeepFeatures(job.layout_of, waiting)
    reuse = StepReuse(
        LightSteps(2),
        deep,
        negative=True,
        step=lambda: job.step,
        steps=lambda: job.calls + 1,
        at_step=lambda _step: nullcontext(),
        layout_of=job.layout_of,
        conditions_of=lambda *_: [0, NEGATIVE],
    )
    job.enter(reuse.applied_to(job.unet))
    job.animate(rests=deep.rests)
    job.enter(deep.applied_to(job.unet))


def light_steps_with_features_in_ram(job: Job) -> None:
    light_steps(job, CPU)


def camera(job: Job) -> None:
    module = load_camera(job.file("camera", camera_weights))
    job.animate(camera=Camera(module, read_poses(pose_file(FRAMES))))


def image_encoder(job: Job) -> None:
    module, facts = job.module("lcm-i2v")
    encoder = module.image_encoder
    assert encoder is not None
    shown = ImageFeatures(encoder, picture().to(job.device))
    job.enter(attached(job.unet, Motion(module, image=shown), facts, job.layout_of))


def condition_image(job: Job) -> None:
    job.animate("pia", image=ConditionImage(picture().to(job.device), [1.0] * FRAMES))


def sparse_ctrl(job: Job) -> None:
    network = load_sparse_ctrl(job.file("v3_sd15_sparsectrl_rgb", lambda: sparse_weights("RGB")))
    control = SparseControl(network, [0, 3], lambda *_: picture().expand(2, -1, -1, -1), weights=(0.5,) * FRAMES)
    job.enter(controlled(job.unet, [control], job.layout_of))
    job.animate()


def lora_for_each_frame(job: Job) -> None:
    tensors = {f"{LORA}.down.weight": torch.randn(2, 64), f"{LORA}.up.weight": torch.randn(64, 2)}
    lora = load_lora(job.file("lora", lambda: tensors))
    module, facts = job.module("v3")
    each = tuple(frame / FRAMES for frame in range(FRAMES))
    job.enter(added_by_frame(job.unet, [module], [(lora, each)], job.layout_of))
    job.enter(attached(job.unet, Motion(module), facts, job.layout_of))


def attention_to_the_first_frame(job: Job) -> None:
    job.animate()
    job.enter(self_attention_over(job.unet, FirstFrameAttention(job.layout_of), 0.5))


def blocks_that_come_and_go(job: Job) -> None:
    """As `--lowvram` has them: the layers of the UNet are on the device only while they compute."""
    for block in (*job.unet.input_blocks, job.unet.middle_block, *job.unet.output_blocks):
        block.to("cpu")
        job.parts.callback(block.register_forward_pre_hook(lambda block, _inputs: block.to(job.device) and None).remove)
        job.parts.callback(block.register_forward_hook(lambda block, *_: block.to("cpu") and None).remove)
    job.animate()


CASES: dict[str, Callable[[Job], None]] = {
    case.__name__.replace("_", " "): case
    for case in (
        alone,
        motion,
        motion_of_all_frames_together,
        numbers_for_each_frame,
        two_modules,
        mask,
        windows_of_the_attention,
        windows_of_the_unet,
        frames_in_ram,
        frames_in_ram_on_demand,
        light_steps,
        light_steps_with_features_in_ram,
        camera,
        image_encoder,
        condition_image,
        sparse_ctrl,
        lora_for_each_frame,
        attention_to_the_first_frame,
        blocks_that_come_and_go,
    )
}


@contextmanager
def job_of(case: Callable[[Job], None], folder: Path, device: torch.device) -> Iterator[Job]:
    job = Job(folder, device)
    with job.parts:
        case(job)
        yield job


@torch.no_grad()
def measured(case: Callable[[Job], None], folder: Path) -> dict[str, Any]:
    with job_of(case, folder, CPU) as job:
        expected = [job.call(job.arguments(step)) for step in range(job.calls)]
    found, copies = [], []
    with OnCard() as mode, job_of(case, folder, card()) as job:
        for step in range(job.calls):
            arguments = job.arguments(step)
            mode.copies.clear()
            found.append(job.call(arguments))
            copies = list(mode.copies)
        difference = max(float((one.to("cpu") - other).abs().max()) for one, other in zip(found, expected))
    devices = sorted({one.device.type for one in found})
    return {"difference": difference, "largest": float(expected[-1].abs().max()), "devices": devices, "copies": copies}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({name: measured(case, Path(folder)) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
