"""Reads weight files of unknown origin: shapes first, tensors on demand, and never any code from the file.

`.safetensors` cannot contain code. A PyTorch `.ckpt` is a zip with a pickle in it, and a pickle is a program: it is read here
by an unpickler that can only describe tensors and refuses every other name. `torch.load(weights_only=True)` is similar, but was
unsafe before torch 2.6, and it reads all weights even if only the shapes are needed.
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
    """A weight file cannot be used. The text tells the user which file, what is wrong, and what to do."""


@dataclass(frozen=True)
class Entry:
    """Shape and dtype of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class WeightFile(ABC):
    """An open weight file. `container`: its format. `entries`: its tensors, by key."""

    container: str
    entries: dict[str, Entry]

    @abstractmethod
    def read(self, key: str) -> Tensor:
        """Returns a tensor. Raises CheckpointError if the file is damaged."""

    def header_json(self, _name: str) -> dict[str, Any]:
        """Returns the JSON object with this name in the header of the file; empty if there is none."""
        return {}


def open_weights(path: Path) -> WeightFile:
    """Opens a `.safetensors` or PyTorch file. Raises CheckpointError if it is missing or damaged, or if it contains code."""
    if not path.is_file():
        raise CheckpointError(f"{path.name} does not exist in {path.parent}. Choose another file, or put it there.")
    try:
        if path.suffix.lower() == ".safetensors":
            return SafetensorsFile(path)
        return TorchFile(path)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}. Check the file and its permissions.") from error


def weights_of(path: Path) -> Path:
    """Returns the path of a file, or of the weights in a diffusers folder. Raises CheckpointError if there are none."""
    if not path.is_dir():
        return path
    files = sorted(file for file in path.glob(f"{DIFFUSERS_WEIGHTS}*") if file.suffix in SUFFIXES)
    if not files:
        raise CheckpointError(
            f"{path.name} is a folder without weights: it has no {DIFFUSERS_WEIGHTS}.safetensors. Choose another folder."
        )
    return files[-1]  # .safetensors is the last suffix in alphabetical order


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
    """An open `.safetensors` file. Raises CheckpointError if it is damaged."""

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
"""Newer dtypes, such as 8-bit floats, have no storage class: a pickle has an untyped storage and the name of the dtype."""


class _ForbiddenName(Exception):
    """A pickle uses a name that no tensor needs."""


def _described_tensor(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _StoredTensor:
    numbers = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a tensor with an impossible shape")
    return _StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _described_typed_tensor(
    storage: _Storage, offset: int, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> _StoredTensor:
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor without a dtype")
    return _described_tensor(_Storage(storage.key, dtype), offset, shape, stride)


class _DescribingUnpickler(pickle.Unpickler):
    """Builds dictionaries, lists, numbers, strings and descriptions of tensors. Refuses every other name in the pickle."""

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
    """A file that `torch.save` has written in its zip format, the default since torch 1.6 (2020). Raises CheckpointError."""

    container = "PyTorch zip"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
            pickles = [name for name in self._archive.namelist() if name.endswith("data.pkl")]
            if len(pickles) != 1 or any(item.compress_type for item in self._archive.infolist()):
                raise CheckpointError(f"{path.name} is a zip file, but not one of PyTorch. Get it as .safetensors.")
            self._folder = pickles[0][: -len("data.pkl")]
            with self._archive.open(pickles[0]) as stream:
                self._tensors = _tensors_in(_DescribingUnpickler(stream).load())
        except _ForbiddenName as error:
            raise CheckpointError(
                f"{path.name} was not loaded, because opening it would run {error}. Weight files must not contain programs. "
                "Get it as .safetensors, or from its authors."
            ) from error
        except CheckpointError:
            raise
        except zipfile.BadZipFile as error:
            raise CheckpointError(
                f"{path.name} is damaged, incomplete, or not a PyTorch file from 2020 or later. "
                "Download it again, or get it as .safetensors."
            ) from error
        except Exception as error:  # a damaged pickle can raise any exception
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
    """Returns the tensors of a state dict, which training code may have nested under `state_dict`."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        return {}
    return {str(key): value for key, value in content.items() if isinstance(value, _StoredTensor)}
