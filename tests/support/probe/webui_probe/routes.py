"""The HTTP routes of the probe.

They are not in the script, because the WebUI does not add scripts to `sys.modules`, and pydantic could not resolve the types of
a body's fields there.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from fastapi import FastAPI
from modules import call_queue, shared
from pydantic import BaseModel

from webui_probe.bypass import Bypass, WrappedBlock
from webui_probe.digests import checkpoint_digests, unet_digests
from webui_probe.dtypes import Dtypes
from webui_probe.identity import Identity
from webui_probe.recorder import Recorder
from webui_probe.reference import EffectiveWeights, LentSchedule, Reference, cameras, differences
from webui_probe.sabotage import BrokenMethod, LateFault
from webui_probe.triggers import (
    AddedWords,
    ControlFault,
    Fault,
    Flags,
    FullMemory,
    Gallery,
    Interrupter,
    Nested,
    OtherFrames,
    SameNoise,
)

ROOT = "/probe/v1"

identity = Identity()
recorder = Recorder()
fault = Fault()
full_memory = FullMemory()
interrupter = Interrupter()
same_noise = SameNoise()
lent_schedule = LentSchedule()
control_fault = ControlFault()
nested = Nested()
added_words = AddedWords()
other_frames = OtherFrames()
gallery = Gallery()
flags = Flags()
late_fault = LateFault()
broken_method = BrokenMethod()
bypass = Bypass()
wrapped_block = WrappedBlock()
reference = Reference()
effective_weights = EffectiveWeights()
dtypes = Dtypes()


class RecordBody(BaseModel):
    on: bool


class SeedBody(BaseModel):
    seed: int = 0


class SwitchBody(BaseModel):
    on: bool


class FaultBody(BaseModel):
    step: int | None = None
    layer: str = "middle_block.1"
    times: int = 1


class FullMemoryBody(BaseModel):
    rows: int | None = None


class ControlFaultBody(BaseModel):
    call: int


class LateFaultBody(BaseModel):
    at: Literal[
        "start", "encode", "gif", "png", "deliver", "init", "parse", "enter", "pass", "step", "layer", "decode", "models"
    ]


class BypassBody(BaseModel):
    how: Literal["sampler", "unet"] | None = None
    step: int = 1


class WrapBody(BaseModel):
    how: Literal["around", "in place"] | None = None


class BreakBody(BaseModel):
    how: (
        Literal[
            "no positions",
            "frames permuted",
            "schedule of the checkpoint",
            "norms per frame",
            "poses reversed",
            "pose encoder off",
        ]
        | None
    ) = None


class ReferenceBody(BaseModel):
    module: str | None = None
    frames: int = 0
    mask: list[float] | None = None
    loras: dict[str, float] = {}
    betas: str = "straight"
    sizes: list[int] | None = None
    shares: list[list[list[float]]] | None = None
    shows_picture: bool = False
    sparse: list[dict[str, Any]] = []
    over_frames: bool = False
    motion_over_frames: bool = False
    head_width: int | None = None
    camera: str | None = None
    poses: str = ""
    camera_strength: float = 1.0


class DifferencesBody(BaseModel):
    module: str
    own_file: str
    frames: int
    over_frames: bool = False
    motion_over_frames: bool = False
    head_width: int | None = None


class EffectiveWeightsBody(BaseModel):
    file: str
    now: bool = False


class InterruptBody(BaseModel):
    step: int | None = None
    how: Literal["interrupt", "skip"] = "interrupt"


class NestedBody(BaseModel):
    at: Literal["process_before_every_sampling", "postprocess_image", "postprocess_batch"] | None = None
    mode: Literal["process_images", "postprocess"] = "process_images"


class AddedWordsBody(BaseModel):
    at: Literal["process", "before_process_batch"] | None = None
    before: str = ""
    after: str = ""


class OtherFramesBody(BaseModel):
    pictures: list[str] = []


class SettingsBody(BaseModel):
    changes: dict[str, Any]


class GalleryBody(BaseModel):
    on: bool
    stamps: bool = False


class FlagsBody(BaseModel):
    is_sd2: bool | None = None
    is_sdxl: bool | None = None
    custom_unet: bool | None = None


def post_record(body: RecordBody) -> dict[str, Any]:
    if body.on:
        recorder.arm()
    else:
        recorder.disarm()
    return {"armed": recorder.armed}


def post_dtypes(body: SwitchBody) -> dict[str, list[str]]:
    """Begins to collect dtypes, or ends it and returns those that were found."""
    with call_queue.queue_lock:
        dtypes.arm(body.on)
        return dtypes.report()


def post_seed(body: SeedBody) -> dict[str, Any]:
    """Seeds torch's global generator, from which the WebUI draws the VAE encoder's noise without ever seeding it."""
    torch.manual_seed(body.seed)
    return {}


def post_same_noise(body: SwitchBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        same_noise.arm(body.on)
    return {}


def post_fault(body: FaultBody) -> dict[str, Any]:
    if body.step is None:
        fault.disarm()
    else:
        fault.arm(body.step, body.layer, body.times)
    return get_fault()


def get_fault() -> dict[str, Any]:
    return {"fired": fault.fired}


def post_full_memory(body: FullMemoryBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        if body.rows is None:
            full_memory.disarm()
        else:
            full_memory.arm(body.rows)
    return {}


def post_control_fault(body: ControlFaultBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        control_fault.arm(body.call)
        return {"fired": control_fault.fired, "moves": control_fault.moves}


def post_late_fault(body: LateFaultBody) -> dict[str, Any]:
    late_fault.arm(body.at)
    return {}


def post_bypass(body: BypassBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        bypass.arm(body.how, body.step)
    return {}


def post_wrap_block(body: WrapBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        wrapped_block.arm(body.how)
    return {}


def post_break_method(body: BreakBody) -> dict[str, Any]:
    broken_method.set(body.how)
    return {}


def post_schedule(body: SwitchBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        lent_schedule.arm(body.on)
    return {}


def post_reference(body: ReferenceBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        if body.module is None:
            reference.disarm()
        else:
            reference.arm(**body.dict())
    return {}


def post_differences(body: DifferencesBody) -> dict[str, float]:
    with call_queue.queue_lock:
        return differences(**body.dict())


def post_effective_weights(body: EffectiveWeightsBody) -> dict[str, Any]:
    """Writes the effective weights when the next clip is about to be sampled, or now."""
    with call_queue.queue_lock:
        if body.now:
            effective_weights.write(body.file)
        else:
            effective_weights.arm(body.file)
    return {}


def post_interrupt(body: InterruptBody) -> dict[str, Any]:
    interrupter.arm(body.step, body.how)
    return {}


def post_nested(body: NestedBody) -> dict[str, Any]:
    nested.arm(body.at, body.mode)
    return nested.report()


def post_added_words(body: AddedWordsBody) -> dict[str, Any]:
    added_words.arm(body.at, body.before, body.after)
    return {}


def post_other_frames(body: OtherFramesBody) -> dict[str, Any]:
    other_frames.arm(body.pictures)
    return {}


def post_gallery(body: GalleryBody) -> dict[str, Any]:
    gallery.arm(body.on, body.stamps)
    return {}


def post_flags(body: FlagsBody) -> dict[str, Any]:
    with call_queue.queue_lock:
        for name, value in body.dict(exclude_unset=True).items():
            if name == "custom_unet":
                flags.set_custom_unet(value)
            else:
                flags.set_model_flag(name, value)
        return flags.report()


def post_settings(body: SettingsBody) -> dict[str, Any]:
    """Changes settings as the Settings page does, also those that the API cannot change. Returns their values before."""
    with call_queue.queue_lock:
        before = {name: getattr(shared.opts, name) for name in body.changes if name in shared.opts.data_labels}
        for name, value in body.changes.items():
            shared.opts.set(name, value)
    return before


def get_unet_digest() -> dict[str, str]:
    with call_queue.queue_lock:
        return unet_digests()


def get_cameras() -> dict[str, int]:
    with call_queue.queue_lock:
        return cameras()


def get_checkpoint_digest(file: str) -> dict[str, str]:
    with call_queue.queue_lock:
        return checkpoint_digests(file)


def add_routes(_demo: Any, app: FastAPI) -> None:
    """Registers all routes."""
    get_routes = {
        "state": identity.state,
        "unet-digest": get_unet_digest,
        "cameras": get_cameras,
        "checkpoint-digest": get_checkpoint_digest,
        "record": recorder.report,
        "fault": get_fault,
        "nested": nested.report,
        "gallery": gallery.report,
        "flags": flags.report,
    }
    post_routes = {
        "record": post_record,
        "dtypes": post_dtypes,
        "seed": post_seed,
        "same-noise": post_same_noise,
        "schedule": post_schedule,
        "fault": post_fault,
        "full-memory": post_full_memory,
        "control-fault": post_control_fault,
        "interrupt-at": post_interrupt,
        "late-fault": post_late_fault,
        "bypass": post_bypass,
        "wrap-block": post_wrap_block,
        "break-method": post_break_method,
        "reference": post_reference,
        "differences": post_differences,
        "effective-weights": post_effective_weights,
        "nested": post_nested,
        "added-words": post_added_words,
        "gallery": post_gallery,
        "other-frames": post_other_frames,
        "flags": post_flags,
        "settings": post_settings,
    }
    for name, endpoint in get_routes.items():
        app.add_api_route(f"{ROOT}/{name}", endpoint, methods=["GET"])
    for name, endpoint in post_routes.items():
        app.add_api_route(f"{ROOT}/{name}", endpoint, methods=["POST"])
