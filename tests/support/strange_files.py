"""Files that are not the weights that their names promise: hostile ones, and what failed downloads leave."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from support.published_layouts import module_weights

NORM = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"
EMPTY_TENSOR = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
DOUBLED = b")" + b"2\x86" * 60
"""A tuple of two tuples of two …, 60 deep: linear to build, exponential to hash, to compare or to print."""

PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"

STARTS = {
    "page.ckpt": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", "is a web page, not weights"),
    "page.safetensors": (b'\xef\xbb\xbf\n<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
    "pointer.ckpt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1817\n", "is a Git LFS pointer"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Download the real file"),
    "annex.ckpt": (b"/annex/objects/SHA256E-s1--0.ckpt\n", "is a git-annex pointer"),
    "answer.pth": (b"Entry not found", "is text, not weights: the server answered the download with a message"),
    "index.safetensors": (b'{"weight_map": {}}', "is a JSON text, not weights"),
    "empty.ckpt": (b"", "is empty. Download it again"),
    "zeros.safetensors": (bytes(9999), "is nothing but zeros"),
    "gguf.safetensors": (b"GGUF\x03\x00\x00\x00" + bytes(60), "is a GGUF file"),
    "onnx.bin": (b"\x08\x07\x12\x07pytorch\x1a\x051.13.0", "is an ONNX model"),
    "picture.pt": (b"\x89PNG\r\n\x1a\n\x00\x00", "is a PNG picture"),
    "scan.pt": (b"II*\x00\x08\x00\x00\x00", "is a TIFF picture"),
    "video.bin": (b"\x00\x00\x00\x20ftypisom", "is an MP4 or MOV video"),
    "film.bin": (b"MZ\x00\x20mdat", "is an MP4 or MOV video"),
    "._v3_sd15_mm.ckpt": (b"\x00\x05\x16\x07\x00\x02\x00\x00", "is an AppleDouble file, which macOS leaves beside others"),
    "random.ckpt": (b"\x17\x99\x03\xfe\xaa" * 99, "is damaged, or of an unknown format"),
}  # fmt: skip
"""The first bytes of a file, and what is said about it."""

PICKLES = {
    "doubled-key.ckpt": (b"}" + DOUBLED + b"Ns.", "a file without weights (it contains no tensors)"),
    "doubled-name.ckpt": (DOUBLED + b"2\x93.", "its pickle has an impossible name"),
    "doubled-call.ckpt": (b"}X\x01\x00\x00\x00a" + DOUBLED + b")Rs.", "a file without weights"),
    "doubled-storage.ckpt": (
        b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + DOUBLED + b"QK\x00))\x89}tRs.",
        "a tensor has no storage",
    ),
    "parameter-number.ckpt": (b"}X\x01\x00\x00\x00a" + PARAMETER + b"K\x05Rs.", "a tensor has no storage"),
    "parameter-dictionary.ckpt": (b"}X\x01\x00\x00\x00a" + PARAMETER + b"}X\x01\x00\x00\x00bNsRs.", "a tensor has no storage"),
    "parameter-call.ckpt": (b"}X\x01\x00\x00\x00a" + PARAMETER + PARAMETER + b")RRs.", "a tensor has no storage"),
    "parameter-nothing.ckpt": (b"}X\x01\x00\x00\x00a" + PARAMETER + b")Rs.", "a file without weights"),
    "tensor-list.ckpt": (b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n]Rs.", "a tensor has no storage"),
    "from-numpy.ckpt": (
        b"}X\x01\x00\x00\x00actorch._utils\n_rebuild_device_tensor_from_numpy\n(cnumpy\ndtype\n)Rctorch\nfloat32\nN\x89tRs.",
        "a file without weights (it contains no tensors)",
    ),
    "surrogate.ckpt": (b"\x8c\x03\xed\xa0\x80\x8c\x01b\x93.", "opening it would run \ufffd\ufffd\ufffd.b. Weight files"),
    "memo.ckpt": (b"}r\xff\xff\xff\x7f.", "a file without weights"),
    "long.ckpt": (b"}" + b"N0" * 400_000 + b".", "its pickle has more than 600,000 operations"),
    "deep.ckpt": (b")" + b"\x85" * 500_000 + b".", "a file without weights"),
    "colliding.ckpt": (
        b"}(" + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(50_000)) + b"u.",
        "a file without weights",
    ),
    "number.ckpt": (b"\x8b\xff\xff\xff\x7f.", "its pickle ends within a text"),
    "old-operations.ckpt": (b"I" + b"9" * 100_000 + b"\n.", "its pickle has the unknown operation 0x49"),
}  # fmt: skip
"""The pickle in a PyTorch file, without its first two bytes, and what is said about it."""

HEADERS: dict[str, tuple[Any, str]] = {
    "deep.safetensors": (
        b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        "is damaged or not a safetensors file (Error while deserializing header: ",
    ),
    "deep-facts.safetensors": (
        {"__metadata__": {"animatediff_training": "[" * 10_000 + "]" * 10_000}, NORM: EMPTY_TENSOR},
        "animatediff_training in its header is not JSON, or too deeply nested",
    ),
    "keys.safetensors": ({f"k{n}": EMPTY_TENSOR for n in range(100_000)}, "it has 100,000 tensors"),
    "header.safetensors": (b'{"a":"' + b" " * (1 << 23) + b'"}', "its header has 8,388,616 bytes"),
    "long-key.safetensors": ({"attentions.1." * 5000: EMPTY_TENSOR}, "with names of up to 65,000 letters"),
    "null-facts.safetensors": ({"__metadata__": None, NORM: EMPTY_TENSOR}, "is an incomplete or changed motion module"),
    "shape.safetensors": (
        {NORM: {"dtype": "F32", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]}},
        f"is damaged: {NORM} has an impossible shape",
    ),
    "listed.safetensors": (
        {NORM: ["F32", [0], [0, 0]]},
        "is damaged: it does not describe its weights as such files do. Download it again",
    ),
    "packed.safetensors": (
        {NORM: {"dtype": "U32", "shape": [0], "data_offsets": [0, 0]}},
        "has numbers of the type U32, which is not supported",
    ),
}  # fmt: skip
"""The header of a `.safetensors` file, and what is said about it."""

WEIGHTS = {
    "first-stage.ckpt": (
        {"epoch": 1, "state_dict": {
            "module.conv_in.weight": torch.zeros(32, 4, 3, 3),
            "module.down_blocks.0.resnets.0.norm1.weight": torch.zeros(32),
        }},
        "it is an image UNet without motion layers",
    ),
    "unet.safetensors": ({"input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)}, "it is an image UNet without motion layers"),
    "quantised.safetensors": (
        {key: tensor.to(torch.int8) for key, tensor in module_weights("v2").items()},
        "a motion module of whole numbers, quantised for another program (its weights are int8)",
    ),
    "scalar.safetensors": ({**module_weights("v3"), NORM: torch.tensor(1.0)}, f"{NORM} has 0 dimensions, not one"),
    "no-channels.safetensors": ({**module_weights("v3"), NORM: torch.zeros(0)}, "down_0_0 has 0 channels"),
    "controlnet.safetensors": ({"controlnet_cond_embedding.conv_in.weight": torch.zeros(1)}, "it is a ControlNet"),
    "clip.safetensors": ({"text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(1)}, "it is a CLIP text encoder"),
}  # fmt: skip
"""Weights, and what is said about the file."""


def write_strange_files(folder: Path) -> dict[str, str]:
    """Writes all of these files, and returns what is said about each."""
    for name, (start, _) in STARTS.items():
        (folder / name).write_bytes(start)
    for name, (pickle, _) in PICKLES.items():
        write_pickle(folder / name, pickle)
    for name, (header, _) in HEADERS.items():
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text)
    for name, (weights, _) in WEIGHTS.items():
        save_file(weights, folder / name) if name.endswith(".safetensors") else torch.save(weights, folder / name)
    return {name: said for group in (STARTS, PICKLES, HEADERS, WEIGHTS) for name, (_, said) in group.items()}


def write_pickle(path: Path, pickle: bytes, **members: bytes) -> None:
    """Writes a PyTorch file with a pickle of protocol 4."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x04" + pickle)
        for name, content in members.items():
            archive.writestr(f"a/{name}", content)
