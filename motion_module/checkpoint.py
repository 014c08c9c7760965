"""Motion module files: what a file is, and its weights in our layout.

A file is known by its keys and shapes, never by its name. The published grammar (guoyww/AnimateDiff) is
`{down_blocks.I|mid_block|up_blocks.I}.motion_modules.J.temporal_transformer.…`, sometimes under `module.` (DDP).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .families import V1, V2, V3, Family
from .files import CheckpointError, Entry, WeightFile, open_weights
from .network import HEADS, NORM_GROUPS, MotionModule

_LAYER_KEY = re.compile(
    r"(?:module\.)?(?:(?P<side>down|up)_blocks\.(?P<block>\d+)|(?P<mid>mid)_block)"
    r"\.motion_modules\.(?P<index>\d+)\.temporal_transformer\.(?P<rest>.+)"
)
_MIDDLE = "transformer_blocks.0."
_POSITIONS = _MIDDLE + "attention_blocks.{}.pos_encoder.pe"


@dataclass(frozen=True)
class Description:
    """What a weight file is, from its keys and shapes.

    `family` is None where the file is no motion module that can be used; `kind` and `reason` then say what it is instead.
    `channels`: width at each place of the UNet. `length`: rows of the position table.
    """

    path: Path
    container: str
    kind: str
    reason: str
    family: Family | None = None
    channels: dict[str, int] | None = None
    length: int = 0
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def require_motion_module(self) -> Family:
        """The family; raises CheckpointError with a sentence for the user where the file cannot be used."""
        name = self.path.name
        if self.missing or self.misshapen:
            faults = [*(f"{key} is missing" for key in self.missing), *self.misshapen]
            more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
            raise CheckpointError(
                f"{name} is an incomplete or altered motion module: {'; '.join(faults[:3])}{more}. Download it again."
            )
        if self.family is None:
            raise CheckpointError(
                f"{name} cannot be used as a motion module: it is {self.kind} ({self.reason}). "
                "Choose a motion module for Stable Diffusion 1.5, such as v3_sd15_mm.ckpt."
            )
        return self.family


def describe(path: Path) -> Description:
    """Says what a file is without reading its weights. Raises CheckpointError if it cannot be opened."""
    return _describe(path, open_weights(path))


def load(path: Path) -> tuple[Description, MotionModule]:
    """Reads a motion module, in the number format of its file, on the CPU.

    Raises CheckpointError if the file is not a motion module that can be used.
    """
    file = open_weights(path)
    description = _describe(path, file)
    description.require_motion_module()
    assert description.channels is not None
    weights: dict[str, Tensor] = {}
    for place, keys in _layers_of(file.entries).items():
        tensors = {rest: file.read(key) for rest, key in keys.items()}
        weights.update({f"layers.{place}.{name}": value for name, value in _to_our_layout(tensors).items()})
    with torch.device("meta"):  # every weight is about to be replaced: make none
        module = MotionModule(description.channels, description.length)
    module.load_state_dict(weights, strict=True, assign=True)
    return description, module.eval().requires_grad_(False)


def _layers_of(entries: dict[str, Entry]) -> dict[str, dict[str, str]]:
    """place -> {key below the layer: key in the file}."""
    layers: dict[str, dict[str, str]] = {}
    for key in entries:
        if match := _LAYER_KEY.fullmatch(key):
            side = match["side"] or match["mid"]
            place = "_".join(part for part in (side, match["block"], match["index"]) if part)
            layers.setdefault(place, {})[match["rest"]] = key
    return layers


def _expected_shapes(channels: int, length: int) -> dict[str, tuple[int, ...]]:
    """Keys below one layer of the published files, with the shapes they must have."""
    wide = 4 * channels
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("norm", "proj_in", "proj_out", _MIDDLE + "ff_norm"):
        shapes[name + ".bias"] = (channels,)
        shapes[name + ".weight"] = (channels, channels) if name.startswith("proj") else (channels,)
    for block in (0, 1):
        attention = f"{_MIDDLE}attention_blocks.{block}."
        shapes.update({f"{attention}{name}.weight": (channels, channels) for name in ("to_q", "to_k", "to_v")})
        shapes[attention + "to_out.0.weight"] = (channels, channels)
        shapes[attention + "to_out.0.bias"] = (channels,)
        shapes[_POSITIONS.format(block)] = (1, length, channels)
        shapes[f"{_MIDDLE}norms.{block}.weight"] = shapes[f"{_MIDDLE}norms.{block}.bias"] = (channels,)
    shapes[_MIDDLE + "ff.net.0.proj.weight"] = (2 * wide, channels)
    shapes[_MIDDLE + "ff.net.0.proj.bias"] = (2 * wide,)
    shapes[_MIDDLE + "ff.net.2.weight"] = (channels, wide)
    shapes[_MIDDLE + "ff.net.2.bias"] = (channels,)
    return shapes


def _to_our_layout(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one published layer under the names of `TemporalTransformer`, with q, k and v in one matrix."""
    ours = {name: tensors[name] for part in ("norm", "proj_in", "proj_out") for name in (part + ".weight", part + ".bias")}
    for kind in ("weight", "bias"):
        ours[f"feed_forward_norm.{kind}"] = tensors[f"{_MIDDLE}ff_norm.{kind}"]
        ours[f"feed_forward.widen.{kind}"] = tensors[f"{_MIDDLE}ff.net.0.proj.{kind}"]
        ours[f"feed_forward.narrow.{kind}"] = tensors[f"{_MIDDLE}ff.net.2.{kind}"]
    for block in (0, 1):
        attention = f"{_MIDDLE}attention_blocks.{block}."
        ours[f"attentions.{block}.to_qkv.weight"] = torch.cat(
            [tensors[f"{attention}{name}.weight"] for name in ("to_q", "to_k", "to_v")]
        )
        # A copy: the table is used in its own number format, and a view would keep the whole file mapped.
        ours[f"attentions.{block}.positions"] = tensors[_POSITIONS.format(block)][0].clone()
        for kind in ("weight", "bias"):
            ours[f"attentions.{block}.to_out.{kind}"] = tensors[f"{attention}to_out.0.{kind}"]
            ours[f"attention_norms.{block}.{kind}"] = tensors[f"{_MIDDLE}norms.{block}.{kind}"]
    return ours


def _describe(path: Path, file: WeightFile) -> Description:
    layers = _layers_of(file.entries)
    inside = {key for keys in layers.values() for key in keys.values()}
    common = {
        "path": path,
        "container": file.container,
        "parameters": sum(_count(file.entries[key]) for key in inside or file.entries),
        "dtypes": tuple(sorted({str(file.entries[key].dtype)[6:] for key in inside or file.entries})),
        "other": tuple(sorted(key for key in file.entries if key not in inside)),
    }
    if foreign := _foreign_kind(file.entries, layers):
        kind, reason = foreign
        return Description(kind=kind, reason=reason, **common)  # type: ignore[arg-type]
    family, length, reason = _family(file.entries, layers)
    channels, missing, misshapen = _check(file.entries, layers, length)
    return Description(
        kind="a motion module",
        reason=reason,
        family=family,
        channels=channels,
        length=length,
        missing=missing,
        misshapen=misshapen,
        **common,  # type: ignore[arg-type]
    )


def _count(entry: Entry) -> int:
    return torch.Size(entry.shape).numel()


_FOREIGN_KINDS = (
    (
        r"motion_modules\..*_lora[._]|motion_modules.*lora_(down|up|A|B)",
        "a motion LoRA",
        "low-rank keys of motion layers",
    ),
    (r"attentions\..*processor\..*_lora\.", "a domain adapter", "low-rank keys of the image UNet's attention"),
    (r"lora_(down|up|A|B)\b|\.lora\.(down|up)|hada_w1|lokr_w1", "a LoRA", "low-rank keys"),
    (r"controlnet_cond_embedding", "a SparseCtrl network", "keys of its condition embedding"),
    (r"temporal_attentions\.", "a HotShot-XL module for SDXL", "keys named temporal_attentions"),
    (r"motion_modules\.\d+\.transformer_blocks\.", "a diffusers MotionAdapter", "keys without temporal_transformer"),
    (r"(^|\.)img_encoder\.", "an AnimateLCM image-to-video module", "keys of an image encoder"),
    (r"control_model\.|input_hint_block|zero_convs", "a ControlNet", "keys of a control model"),
    (r"model\.diffusion_model\.input_blocks", "a Stable Diffusion checkpoint", "keys of an image UNet"),
    (r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|mid)\.", "a VAE", "keys of an image encoder and decoder"),
)


def _foreign_kind(entries: dict[str, Entry], layers: dict[str, dict[str, str]]) -> tuple[str, str] | None:
    """What the file is, if it is not a motion module for SD 1.5 in the published layout: (kind, reason)."""
    for pattern, kind, reason in _FOREIGN_KINDS:
        if any(re.search(pattern, key) for key in entries):
            return kind, reason
    if not layers:
        return "no file of a known kind", f"none of its {len(entries)} tensors is named as in a motion module"
    conv_in = next((entry for key, entry in entries.items() if key.endswith("conv_in.weight")), None)
    if conv_in is not None and conv_in.shape[1] == 9:
        return "a PIA module", "its conv_in takes nine channels"
    if not any(place.startswith("down_3_") for place in layers):
        return "a motion module for SDXL", "it has three levels where SD 1.5 has four"
    if not any("pos_encoder" in rest for keys in layers.values() for rest in keys):
        return "an AnimateLCM module", "it has no position table"
    return None


def _family(entries: dict[str, Entry], layers: dict[str, dict[str, str]]) -> tuple[Family, int, str]:
    """Family, length of the position table, and why. v1, v2 and v3 differ in those two facts alone."""
    tables = (keys[rest] for keys in layers.values() for rest in keys if rest.endswith("pos_encoder.pe"))
    shape = entries[next(tables)].shape
    length = shape[1] if len(shape) == 3 else 0
    if "mid_0" in layers:
        return V2, length, f"a layer in the middle block, {length} positions"
    if length == 24:
        return V1, length, "no layer in the middle block, 24 positions"
    return V3, length, f"no layer in the middle block, {length} positions"


def _check(
    entries: dict[str, Entry], layers: dict[str, dict[str, str]], length: int
) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """Width at each place, keys that are missing, and sentences on keys of a wrong shape."""
    places = [f"down_{block}_{index}" for block in range(4) for index in range(2)]
    places += ["mid_0"] if "mid_0" in layers else []
    places += [f"up_{block}_{index}" for block in range(4) for index in range(3)]
    channels: dict[str, int] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for place in places:
        keys = layers.get(place, {})
        if "norm.weight" not in keys:
            missing.append(f"{place}.norm.weight")
            continue
        width = entries[keys["norm.weight"]].shape[0]
        channels[place] = width
        if width % NORM_GROUPS or width % HEADS:
            misshapen.append(f"{place} is {width} channels wide, which {NORM_GROUPS} groups do not divide")
        for rest, shape in _expected_shapes(width, length).items():
            if rest not in keys:
                missing.append(f"{place}.{rest}")
            elif (found := entries[keys[rest]].shape) != shape:
                misshapen.append(f"{place}.{rest} is {list(found)}, not {list(shape)}")
    return channels, tuple(missing), tuple(misshapen)
