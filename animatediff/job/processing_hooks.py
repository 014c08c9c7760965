"""Hooks into the steps of one generation, by the class of its `p`.

For as long as AnimateDiff has to do with a `p`, its class is a subclass with hooks in its methods, and `p` carries a role: what
these hooks do. An attribute such as a wrapped `p.sample` would not do: the WebUI and other extensions copy `p` freely, and the
copy's attribute would still act on the original. A method knows which `p` it is called on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AnimateDiffError, reported_to_user
from .animated_model import AnimatedModel

if TYPE_CHECKING:
    from modules.processing import StableDiffusionProcessing as _Processing
else:
    _Processing = object  # the WebUI's class comes in as the other base
ROLE = "_animatediff"
"""The attribute of a `p` that holds its role."""


class Role(Protocol):
    """What happens around the steps of one generation. `p`: the generation whose role it is."""

    p: Any

    def during_init(self) -> AbstractContextManager[None]:
        """Around `p.init`, the first hooked step. Its exceptions end the generation."""
        ...

    def during_parse(self) -> AbstractContextManager[None]:
        """Around the parsing of prompts, once for each batch."""
        ...

    def during_sample(self) -> AbstractContextManager[None]:
        """Around `p.sample`, with all of its passes."""
        ...

    def before_conditions(self) -> None:
        """Before prompts are encoded, after the WebUI's and other extensions' preparations of a batch."""

    def after_conditions(self) -> None:
        """After prompts have been encoded."""

    def before_hires(self) -> None:
        """Before the second pass of hires fix."""

    def before_pictures(self) -> None:
        """Before latents, decoded by now, become pictures. Its exceptions end the generation."""

    def closed(self) -> None:
        """When nothing more will be done with `p`, also after an exception that no other hook saw."""

    def for_copies(self) -> Role:
        """The role of copies of `p`, which carry this one without knowing it."""
        ...


class _Hooked(_Processing):
    """Mixed into the class of a `p`."""

    def init(self, *args: Any, **kwargs: Any) -> Any:
        with _role_of(self).during_init():
            return super().init(*args, **kwargs)

    def parse_extra_network_prompts(self) -> Any:
        with _role_of(self).during_parse():
            return super().parse_extra_network_prompts()

    def setup_conds(self) -> Any:
        _role_of(self).before_conditions()
        super().setup_conds()
        _role_of(self).after_conditions()

    def calculate_hr_conds(self) -> Any:
        super().calculate_hr_conds()
        _role_of(self).after_conditions()

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        with _role_of(self).during_sample():
            return super().sample(*args, **kwargs)

    def sample_hr_pass(self, *args: Any, **kwargs: Any) -> Any:
        _role_of(self).before_hires()
        return super().sample_hr_pass(*args, **kwargs)

    def save_samples(self, **of_neo: Any) -> bool:
        """The WebUI asks this once for each batch, after sampling and decoding, also where `sample` was replaced."""
        _role_of(self).before_pictures()
        return super().save_samples(**of_neo)

    def close(self) -> None:
        try:
            super().close()
        finally:
            _role_of(self).closed()


def take(p: Any, role: Role) -> None:
    """Gives `p` a role."""
    kind: Any = type(p)
    p.__class__ = _hooked(kind)
    setattr(p, ROLE, role)


def release(p: Any) -> None:
    """Takes the role off `p`, whether its own or one that it carries as a copy."""
    vars(p).pop(ROLE, None)
    if isinstance(p, _Hooked):
        p.__class__ = type(p).__bases__[1]


def init_of_webui(p: Any) -> Callable[..., None]:
    """Returns the `init` of a hooked `p` without its hooks."""
    found: Callable[..., None] = super(_Hooked, p).init
    return found


def carried_role(p: Any) -> Role | None:
    """The role in the attributes of `p`: its own, or that of the generation that it is a copy of."""
    role: Role | None = vars(p).get(ROLE)
    return role


def _role_of(p: Any) -> Role:
    """The role of `p`, or that of a copy; a `p` that was made anew from the class of another has none."""
    role = carried_role(p) or Bystander(p, None)
    return role if role.p is p else role.for_copies()


@cache
def _hooked(kind: Any) -> type:
    """The subclass of one of the WebUI's processing classes."""
    return type(kind.__name__, (_Hooked, kind), {"__module__": kind.__module__})


class Refusal:
    """Ends a generation in its `init`: before anything is encoded, and where the WebUI lets exceptions through."""

    def __init__(self, p: Any, error: AnimateDiffError) -> None:
        self.p = p
        self._error = error

    @contextmanager
    def during_init(self) -> Iterator[None]:
        release(self.p)
        raise self._error
        yield  # makes this a context manager

    during_parse = during_sample = during_init

    def after_conditions(self) -> None:
        """Nothing: `init` has ended the generation."""

    before_conditions = before_hires = before_pictures = closed = after_conditions

    def for_copies(self) -> Role:
        return Bystander(self.p, None)


class Bystander:
    """A generation that someone starts in the middle of a job: the job lets go of the model in its `init` and `sample`."""

    def __init__(self, p: Any, animated: AnimatedModel | None) -> None:
        """`animated`: the model of the running job; None if there is nothing to let go of."""
        self.p = p
        self._animated = animated

    @contextmanager
    def during_init(self) -> Iterator[None]:
        with (
            reported_to_user("taking motion layers out for another generation"),
            self._animated.suspended() if self._animated else nullcontext(),
        ):
            yield

    during_sample = during_init

    def during_parse(self) -> AbstractContextManager[None]:
        """Nothing: text is parsed without the UNet."""
        return nullcontext()

    def after_conditions(self) -> None:
        """Nothing: only the model is shared with the job."""

    before_conditions = before_hires = before_pictures = closed = after_conditions

    def for_copies(self) -> Role:
        return self
