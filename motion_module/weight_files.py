"""Opening weight files of unknown origin: shapes first, tensors on demand, and never any code from the file.

`.safetensors` cannot hold code. A PyTorch `.ckpt` is a zip with a pickle in it, and a pickle is a program: it is read here by
an unpickler that knows only how to describe tensors and refuses every other name. (`torch.load(weights_only=True)` would do
the like, but before torch 2.6 it could be tricked, and it reads all weights where the question is only what the file is.)
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import UserError

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


class CheckpointError(UserError):
    """A weight file cannot be used. The text is for the user: which file, what is wrong, what to do."""


@dataclass(frozen=True)
class Entry:
    """What a file says of one tensor before its numbers are read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class WeightFile(ABC):
    """An opened weight file: `entries` by key, and `read(key)`."""

    container: str
    entries: dict[str, Entry]

    @abstractmethod
    def read(self, key: str) -> Tensor: ...

    def header_json(self, _name: str) -> dict[str, Any]:
        """A JSON object that lies under a name in the header of the file; empty where there is none."""
        return {}


def open_weights(path: Path) -> WeightFile:
    """Opens a `.safetensors` or a PyTorch file. Raises CheckpointError if it is missing, damaged, or wants to run code."""
    if not path.is_file():
        raise CheckpointError(f"{path.name} is not there. Looked in {path.parent}.")
    try:
        if path.suffix.lower() == ".safetensors":
            return SafetensorsFile(path)
        return TorchFile(path)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}.") from error


def weights_of(path: Path) -> Path:
    """The file itself, or, of a folder of diffusers, the weights in it. Raises CheckpointError if there are none."""
    if not path.is_dir():
        return path
    files = sorted(file for file in path.glob(f"{DIFFUSERS_WEIGHTS}*") if file.suffix in SUFFIXES)
    if not files:
        raise CheckpointError(f"{path.name} is a folder without weights: it has no {DIFFUSERS_WEIGHTS}.safetensors.")
    return files[-1]  # safetensors come last


_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class SafetensorsFile(WeightFile):
    container = "safetensors"

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
            slices = {key: self._file.get_slice(key) for key in self._file.keys()}  # noqa: SIM118
            self.entries = {
                key: Entry(tuple(part.get_shape()), _SAFETENSORS_DTYPES[part.get_dtype()]) for key, part in slices.items()
            }
        except (SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path.name} is damaged or not a safetensors file ({error}). Download it again.") from error

    def read(self, key: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(key)
        return tensor

    def header_json(self, name: str) -> dict[str, Any]:
        try:
            facts = json.loads((self._file.metadata() or {}).get(name, "{}"))
        except json.JSONDecodeError:
            return {}
        return facts if isinstance(facts, dict) else {}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _StoredTensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = {str(dtype)[len("torch.") :]: dtype for dtype in _SAFETENSORS_DTYPES.values()}
"""Newer number formats, such as eight-bit floats, have no storage class; their dtype is named beside an untyped storage."""


class _ForbiddenName(Exception):
    """A pickle asks for something that is not part of a tensor."""


def _described_tensor(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _StoredTensor:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a tensor of impossible shape")
    return _StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _described_typed_tensor(
    storage: _Storage, offset: int, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> _StoredTensor:
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor without a number format")
    return _described_tensor(_Storage(storage.key, dtype), offset, shape, stride)


class _DescribingUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, numbers, strings and descriptions of tensors; refuses every other name in the pickle."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGE_DTYPES | _DTYPES:
            return (_STORAGE_DTYPES | _DTYPES)[name]
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return torch.uint8
        builders: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _described_tensor,
            ("torch._utils", "_rebuild_tensor_v3"): _described_typed_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) in builders:
            return builders[module, name]
        raise _ForbiddenName(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        return _Storage(str(key), dtype)


class TorchFile(WeightFile):
    """A file of `torch.save` in its zip format, which it has written since torch 1.6 (2020)."""

    container = "PyTorch zip"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
            pickles = [name for name in self._archive.namelist() if name.endswith("data.pkl")]
            if len(pickles) != 1 or any(item.compress_type for item in self._archive.infolist()):
                raise CheckpointError(f"{path.name} is a zip, but not one that PyTorch wrote.")
            self._folder = pickles[0][: -len("data.pkl")]
            with self._archive.open(pickles[0]) as stream:
                self._tensors = _tensors_in(_DescribingUnpickler(stream).load())
        except _ForbiddenName as error:
            raise CheckpointError(
                f"{path.name} was not loaded, because opening it would run {error}: a weight file must hold numbers, "
                "not programs. Get it as .safetensors, or from its authors."
            ) from error
        except CheckpointError:
            raise
        except zipfile.BadZipFile as error:
            raise CheckpointError(
                f"{path.name} is damaged, incomplete, or not a PyTorch file of 2020 or later. "
                "Download it again, or get it as .safetensors."
            ) from error
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise CheckpointError(f"{path.name} is damaged: {error!r}. Download it again.") from error
        self.entries = {key: Entry(tensor.shape, tensor.storage.dtype) for key, tensor in self._tensors.items()}

    def read(self, key: str) -> Tensor:
        tensor = self._tensors[key]
        try:
            data = bytearray(self._archive.read(f"{self._folder}data/{tensor.storage.key}"))
        except (KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{self._path.name} is damaged: {error}. Download it again.") from error
        flat = torch.frombuffer(data, dtype=tensor.storage.dtype)
        last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride))
        if math.prod(tensor.shape) and not 0 <= last < flat.numel():
            raise CheckpointError(f"{self._path.name} is damaged: {key} is larger than its data. Download it again.")
        return flat.as_strided(tensor.shape, tensor.stride, tensor.offset)


def _tensors_in(content: Any) -> dict[str, _StoredTensor]:
    """The tensors of a saved state dict, also where training code nested it under `state_dict`."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        return {}
    return {str(key): value for key, value in content.items() if isinstance(value, _StoredTensor)}
