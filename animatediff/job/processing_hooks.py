"""What a `p` can be while AnimateDiff has to do with it, beside a generation of the WebUI's: its class says so for as long.

A method knows whose it is where an attribute would not: `copy(p)`, which the WebUI and other extensions make freely, would
carry a wrapped `sample` that still acts on the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..errors import AnimateDiffError
from .animated_model import ModelScope

ON_P = "_animatediff"
"""The attribute of a `p` with its role."""


class Animated:
    """Mixed into the class of a `p`: its role hears of every step. That of a copy knows whose it is."""

    def init(self, *args: Any, **kwargs: Any) -> Any:
        with vars(self)[ON_P].during_init(self):
            return super().init(*args, **kwargs)  # type: ignore[misc]

    def parse_extra_network_prompts(self) -> Any:
        with vars(self)[ON_P].during_parse(self):
            return super().parse_extra_network_prompts()  # type: ignore[misc]

    def setup_conds(self) -> Any:
        super().setup_conds()  # type: ignore[misc]
        vars(self)[ON_P].after_conditions(self)

    def calculate_hr_conds(self) -> Any:
        super().calculate_hr_conds()  # type: ignore[misc]
        vars(self)[ON_P].after_conditions(self)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        with vars(self)[ON_P].during_sample(self):
            return super().sample(*args, **kwargs)  # type: ignore[misc]

    def sample_hr_pass(self, *args: Any, **kwargs: Any) -> Any:
        vars(self)[ON_P].before_hires(self)
        return super().sample_hr_pass(*args, **kwargs)  # type: ignore[misc]


def take(p: Any, role: Any) -> None:
    """Gives `p` a role: an object with the methods of `Refusal`."""
    p.__class__ = _animated(type(p))
    setattr(p, ON_P, role)


def release(p: Any) -> None:
    """Takes every role off `p`: its own, and those that it has from being a copy."""
    vars(p).pop(ON_P, None)
    if isinstance(p, Animated):
        p.__class__ = type(p).__bases__[1]


@cache
def _animated(kind: type) -> type:
    """The subclass of a processing class that carries jobs."""
    return type(kind.__name__, (Animated, kind), {"__module__": kind.__module__})


class Refusal:
    """Ends a generation in its `init`: before anything is encoded, and where the WebUI lets exceptions through."""

    def __init__(self, p: Any, error: AnimateDiffError) -> None:
        self._p = p
        self._error = error

    @contextmanager
    def during_init(self, p: Any) -> Iterator[None]:
        if p is self._p:
            release(p)
            raise self._error
        yield

    during_parse = during_sample = during_init

    def before_hires(self, _p: Any) -> None:
        """Nothing that `sample` has not seen to."""

    after_conditions = before_hires


class Bystander:
    """Keeps a job's hands off a generation that someone starts in its middle."""

    def __init__(self, scope: ModelScope) -> None:
        self._scope = scope

    @contextmanager
    def during_init(self, _p: Any) -> Iterator[None]:
        with self._scope.suspended():
            yield

    during_parse = during_sample = during_init

    def before_hires(self, _p: Any) -> None:
        """Nothing that `sample` has not seen to."""

    after_conditions = before_hires
