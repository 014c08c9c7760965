"""A device besides the CPU, for tests without a GPU: tensors that compute on the CPU, and refuse to be mixed with its own.

    with OnCard() as mode:
        unet.to(card())
        unet(x.to(card()), …)
    mode.copies

It needs torch 2.9. Its device cannot be removed from the process again, so tests use it in a process of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from support.tensor_memory import card

ON_CPU = torch.device("cpu")


class MixedDevices(RuntimeError):
    """An operation was given tensors of both devices."""


class CardTensor(Tensor):
    """A tensor on the card. `held`: its numbers, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> CardTensor:
        made: CardTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=card(),
            requires_grad=False,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(function, args, kwargs or {})


class OnCard(TorchDispatchMode):
    """While open, the card is there. `copies`: the device and the shape of each tensor that was copied to the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[str, tuple[int, ...]]] = []
        self._undo = ExitStack()

    def __enter__(self) -> OnCard:
        self._undo.enter_context(mock.patch.object(nn.Module, "to", _module_to))
        self._undo.enter_context(mock.patch.object(torch, "tensor", _tensor))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._undo.close()

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = _computed(function, args, kwargs)
        if _copies(function) and _device_of(result) != _device_of(args[1 if _into(function) else 0]):
            self.copies.append((result.device.type, tuple(result.shape)))
        return result


def _computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Returns what an operation computes, on the device of its arguments. Raises MixedDevices where CUDA would refuse them."""
    given: list[Tensor] = []
    inner = _held(args, given), {name: _held(value, given) for name, value in kwargs.items()}
    where = {_device_of(tensor) for tensor in given if tensor.ndim or isinstance(tensor, CardTensor)}
    asked = kwargs.get("device")
    if len(where) > 1 and not _copies(function) and not _takes_indices_of_the_cpu(function):
        raise MixedDevices(f"{function}: {[(_device_of(tensor), tuple(tensor.shape)) for tensor in given]}")
    on_card = torch.device(asked).type == card().type if asked is not None else _first_device(given) == card().type
    if asked is not None:
        inner[1]["device"] = ON_CPU
    result = function(*inner[0], **inner[1])
    if function._schema.is_mutable and not function._schema.name.endswith(".out"):
        return args[0]
    return _on_card(result) if on_card else result


def _held(value: Any, given: list[Tensor]) -> Any:
    """Returns an argument with tensors of the CPU in place of those of the card. All tensors in it are added to `given`."""
    if isinstance(value, Tensor):
        given.append(value)
        return value.held if isinstance(value, CardTensor) else value
    return type(value)(_held(item, given) for item in value) if isinstance(value, list | tuple) else value


def _on_card(result: Any) -> Any:
    if isinstance(result, Tensor):
        return CardTensor(result)
    return type(result)(map(_on_card, result)) if isinstance(result, list | tuple) else result


def _device_of(tensor: Tensor) -> str:
    return card().type if isinstance(tensor, CardTensor) else tensor.device.type


def _first_device(given: list[Tensor]) -> str:
    """Returns the device of an operation's result: that of its first tensor with dimensions."""
    return next((_device_of(tensor) for tensor in given if tensor.ndim), _device_of(given[0]) if given else ON_CPU.type)


def _copies(function: Any) -> bool:
    return function.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)


def _takes_indices_of_the_cpu(function: Any) -> bool:
    """Whether CUDA takes indices of the CPU: in `x[i]`, but not in `index_select` or `gather`."""
    return function.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_)


def _into(function: Any) -> bool:
    return function.overloadpacket is torch.ops.aten.copy_


def _module_to(module: nn.Module, *where: Any, **named: Any) -> nn.Module:
    """Does what `nn.Module.to` does, which changes the memory of parameters in place: these tensors have none."""
    for part, name, tensor in _tensors_of(module):
        moved = tensor.detach().to(*where, **named)
        setattr(part, name, nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved)
    return module


_tensor_on_cpu = torch.tensor


def _tensor(numbers: Any, *, device: torch.device | None = None, **named: Any) -> Tensor:
    """Does what `torch.tensor` does, which no mode sees."""
    return _tensor_on_cpu(numbers, **named).to(device or ON_CPU)


def _tensors_of(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for part in module.modules():
        for name, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            yield part, name, tensor
