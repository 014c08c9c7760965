"""Motion module files: what a file is, and its weights in this package's layout.

A file is identified by its keys and shapes. What those leave open (Lightning has the shapes of v2) is assumed from its name,
and the description says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import image_encoder, sparse_ctrl_keys
from .families import (
    HOTSHOT,
    KNOWN_FILES,
    LCM,
    LCM_I2V,
    LIGHTNING,
    LONG_32,
    LONG_64,
    PIA,
    STABILIZED,
    TEMPORALDIFF,
    V1,
    V2,
    V3,
    XL_BETA,
    Family,
)
from .key_layouts import TABLES, TRANSFORMER_BLOCK, Layers, Layout, expected_blocks, expected_shapes, key_of, layers_of
from .lora import kinds_of
from .network import HEADS, NORM_GROUPS, MotionModule, sinusoidal_positions
from .noise_schedule import NoiseSchedule
from .weight_files import DIFFUSERS_WEIGHTS, CheckpointError, Entry, WeightFile, open_weights, weights_of

TRAINING = "animatediff_training"
"""The entry of a file's header that describes how this package trained the file."""
MOST_POSITIONS = 10_000
"""The most rows of a positional encoding that is not in the file."""
CONDITION_CHANNELS = 5
"""The channels that PIA's first convolution takes in addition to the four of the noise: a mask, and the latents of an image."""

TRAJECTORY_CHANNELS = 128
"""The channels that MotionCtrl's adapter takes: how far pixels move across and down, in squares of eight by eight."""


@dataclass(frozen=True)
class Description:
    """What a weight file is, from its keys and shapes.

    `family` is None if the file is not a motion module that can be used; `kind` and `reason` then say what it is instead.
    `assumed`: a sentence on what keys and shapes leave open about the family; empty if nothing. `alternatives`: the families
    that have these keys and shapes. `channels`: by UNet block. `length`: rows of the positional encoding. `training`: how this
    package trained the file, from its header; empty if it did not.
    """

    path: Path
    container: str
    kind: str
    reason: str
    family: Family | None = None
    assumed: str = ""
    alternatives: tuple[Family, ...] = ()
    layout: Layout = "original"
    channels: dict[str, int] | None = None
    length: int = 0
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)

    def with_hash(self, sha256: str | None) -> Description:
        """Returns the same description; with a certain family if this is the SHA-256 of a known published file."""
        known = KNOWN_FILES.get((sha256 or "")[:16])
        return replace(self, family=known, assumed="") if known in self.alternatives else self

    @property
    def is_lora(self) -> bool:
        """Whether the file is a LoRA that AnimateDiff applies."""
        return self.kind in _LORA_KINDS.values()

    @property
    def is_camera(self) -> bool:
        """Whether the file is CameraCtrl's, which acts beside a motion module."""
        return self.kind == _CAMERA

    def require_motion_module(self) -> Family:
        """Returns the family. Raises CheckpointError if the file cannot be used as a motion module."""
        name = self.path.name
        faults = [f"{key} is missing" for key in self.missing] + list(self.misshapen)
        faults += [f"{key} is unknown" for key in self.unexpected]
        if faults:
            more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise CheckpointError(
                f"{name} is an incomplete or changed motion module: {'; '.join(faults[:3])}{more}. Download it again."
            )
        if self.is_lora:
            raise CheckpointError(
                f"{name} cannot be used as a motion module: it is {self.kind}. Put it into the folder models/Lora and write "
                f"<lora:{self.path.stem}:1> in the prompt, and choose a motion module."
            )
        if self.is_camera:
            raise CheckpointError(
                f"{name} cannot be used as a motion module: it is {self.kind}. Choose it as Camera module (camera), and a "
                "motion module, such as v3_sd15_mm.ckpt, as Motion module (model)."
            )
        if self.family is None:
            raise CheckpointError(
                f"{name} cannot be used as a motion module: it is {self.kind} ({self.reason}). "
                "Choose a motion module, such as v3_sd15_mm.ckpt for Stable Diffusion 1.5."
            )
        return self.family


def describe(path: Path) -> Description:
    """Describes a file, or a folder of diffusers, without reading weights. Raises CheckpointError if it cannot be opened."""
    path = weights_of(path)
    return _describe(path, open_weights(path))


def load(path: Path, family: Family | None = None) -> tuple[Description, MotionModule]:
    """Reads a motion module on the CPU in the dtype of its file; 8-bit floats, which are for storage only, become float16.

    `family`: the family to use it as, if not the one that the file seems to be. Raises CheckpointError if the file is not a
    motion module that can be used.
    """
    path = weights_of(path)
    file = open_weights(path)
    description = _describe(path, file)
    detected = description.require_motion_module()
    family = family or detected
    assert description.channels is not None
    weights: dict[str, Tensor] = {}
    for block, keys in layers_of(file.entries)[1].items():
        tensors = {name: file.weight(key) for name, key in keys.items()}
        weights.update({f"layers.{block}.{name}": value for name, value in to_our_layout(tensors, description.length).items()})
    takes_condition = family.takes_image and not family.encodes_image
    if takes_condition:
        weights["condition_kernel"] = file.weight(conv_in(file.entries))[:, -CONDITION_CHANNELS:].clone()
    if family.encodes_image:
        keys = image_encoder.keys_of(file.entries)
        weights.update({f"image_encoder.{name}": file.weight(key) for name, key in keys.items()})
    with torch.device("meta"):  # without memory, since every weight is replaced below
        module = MotionModule(
            description.channels,
            description.length,
            takes_condition=takes_condition,
            image_encoder=image_encoder.encoder_for(description.channels) if family.encodes_image else None,
            norms=family.motion_norms,
        )
    module.load_state_dict(weights, strict=True, assign=True)
    return description, module.eval().requires_grad_(False)


def _config_beside(path: Path) -> dict[str, Any]:
    """Returns the `config.json` of a diffusers MotionAdapter whose weights are at `path`; empty if there is none."""
    if not path.stem.startswith(DIFFUSERS_WEIGHTS):
        return {}
    try:
        config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) and config.get("_class_name") == "MotionAdapter" else {}


def _length_beside(path: Path) -> int:
    """Returns the rows of the positional encoding that the `config.json` of a diffusers MotionAdapter gives; 0 if none."""
    length = _config_beside(path).get("motion_max_seq_length")
    return length if type(length) is int and 0 < length <= MOST_POSITIONS else 0


def to_our_layout(tensors: dict[str, Tensor], length: int, attentions: int = 2) -> dict[str, Tensor]:
    """Returns the tensors of one published layer under the names of `TemporalTransformer`, with q, k and v in one matrix.

    `length`: rows of the positional encoding, if the file has none. `attentions`: how many the layer has.
    """
    ours = {name: tensors[name] for part in ("norm", "proj_in", "proj_out") for name in (part + ".weight", part + ".bias")}
    for kind in ("weight", "bias"):
        ours[f"feed_forward_norm.{kind}"] = tensors[f"{TRANSFORMER_BLOCK}ff_norm.{kind}"]
        ours[f"feed_forward.widen.{kind}"] = tensors[f"{TRANSFORMER_BLOCK}ff.net.0.proj.{kind}"]
        ours[f"feed_forward.narrow.{kind}"] = tensors[f"{TRANSFORMER_BLOCK}ff.net.2.{kind}"]
    for index, table in enumerate(TABLES[:attentions]):
        attention = f"{TRANSFORMER_BLOCK}attention_blocks.{index}."
        ours[f"attentions.{index}.to_qkv.weight"] = torch.cat(
            [tensors[f"{attention}{name}.weight"] for name in ("to_q", "to_k", "to_v")]
        )
        # A copy: a view would keep the whole file mapped.
        ours[f"attentions.{index}.positional_encoding"] = (
            tensors[table][0].clone() if table in tensors else sinusoidal_positions(length, len(tensors["norm.bias"]))
        )
        for kind in ("weight", "bias"):
            ours[f"attentions.{index}.to_out.{kind}"] = tensors[f"{attention}to_out.0.{kind}"]
            ours[f"attention_norms.{index}.{kind}"] = tensors[f"{TRANSFORMER_BLOCK}norms.{index}.{kind}"]
    return ours


def published(module: MotionModule, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns `weights`, whose names are those of `module`, under the authors' keys; undoes what `load` does to names."""
    tensors: dict[str, Tensor] = {}
    for block in module.layers:
        prefix = f"layers.{block}."
        own = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
        tensors.update({key_of(block, name, "original"): tensor for name, tensor in to_authors_layout(own).items()})
    return tensors


def to_authors_layout(ours: dict[str, Tensor], attentions: int = 2) -> dict[str, Tensor]:
    """Returns tensors in the authors' layout; undoes `to_our_layout`."""
    theirs = {name: ours[name] for part in ("norm", "proj_in", "proj_out") for name in (part + ".weight", part + ".bias")}
    for kind in ("weight", "bias"):
        theirs[f"{TRANSFORMER_BLOCK}ff_norm.{kind}"] = ours[f"feed_forward_norm.{kind}"]
        theirs[f"{TRANSFORMER_BLOCK}ff.net.0.proj.{kind}"] = ours[f"feed_forward.widen.{kind}"]
        theirs[f"{TRANSFORMER_BLOCK}ff.net.2.{kind}"] = ours[f"feed_forward.narrow.{kind}"]
    for index, table in enumerate(TABLES[:attentions]):
        attention = f"{TRANSFORMER_BLOCK}attention_blocks.{index}."
        theirs[table] = ours[f"attentions.{index}.positional_encoding"][None]
        for name, matrix in zip(("to_q", "to_k", "to_v"), ours[f"attentions.{index}.to_qkv.weight"].chunk(3)):
            theirs[f"{attention}{name}.weight"] = matrix
        for kind in ("weight", "bias"):
            theirs[f"{attention}to_out.0.{kind}"] = ours[f"attentions.{index}.to_out.{kind}"]
            theirs[f"{TRANSFORMER_BLOCK}norms.{index}.{kind}"] = ours[f"attention_norms.{index}.{kind}"]
    return theirs


# --- what a file is ---


def _describe(path: Path, file: WeightFile) -> Description:
    layout, layers = layers_of(file.entries)
    foreign = _foreign_kind(file.entries, layers)
    inside = set() if foreign else _keys_in(layers) | {*image_encoder.keys_of(file.entries).values()}
    common: dict[str, Any] = {
        "path": path,
        "container": file.container,
        "layout": layout,
        "parameters": sum(math.prod(file.entries[key].shape) for key in inside or file.entries),
        "dtypes": tuple(sorted({str(file.entries[key].dtype)[6:] for key in inside or file.entries})),
        "other": tuple(sorted(key for key in file.entries if key not in inside)),
        "training": file.header_json(TRAINING),
    }
    if foreign:
        kind, reason = foreign
        return Description(kind=kind, reason=reason, **common)
    rows = _table_rows(file.entries, layers)
    length = rows or (_length_beside(path) if layout == "diffusers" else 0)
    candidates, reason = _candidates(file.entries, layout, layers, length)
    family = next((family for family in candidates if _named_like(family, path)), candidates[0])
    return Description(
        kind="a motion module",
        reason=reason,
        family=_as_trained(family, common["training"], length or family.positions),
        assumed=_assumption(family, candidates, path),
        alternatives=candidates,
        length=length or family.positions,
        **_check(file.entries, layers, layout, rows),
        **common,
    )


_LORA_KINDS = {
    frozenset({"motion"}): "a motion LoRA",
    frozenset({"image"}): "a domain adapter, or another LoRA for the attention of the image UNet",
    frozenset({"motion", "image"}): "a motion LoRA with a part for the image UNet",
}

_LOW_RANK = re.compile(r"lora_(down|up|A|B)\b|\.lora\.(down|up)|_lora\.(down|up)|hada_w1|lokr_w1")
_CAMERA = "a CameraCtrl module"
_FOREIGN_KINDS = (
    (r"qkv_merge", _CAMERA, "keys named qkv_merge"),
    (r"cc_projection", "a MotionCtrl module for camera motion", "keys named cc_projection"),
    (r"to_k_temp_xy", "a Direct-a-Video module for Zeroscope", "keys of its camera layers"),
    (
        r"temporal_res_block|temporal_transformer_blocks|time_mixer|time_stack",
        "a Stable Video Diffusion model, such as AnimateLCM-SVD",
        "layers along time in its image UNet",
    ),
    (r"control_model\.|input_hint_block|zero_convs|controlnet_cond_embedding", "a ControlNet", "keys of a control model"),
    (r"model\.diffusion_model\.input_blocks", "a Stable Diffusion checkpoint", "keys of an image UNet"),
    (r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|mid)\.", "a VAE", "keys of an image encoder and decoder"),
    (r"^(cond_stage_model\.transformer\.)?text_model\.encoder\.", "a CLIP text encoder", "keys of a text encoder"),
)


_IMAGE_UNET = re.compile(r"(?:module\.|unet\.)*(?:down_blocks\.\d+\.(?:resnets|attentions)|input_blocks\.\d+)\.")
"""The image UNet of the authors and of diffusers, or LDM's."""


def _foreign_kind(entries: dict[str, Entry], layers: Layers) -> tuple[str, str] | None:
    """Returns what the file is and why, if it is not a motion module: (kind, reason)."""
    if not entries:
        return "a file without weights", "it contains no tensors"
    complete_layers = any("norm.weight" in keys for keys in layers.values())  # a training dump may have low-rank keys too
    if not complete_layers and (kinds := kinds_of(entries)):
        return _LORA_KINDS[frozenset(kinds)], "low-rank keys"
    if not complete_layers and any(_LOW_RANK.search(key) for key in entries):
        return "a LoRA", "low-rank keys"
    if sparse := sparse_ctrl_keys.kind_of(entries):
        return f"a SparseCtrl network ({sparse})", "keys of motion layers and of a condition embedding"
    for pattern, kind, reason in _FOREIGN_KINDS:
        if any(re.search(pattern, key) for key in entries):
            return kind, reason
    if not layers:
        return _without_layers(entries)
    if whole_numbers := {str(entries[key].dtype)[6:] for key in _keys_in(layers) if not entries[key].dtype.is_floating_point}:
        return (
            "a motion module of whole numbers, quantised for another program",
            f"its weights are {', '.join(sorted(whole_numbers))}",
        )
    return None


def _without_layers(entries: dict[str, Entry]) -> tuple[str, str]:
    """Returns what a file without motion layers is, and why."""
    if any(_IMAGE_UNET.match(key) for key in entries):
        return "an image UNet without motion layers", "keys of an image UNet, as after the authors' first training stage"
    if image_encoder.keys_of(entries):
        return "the image encoder of AnimateLCM-I2V without its motion layers", "keys of an image encoder alone"
    if any(key.endswith("conv_in.weight") and entries[key].shape[1:2] == (TRAJECTORY_CHANNELS,) for key in entries):
        return "a MotionCtrl module for object motion", f"its first convolution takes {TRAJECTORY_CHANNELS} channels"
    return "a file of an unknown kind", f"none of its {len(entries)} tensors has a key of a motion module"


def _keys_in(layers: Layers) -> set[str]:
    return {key for keys in layers.values() for key in keys.values()}


def _levels(layers: Layers) -> int:
    """Returns the resolution levels of the UNet that the module is made for: four in SD 1.5, three in SDXL."""
    return 4 if any(block.startswith(("down_3_", "up_3_")) for block in layers) else 3


def conv_in(entries: dict[str, Entry]) -> str:
    """Returns the key of the UNet's first convolution, if the file has one that takes PIA's channels; else an empty text."""
    for key in ("conv_in.weight", "module.conv_in.weight", "unet.conv_in.weight"):
        if key in entries and entries[key].shape[1:2] == (4 + CONDITION_CHANNELS,):
            return key
    return ""


def _table_rows(entries: dict[str, Entry], layers: Layers) -> int:
    """Returns the rows of the positional encodings; 0 if the file has none."""
    tables = (keys[name] for keys in layers.values() for name in TABLES if name in keys)
    shape = entries[table].shape if (table := next(tables, "")) else ()
    return shape[1] if len(shape) == 3 else 0


_BY_STEPS = tuple(LIGHTNING[steps] for steps in (1, 2, 8, 4))
"""The last one is assumed if the file's name has no number of steps."""


def _candidates(entries: dict[str, Entry], layout: Layout, layers: Layers, length: int) -> tuple[tuple[Family, ...], str]:
    """Returns the families that have these keys and shapes, the likeliest first, and why."""
    if layout == "hotshot":
        return (HOTSHOT,), "keys named temporal_attentions"
    known = f"{length} positions" if length else "no positional encoding"
    if _levels(layers) == 3:
        reason = f"three levels, {known}"
        return ((HOTSHOT, XL_BETA), reason) if length == HOTSHOT.positions else ((XL_BETA, HOTSHOT), reason)
    if key := conv_in(entries):
        return (PIA,), f"{key} takes nine channels"
    if image_encoder.keys_of(entries):
        return (LCM_I2V,), "keys of an image encoder"
    if "mid_0" not in layers:
        reason = f"no layer in the middle block, {known}"
        return ((V1, TEMPORALDIFF, STABILIZED, V3), reason) if length == V1.positions else ((V3, V1), reason)
    reason = f"a layer in the middle block, {known}"
    if length == 0:
        return (LCM, V2, *_BY_STEPS), reason
    if length == LONG_64.positions:
        return (LONG_64,), reason
    if length == LONG_32.positions:
        return (LONG_32, LCM), reason
    return (V2, *_BY_STEPS, LCM), reason


def _as_trained(family: Family, training: Mapping[str, Any], length: int) -> Family:
    """Returns the family with the noise schedule and the frames that a file was trained with, if its header has them."""
    try:
        facts = training["noise_schedule"]
        schedule = NoiseSchedule(facts["straight_in"], float(facts["first"]), float(facts["last"]))
        frames = training["frames"]
        possible = schedule.straight_in in ("betas", "sqrt_betas") and 0 < schedule.first < schedule.last < 1
        possible = possible and facts["steps"] == schedule.steps and type(frames) is int and 1 <= frames <= length
    except (KeyError, TypeError, ValueError, OverflowError):
        return family
    return replace(family, schedule=schedule, frames=frames) if possible else family


_NAMES = {
    TEMPORALDIFF.key: "temporaldiff",
    STABILIZED.key: "stabilized",
    LCM.key: "lcm",
    LONG_32.key: "long",
    V2.key: r"v2|v1-5-2|mm-p_0",
    HOTSHOT.key: r"hotshot|hsxl",
    **{family.key: rf"lightning.*{steps}[-_ ]?step" for steps, family in LIGHTNING.items() if steps != 4},
    LIGHTNING[4].key: "lightning",  # also if a name has no number of steps
}


def _named_like(family: Family, path: Path) -> bool:
    """Returns whether the name of a file, or of a folder of diffusers, says that it is of a family."""
    name = path.parent.name if path.stem.startswith(DIFFUSERS_WEIGHTS) else path.stem
    return family.key in _NAMES and re.search(_NAMES[family.key], name, re.IGNORECASE) is not None


def _assumption(family: Family, candidates: tuple[Family, ...], path: Path) -> str:
    """Returns a sentence on what keys and shapes leave open about the family; empty if other candidates would act the same."""
    if family is not candidates[0]:
        return f"That it is {family.title} is assumed from its name."
    distilled = [other.title for other in candidates if other.advice.samplers and other is not family]
    if not distilled or family.advice.samplers or _named_like(family, path):
        return ""
    return f"That it is {family.title} is assumed; {distilled[0]} and others are built alike."


def _check(entries: dict[str, Entry], layers: Layers, layout: Layout, rows: int) -> dict[str, Any]:
    """Returns the channels of each block, keys that are missing or unknown, and descriptions of wrong shapes."""
    channels: dict[str, int] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    blocks = expected_blocks(_levels(layers), "mid_0" in layers)
    unexpected = [key for block, keys in layers.items() if block not in blocks for key in keys.values()]
    for block in blocks:
        keys = layers.get(block, {})
        if "norm.weight" not in keys:
            missing.append(key_of(block, "norm.weight", layout))
            continue
        norm = entries[keys["norm.weight"]].shape
        if len(norm) != 1:
            misshapen.append(f"{keys['norm.weight']} has {len(norm)} dimensions, not one")
            continue
        (count,) = norm
        channels[block] = count
        if not count or count % NORM_GROUPS or count % HEADS:
            misshapen.append(f"{block} has {count} channels, which cannot be divided into {NORM_GROUPS} groups")
        expected = expected_shapes(count, rows)
        unexpected += [key for name, key in keys.items() if name not in expected]
        missing += [key_of(block, name, layout) for name in expected if name not in keys]
        misshapen += _misshapen(entries, keys, expected)
    kernel = (channels.get("down_0_0", 0), 4 + CONDITION_CHANNELS, 3, 3)
    if (key := conv_in(entries)) and entries[key].shape != kernel:
        misshapen.append(f"{key} has the shape {list(entries[key].shape)}, not {list(kernel)}")
    if (keys := image_encoder.keys_of(entries)) and all(channels.get(block) for block in image_encoder.LEVELS):
        shapes = image_encoder.expected_shapes(channels)
        unexpected += [key for name, key in keys.items() if name not in shapes]
        missing += [image_encoder.PREFIX + name for name in shapes if name not in keys]
        misshapen += _misshapen(entries, keys, shapes)
    return {
        "channels": channels,
        "missing": tuple(dict.fromkeys(missing)),
        "misshapen": tuple(dict.fromkeys(misshapen)),
        "unexpected": tuple(unexpected),
    }


def _misshapen(entries: dict[str, Entry], keys: dict[str, str], expected: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yields descriptions of wrong shapes. `keys`: those in the file, by the names in `expected`."""
    for name, shape in expected.items():
        if name in keys and (actual := entries[keys[name]].shape) != shape:
            yield f"{keys[name]} has the shape {list(actual)}, not {list(shape)}"
