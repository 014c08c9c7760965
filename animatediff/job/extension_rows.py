"""What other extensions know of the rows of a UNet call, while windows of a clip pass the UNet one after another.

They take the number of frames from `p` when a generation begins, keep something for each of them, and count the calls of a
step. Inside a window all of that is the window's, so that what they do to a plain batch they do to each window. No extension
is named but those that keep such things outside of their scripts.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FunctionType
from typing import Any

from torch import Tensor

from motion_module.patching import patched_items
from motion_module.windowed_unet import Around, Part

ROWS = ("batch_size", "batch")
"""What scripts call the number of rows that each condition has in a UNet call."""
ELSEWHERE = {"scripts.latent": "regioner", "hypertile": None}
"""Regional Prompter's counter of calls, and the random numbers of the WebUI's Hypertile: by module, and its object if any."""
Members = dict[str, Any]


def begin_call(p: Any) -> Around:
    """Returns what goes around the windows of one call.

    What scripts have counted in a window they count again in the next: a plain batch is one call.
    """
    scripts = [vars(script) for script in p.scripts.alwayson_scripts]
    rows = p.batch_size
    counters = [_State(members) for members in (*scripts, *_globals_of_scripts(p), *_elsewhere())]

    @contextmanager
    def around(part: Part) -> Iterator[None]:
        for counter in counters:
            counter.restore()
        with ExitStack() as stack:
            for members in (vars(p), *scripts):
                stack.enter_context(_of_part(members, rows, part.frames))
            yield

    return around


def are_whole_clips(p: Any) -> bool:
    """Whether all frames of a prompt's part are together in a UNet call: Regional Prompter's mode Latent puts them so."""
    return any(
        script.title() == "Regional Prompter" and getattr(script, "active", False) and "La" in getattr(script, "calc", "")
        for script in p.scripts.alwayson_scripts
    )


class _State:
    """The numbers and random generators among some variables."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._numbers = {name: value for name, value in members.items() if type(value) in (int, bool, float)}
        self._states = [(value, value.getstate()) for value in members.values() if isinstance(value, random.Random)]

    def restore(self) -> None:
        self._members.update(self._numbers)
        for generator, state in self._states:
            generator.setstate(state)


def _globals_of_scripts(p: Any) -> list[Members]:
    """Returns the variables of the files of all scripts: the WebUI keeps these modules out of `sys.modules`."""
    found: dict[int, Members] = {}
    for script in p.scripts.alwayson_scripts:
        for function in vars(type(script)).values():
            if isinstance(function, FunctionType):
                found[id(function.__globals__)] = function.__globals__
    return list(found.values())


def _elsewhere() -> list[Members]:
    holders = ((sys.modules.get(module), name) for module, name in ELSEWHERE.items())
    objects = (getattr(module, name, None) if name else module for module, name in holders)
    return [vars(holder) for holder in objects if holder is not None]


def _of_part(members: Members, rows: int, frames: Tensor) -> AbstractContextManager[None]:
    """While open, what variables hold for all `rows` frames they hold for these `frames`."""
    changed = {name: len(frames) for name in ROWS if type(members.get(name)) is int and members[name] == rows}
    lists = {name: value for name, value in members.items() if isinstance(value, list) and _have_rows(value, rows)}
    cut = {name: [_rows_of(item, rows, frames) for item in value] for name, value in lists.items()}
    return patched_items(members, changed | cut)


def _have_rows(values: list[Any], rows: int) -> bool:
    return any(isinstance(value, Tensor) and value.ndim and len(value) == rows for value in values)


def _rows_of(value: Any, rows: int, frames: Tensor) -> Any:
    return value[frames.to(value.device)] if _have_rows([value], rows) else value
