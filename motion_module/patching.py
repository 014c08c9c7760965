"""Attributes and dictionary entries that are replaced for as long as a context manager is open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

_ABSENT = object()


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """While open, attribute `name` of a module, an instance or a `torch.nn.Module` is `value`; afterwards as it was.

    An instance that had the attribute from its class has it from there again. Parameters and buffers can be replaced too.
    """
    with patched_items(_storage(owner, name), {name: value}):
        yield


@contextmanager
def patched_items(target: MutableMapping[str, Any], values: Mapping[str, Any]) -> Iterator[None]:
    """While open, a dictionary has these values; afterwards those keys are as they were, also where they were absent."""
    before = {key: target.get(key, _ABSENT) for key in values}
    target.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is _ABSENT:
                target.pop(key, None)
            else:
                target[key] = value


def _storage(owner: Any, name: str) -> MutableMapping[str, Any]:
    """The dictionary that holds an attribute: torch keeps parameters and buffers apart from other attributes."""
    members: dict[str, Any] = vars(owner)
    for kind in ("_parameters", "_buffers"):
        registered: dict[str, Any] = members.get(kind, {})
        if name in registered:
            return registered
    return members
