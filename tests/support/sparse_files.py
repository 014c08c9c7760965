"""Weight files with headers but without content: after the header there is a hole in the file.

So files with the exact keys, shapes and dtypes of the published ones, which have a gigabyte or more, need no disk space.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

Entries = dict[str, tuple[torch.dtype, tuple[int, ...]]]
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3"}


def write_safetensors(path: Path, entries: Entries, metadata: dict[str, str] | None = None) -> None:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, (dtype, shape) in sorted(entries.items()):
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def write_torch(path: Path, entries: Entries, *, nested: bool = False) -> None:
    """Writes a file like those of `torch.save`: a zip with a pickle and one uncompressed member for each tensor."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", _pickle(entries, nested))
        central = list(archive.filelist)
        position = archive.fp.tell()
        for index, (dtype, shape) in enumerate(entries.values()):
            item = zipfile.ZipInfo(f"archive/data/{index}")
            item.file_size = item.compress_size = math.prod(shape) * dtype.itemsize
            item.header_offset, item.CRC = position, 0
            archive.fp.seek(position)
            archive.fp.write(item.FileHeader())
            position = archive.fp.tell() + item.file_size
            central.append(item)
        archive.filelist = central
        archive.NameToInfo = {item.filename: item for item in central}
        archive.start_dir = position
        archive._didModify = True


class _Tensor:
    """An object that is pickled like a tensor of torch."""

    def __init__(self, index: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.index, self.dtype, self.shape = index, dtype, shape

    def __reduce__(self):
        strides = tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        return torch._utils._rebuild_tensor_v2, (self, 0, self.shape, strides, False, OrderedDict())


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return ("storage", value.kind, str(value.index), "cpu", value.size)
        return None

    def reducer_override(self, value):
        if isinstance(value, _Tensor):
            rebuild, (_, *rest) = value.__reduce__()
            return rebuild, (_Storage(value), *rest)
        return NotImplemented


class _Storage:
    def __init__(self, tensor: _Tensor) -> None:
        self.index, self.size = tensor.index, math.prod(tensor.shape)
        self.kind = {torch.float32: torch.FloatStorage, torch.float16: torch.HalfStorage}[tensor.dtype]


def _pickle(entries: Entries, nested: bool) -> bytes:
    tensors = OrderedDict((name, _Tensor(index, *facts)) for index, (name, facts) in enumerate(entries.items()))
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump({"state_dict": tensors, "global_step": 1} if nested else tensors)
    return stream.getvalue()
