"""Tensors as a pickle of `torch.save` describes them, and the names that such a pickle may have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .pickle_reader import Call, Name, UnreadablePickle

MOST_DIMENSIONS = 8
LARGEST_SIZE = 1 << 48


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: the name of its storage there, and its place in it, in elements."""

    storage: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes its elements take."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def place(self) -> tuple[int, int]:
        """Where it begins in its storage, and how many bytes there are from its first element to its last."""
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride))
        return self.dtype.itemsize * self.offset, self.dtype.itemsize * (last + 1) if self.nbytes else 0

    @property
    def least_storage(self) -> int:
        """The least size of its storage in bytes. An expanded tensor is not one of a weight file, and may be of any size."""
        return max(sum(self.place), self.nbytes) if self.nbytes else 0


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
STORAGES = {Name("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()}
STORAGES[Name("torch.storage", "UntypedStorage")] = torch.uint8
_DTYPES = {
    Name("torch", str(dtype)[len("torch.") :]): dtype
    for dtype in (*_STORAGE_DTYPES.values(), torch.float8_e4m3fn, torch.float8_e5m2)
}
"""Newer dtypes, such as 8-bit floats, have no storage class: a pickle has an untyped storage and the name of the dtype."""
_TENSOR, _TYPED_TENSOR = (Name("torch._utils", f"_rebuild_tensor_v{version}") for version in (2, 3))
_PARAMETER = Name("torch._utils", "_rebuild_parameter")
_HARMLESS = {
    Name(module, name)
    for modules, names in (
        (("collections",), ("OrderedDict",)),
        (("numpy.core.multiarray", "numpy._core.multiarray"), ("scalar", "_reconstruct")),
        (("numpy",), ("dtype", "ndarray")),
        (("_codecs",), ("encode",)),
        (("builtins", "__builtin__"), ("set",)),
        (("torch._utils",), ("_rebuild_device_tensor_from_numpy",)),
        (("torch.nn.modules.container",), ("ParameterDict",)),
        (("pytorch_lightning.callbacks",), ("model_checkpoint",)),
        (("pytorch_lightning.callbacks.model_checkpoint",), ("ModelCheckpoint",)),
    )
    for module in modules
    for name in names
}
"""What the WebUI accepts too: Lightning's checkpoints have such facts about their training. Here they are only names.

A tensor that is made from an array of numpy is not read: `torch.save` writes none of a CPU or of CUDA that way.
"""
NAMES = frozenset({*STORAGES, *_DTYPES, _TENSOR, _TYPED_TENSOR, _PARAMETER, *_HARMLESS})
"""The names that a pickle may have."""
NESTED_UNDER = ("state_dict", "controlnet")
"""The names under which training code nests a state dict: that of SparseCtrl has the second one."""
_OF_CAMERA_CTRL = ("pose_encoder_state_dict", "attention_processor_state_dict")
"""The two state dicts in a file of CameraCtrl's authors."""


def tensors_in(content: Any) -> dict[str, StoredTensor]:
    """Returns the tensors of a state dict, which training code may have nested in another one, or in CameraCtrl's two
    dictionaries. Raises UnreadablePickle.
    """
    for name in NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        return {}
    if all(isinstance(content.get(name), dict) for name in _OF_CAMERA_CTRL):
        content = {key: value for name in _OF_CAMERA_CTRL for key, value in content[name].items()}
    tensors = {key: stored_tensor(value) for key, value in content.items() if isinstance(key, str)}
    return {key: tensor for key, tensor in tensors.items() if tensor}


def stored_tensor(value: Any) -> StoredTensor | None:
    """Returns the tensor that a call describes; None if it describes something else. Raises UnreadablePickle."""
    if isinstance(value, Call) and _is(value, _PARAMETER):
        value = next(iter(_arguments(value)), None)
    if not isinstance(value, Call) or not _is(value, _TENSOR, _TYPED_TENSOR):
        return None
    try:
        storage, offset, shape, stride, _gradient, _hooks, *rest = _arguments(value)
        kind, key = storage_of(storage.id)
    except (TypeError, ValueError, AttributeError) as error:
        raise UnreadablePickle("a tensor has no storage") from error
    if not all(isinstance(numbers, tuple) and are_sizes(numbers) for numbers in ((offset,), shape, stride)):
        raise UnreadablePickle("a tensor has an impossible shape")
    dtype = STORAGES[kind]
    if _is(value, _TYPED_TENSOR):
        if not rest or not isinstance(rest[0], Name) or rest[0] not in _DTYPES:
            raise UnreadablePickle("a tensor has no type")
        dtype = _DTYPES[rest[0]]
    return StoredTensor(key, dtype, offset, shape, stride)


def _is(call: Call, *targets: Name) -> bool:
    return isinstance(call.target, Name) and call.target in targets


def _arguments(call: Call) -> tuple[Any, ...]:
    """Returns the arguments of a call. Raises UnreadablePickle if they are something else: a pickle may call with anything."""
    if not isinstance(call.arguments, tuple):
        raise UnreadablePickle("a tensor has no storage")
    return call.arguments


def are_sizes(numbers: Sequence[Any]) -> bool:
    """Returns whether these can be a shape. There must be few: all tensors may refer to one long shape."""
    return len(numbers) <= MOST_DIMENSIONS and all(type(number) is int and 0 <= number < LARGEST_SIZE for number in numbers)


def storage_of(reference: Any) -> tuple[Name, str]:
    """Returns type and name of the storage that a pickle refers to. Raises UnreadablePickle."""
    if isinstance(reference, tuple) and len(reference) >= 3:
        _, kind, key, *_ = reference
        if isinstance(kind, Name) and kind in STORAGES and isinstance(key, str):
            return kind, key
    raise UnreadablePickle("a tensor has no storage")
