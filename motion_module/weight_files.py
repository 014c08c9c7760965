"""Reads weight files of unknown origin: shapes first, tensors on demand, and never any code from the file.

`.safetensors` cannot contain code. A PyTorch `.ckpt` is a zip with a pickle in it, and a pickle is a program: it is read as
data (`pickle_reader.py`), and refused if it names more than tensors and harmless facts need (`pickled_tensors.py`).
`torch.load(weights_only=True)` is similar, but was unsafe before torch 2.6, and it reads all weights even if only shapes are
needed.

What describes a file is bounded in size, count and depth, so that opening any file takes less than a second.
"""

from __future__ import annotations

import io
import json
import math
import struct
import sys
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import UserError
from .file_signatures import OLD_PYTORCH, SAFETENSORS, ZIP, Contents, contents_of
from .pickle_reader import MOST_BYTES, ForbiddenName, Name, UnreadablePickle, read_pickle
from .pickled_tensors import NAMES, STORAGES, StoredTensor, are_sizes, storage_of, tensors_in

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
MOST_TENSORS = 20_000
"""A whole SDXL checkpoint with averaged weights has about 5,000."""
LONGEST_KEY = 250
LARGEST_HEADER = 1 << 23
"""The most bytes of a `.safetensors` header, and of the directory of a zip file."""


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

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def read(self, key: str) -> Tensor:
        """Returns a tensor. Raises CheckpointError if the file is damaged."""

    def weight(self, key: str) -> Tensor:
        """Returns a tensor of finite floats. 8-bit floats, which are for storage only, become float16.

        Raises CheckpointError if the file is damaged, or if the tensor has whole numbers, infinite numbers or NaN.
        """
        tensor = self.read(key)
        if not tensor.dtype.is_floating_point:
            raise CheckpointError(
                f"{self.path.name} cannot be used: {key} has whole numbers ({str(tensor.dtype)[6:]}), as in files "
                "that are quantised for other programs. Get it in 16 or 32 bits."
            )
        tensor = tensor.half() if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2) else tensor
        # These two are a hundred times faster than torch.isfinite, and pass on NaN.
        if tensor.numel() and not (math.isfinite(tensor.amax()) and math.isfinite(tensor.amin())):
            raise CheckpointError(
                f"{self.path.name} cannot be used: {key} contains values that are not numbers (NaN or infinite). "
                "Download it again, or get another version of it."
            )
        return tensor

    def header_json(self, _name: str) -> dict[str, Any]:
        """Returns the JSON object with this name in the header of the file; empty if there is none. Raises CheckpointError."""
        return {}

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path.name} is damaged: {why}. Download it again.")

    def _require_bounded(self, keys: Iterable[str]) -> None:
        """Raises CheckpointError if there are too many keys, or one that is too long."""
        count = longest = 0
        for key in keys:
            count, longest = count + 1, max(longest, len(key))
        if count > MOST_TENSORS or longest > LONGEST_KEY:
            raise CheckpointError(
                f"{self.path.name} is not a weight file of a known kind: it has {count:,} tensors with names of up to "
                f"{longest:,} letters, but at most {MOST_TENSORS:,} tensors with names of {LONGEST_KEY:,} letters are read. "
                "Choose another file."
            )


def open_weights(path: Path, classes: Mapping[Contents, type[WeightFile]] | None = None) -> WeightFile:
    """Opens a safetensors or PyTorch file, whatever its suffix.

    `classes`: what opens files, by what they are; None for all that have weights. Raises CheckpointError if it is missing,
    damaged or something else, or if it contains code.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path.name} does not exist in {path.parent}. Choose another file, or put it there.")
        contents = contents_of(path)
        classes = _CLASSES if classes is None else classes
        if contents not in classes:
            raise CheckpointError(f"{path.name} is {contents.what}. {contents.advice}")
        return classes[contents](path)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}. Check the file and its permissions.") from error
    except CheckpointError:
        raise
    except Exception as error:  # whatever else a damaged or hostile file may cause: callers foresee only the one type
        raise CheckpointError(
            f"{path.name} is damaged: it does not describe its weights as such files do. Download it again."
        ) from error


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


_FAULTS = (SafetensorError, zipfile.BadZipFile, struct.error, ValueError, RuntimeError, EOFError, OverflowError)
"""What `safetensors` and `zipfile` raise for damaged files, and torch for storages or shapes of a wrong size."""


class SafetensorsFile(WeightFile):
    """An open `.safetensors` file. Raises CheckpointError if it is damaged."""

    container = "safetensors"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > LARGEST_HEADER:
                raise CheckpointError(
                    f"{path.name} is damaged, or not a weight file of a known kind: its header has {size:,} bytes, but at most "
                    f"{LARGEST_HEADER:,} are read. Download it again, or choose another file."
                )
            header = stream.read(size)
        try:
            self._file = safe_open(path, framework="pt")  # checks the header
        except SafetensorError as error:
            raise CheckpointError(f"{path.name} is damaged or not a safetensors file ({error}). Download it again.") from error
        # Not by get_slice: in safetensors 0.4, which the WebUI has, that takes 45 s for 10,000 keys.
        facts = json.loads(header)
        self._metadata: dict[str, str] = facts.pop("__metadata__", None) or {}
        self._require_bounded(facts)
        if unknown := sorted({fact["dtype"] for fact in facts.values()} - _SAFETENSORS_DTYPES.keys()):
            raise CheckpointError(
                f"{path.name} has numbers of the type {unknown[0]}, which is not supported. Get it in 16 or 32 bits."
            )
        for key, fact in facts.items():
            if not are_sizes(fact["shape"]):
                raise self._damaged(f"{key} has an impossible shape")
        self.entries = {key: Entry(tuple(fact["shape"]), _SAFETENSORS_DTYPES[fact["dtype"]]) for key, fact in facts.items()}

    def read(self, key: str) -> Tensor:
        try:
            tensor: Tensor = self._file.get_tensor(key)
        except _FAULTS as error:
            raise self._damaged(f"the data of {key} cannot be read") from error
        return tensor

    def header_json(self, name: str) -> dict[str, Any]:
        try:
            facts = json.loads(self._metadata.get(name, "{}"))
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{name} in its header is not JSON, or too deeply nested") from error
        return facts if isinstance(facts, dict) else {}


class _PickledFile(WeightFile):
    """A file whose tensors are described by a pickle. `allowed`: the names that this may have."""

    allowed: Container[Name] = NAMES

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            content, sizes = self._open()
            tensors = self._tensors_in(content)
        except ForbiddenName as error:
            raise CheckpointError(
                f"{path.name} was not loaded, because opening it would run {error}. Weight files must not contain programs. "
                "Get it as .safetensors, or from its authors."
            ) from error
        except CheckpointError:
            raise
        except (UnreadablePickle, *_FAULTS) as error:
            raise self._damaged(str(error)) from error
        self._require_bounded(tensors)
        for key, tensor in tensors.items():
            if tensor.storage not in sizes:
                raise self._damaged(f"the data of {key} is missing")
            if tensor.least_storage > sizes[tensor.storage]:
                raise self._damaged(f"{key} is larger than its data")
        self._tensors = tensors
        self.entries = {key: Entry(tensor.shape, tensor.dtype) for key, tensor in tensors.items()}

    def _require_little_endian(self, right: bool) -> None:
        if not right:
            raise CheckpointError(f"{self.path.name} was written on a big-endian machine. Get it as .safetensors.")

    def _tensors_in(self, content: Any) -> dict[str, StoredTensor]:
        """Returns the tensors in what the pickle describes. Raises UnreadablePickle, or CheckpointError."""
        return tensors_in(content)

    @abstractmethod
    def _open(self) -> tuple[Any, dict[str, int]]:
        """Returns what the pickle describes, and the sizes in bytes of the storages that it refers to."""

    @abstractmethod
    def _bytes(self, storage: str, start: int, size: int) -> bytearray:
        """Returns a part of a storage: many tensors may be parts of one."""

    def _part(self, start: int, size: int) -> bytearray:
        """Returns a part of the file."""
        part = bytearray(size)
        with self.path.open("rb") as stream:
            stream.seek(start)
            if stream.readinto(part) != size:
                raise EOFError
        return part

    def read(self, key: str) -> Tensor:
        tensor = self._tensors[key]
        start, size = tensor.place
        try:
            if not size:
                return torch.empty(tensor.shape, dtype=tensor.dtype)
            flat = torch.frombuffer(self._bytes(tensor.storage, start, size), dtype=tensor.dtype)
            strided = flat.as_strided(tensor.shape, tensor.stride)
            return strided.clone() if tensor.nbytes < size else strided  # does not keep what lies between its elements
        except (OSError, *_FAULTS) as error:
            raise self._damaged(f"the data of {key} cannot be read") from error


class TorchFile(_PickledFile):
    """A file that `torch.save` has written in its zip format, the default since torch 1.6 (2020). Raises CheckpointError."""

    container = "PyTorch zip"

    def _open(self) -> tuple[Any, dict[str, int]]:
        stream = _Bounded(self.path)
        self._archive = zipfile.ZipFile(stream)
        stream.most = sys.maxsize
        files = {item.filename: item.file_size for item in self._archive.infolist()}
        pickles = [name for name in files if name.endswith("data.pkl")]
        if len(pickles) != 1 or any(item.compress_type for item in self._archive.infolist()):
            raise CheckpointError(f"{self.path.name} is a zip file, but not one of PyTorch. Get it as .safetensors.")
        self._folder = pickles[0][: -len("data.pkl")]
        if f"{self._folder}constants.pkl" in files:
            raise CheckpointError(f"{self.path.name} is a TorchScript program, not weights. Get it as .safetensors.")
        self._require_little_endian(f"{self._folder}byteorder" not in files or self._read("byteorder") == b"little")
        start = f"{self._folder}data/"
        with self._archive.open(pickles[0]) as member:  # not the whole of it, as its size is not known to be true
            content = read_pickle(member.read(MOST_BYTES), self.allowed).content
        self._checked: set[str] = set()
        return content, {name[len(start) :]: size for name, size in files.items() if name.startswith(start)}

    def _bytes(self, storage: str, start: int, size: int) -> bytearray:
        item = self._archive.getinfo(f"{self._folder}data/{storage}")
        if size == item.file_size:
            return bytearray(self._archive.read(item))
        if storage not in self._checked:
            self._check(item)
            self._checked.add(storage)
        lengths = struct.unpack("<HH", self._part(item.header_offset + _LOCAL_HEADER - 4, 4))
        return self._part(item.header_offset + _LOCAL_HEADER + sum(lengths) + start, size)

    def _check(self, item: zipfile.ZipInfo) -> None:
        """Reads a member once, for its checksum. Raises what `zipfile` raises if it is damaged or too short."""
        with self._archive.open(item) as member:
            size = sum(map(len, iter(partial(member.read, 1 << 20), b"")))
        if size != item.file_size:
            raise EOFError

    def _read(self, name: str) -> bytes:
        return self._archive.read(self._folder + name)


_LOCAL_HEADER = 30
"""The bytes before the name of a zip file's member. They end with two lengths: of the name, and of what precedes the data."""


class _Bounded(io.FileIO):
    """A file that refuses to read very much at once: the directory of a zip file may be as long as the file."""

    most = LARGEST_HEADER

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes")
        return super().read(size)

    __del__ = io.FileIO.close


class OldTorchFile(_PickledFile):
    """A file in the format of `torch.save` before torch 1.6: pickles, then the storages one after another.

    Raises CheckpointError.
    """

    container = "PyTorch before 1.6"

    def _open(self) -> tuple[Any, dict[str, int]]:
        end, parts = 0, []
        with self.path.open("rb") as stream:
            head = stream.read(MOST_BYTES)
            for _ in range(5):  # a mark, the version, facts about the machine, the tensors, the order of the storages
                parts.append(read_pickle(head, self.allowed, end))
                end = parts[-1].end
            _, _, machine, tensors, order = parts
            facts = machine.content if isinstance(machine.content, dict) else {}
            self._require_little_endian(facts.get("little_endian", True) is True)
            if not isinstance(order.content, list) or not all(isinstance(key, str) for key in order.content):
                raise UnreadablePickle("it has no list of its data")
            itemsizes = {key: STORAGES[kind].itemsize for kind, key in map(storage_of, tensors.references)}
            self._places: dict[str, tuple[int, int]] = {}
            size = self.path.stat().st_size
            for key in order.content:
                stream.seek(end)
                (count,) = struct.unpack("<Q", stream.read(8))
                if key not in itemsizes:
                    raise UnreadablePickle("it has data of an unknown type")
                self._places[key] = end + 8, count * itemsizes[key]
                end += 8 + count * itemsizes[key]
                if end > size:
                    raise UnreadablePickle("it ends too early")
        return tensors.content, {key: size for key, (_, size) in self._places.items()}

    def _bytes(self, storage: str, start: int, size: int) -> bytearray:
        return self._part(self._places[storage][0] + start, size)


_CLASSES: dict[Any, type[WeightFile]] = {SAFETENSORS: SafetensorsFile, ZIP: TorchFile, OLD_PYTORCH: OldTorchFile}
