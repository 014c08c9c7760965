"""Light steps: a clip is sampled with less of the UNet, by what a full step before has computed.

In a light step the UNet computes only the rows of the prompt, and of these only its shallow blocks. The rest is expected from
the last two full steps: deep features (`deep_features.py`), and how far the negative prompt's result is from the prompt's. Both
change slowly and steadily, as FasterCache found (arXiv 2410.19355). Features go on along a straight line; the distance of the
prompts does so the more, the later the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .attach import LayoutOf
from .deep_features import DeepFeatures
from .light_steps import LightSteps
from .patching import patched
from .windowed_unet import ArgumentsOfRows, arguments_of_rows

NEGATIVE = -1
"""The condition of a negative prompt. Those of prompts joined by AND are 0, 1, …"""


ConditionsOf = Callable[[int, dict[str, Any], Sequence[int]], Sequence[int] | None]
"""From the rows of a UNet call, its named arguments, and the conditions that the step has had before it, returns the condition
of each of its clips; None if they are not known, such as in a call that does not come from the guidance.
"""


@dataclass(frozen=True)
class Call:
    """A UNet call, and the conditions of its clips."""

    step: int
    conditions: Sequence[int]
    x: Tensor
    args: tuple[Any, ...]
    named: dict[str, Any]


@dataclass
class Run:
    """What is known of the running sampler."""

    step: int = -1
    had: list[int] = field(default_factory=list)
    """The conditions that the step has had."""
    prompts: list[Tensor] = field(default_factory=list)
    """The step's results for the parts of the prompt."""
    full: dict[int, int] = field(default_factory=dict)
    """The last full step of each condition."""
    unmade: dict[tuple[int, int], Call] = field(default_factory=dict)
    """Full calls, by step and condition, that were read from the disk, so that nobody has computed their deep features."""
    from_prompt: dict[int, Tensor] = field(default_factory=dict)
    """How far the negative prompt's result was from that of the prompt, by step: the last two."""


class StepReuse:
    """Makes the UNet calls of light steps light.

    `deep`: keeps deep features; None to compute all blocks. `negative`: whether the negative prompt is left out. `step`,
    `steps`: return the running sampler's step, from 0, and their number. `at_step`: while open, the sampler is at another step.
    `layout_of`: the layout of a whole call, from its number of rows. `arguments_of`: selects rows from the arguments of a call.
    """

    def __init__(
        self,
        light: LightSteps,
        deep: DeepFeatures | None,
        *,
        negative: bool,
        step: Callable[[], int],
        steps: Callable[[], int],
        at_step: Callable[[int], AbstractContextManager[None]],
        layout_of: LayoutOf,
        conditions_of: ConditionsOf,
        arguments_of: ArgumentsOfRows = arguments_of_rows,
    ) -> None:
        self._light = light
        self._deep = deep
        self._negative = negative
        self._step = step
        self._steps = steps
        self._at_step = at_step
        self._layout_of = layout_of
        self._conditions_of = conditions_of
        self._arguments_of = arguments_of
        self._run = Run()
        self._expecting: tuple[Call, Sequence[int]] | None = None
        """The light call that is running, and which of its conditions are computed."""

    def begin(self) -> None:
        """Begins a run of a sampler: what is known of another one is of no use."""
        self._run = Run()
        if self._deep:
            self._deep.clear()

    @contextmanager
    def applied_to(self, model: Any, cached: AbstractContextManager[None] | None = None) -> Iterator[None]:
        """While open, calls of `model` are light in light steps.

        `cached`: while open, calls of `model` may return what is stored on disk.
        """
        compute = model.forward

        def computed(x: Tensor, *args: Any, **named: Any) -> Tensor:
            with self._known_features(compute):
                return compute(x, *args, **named)

        with patched(model, "forward", computed), cached or nullcontext():
            whole = model.forward

            def forward(x: Tensor, *args: Any, **named: Any) -> Tensor:
                self._begin_step()
                conditions = self._conditions_of(len(x), named, self._run.had)
                if conditions is None or len({*conditions, *self._run.had}) < len(conditions) + len(self._run.had):
                    return whole(x, *args, **named)
                self._run.had.extend(conditions)
                call = Call(self._run.step, conditions, x, args, named)
                clips = self._lightly(whole, call) if self._is_light(call) else self._fully(whole, call)
                return self._layout_of(len(x)).to_rows(clips)

            with patched(model, "forward", forward):
                yield

    def _begin_step(self) -> None:
        if (step := self._step()) < self._run.step:  # a run that nobody has announced
            self.begin()
        if step != self._run.step:
            self._run.step, self._run.had, self._run.prompts = step, [], []

    def _is_light(self, call: Call) -> bool:
        """Whether a call is light: in a light step, if the full step before it had all of its conditions, and if the step has
        a result for the prompt by then: what is expected for the negative prompt begins with it.
        """
        last = self._light.last_full(call.step, self._steps())
        has_prompt = bool(self._run.prompts) or any(map(self._is_computed, call.conditions))
        return last < call.step and has_prompt and all(self._run.full.get(one) == last for one in call.conditions)

    def _fully(self, forward: Callable[..., Tensor], call: Call) -> Tensor:
        """Returns the clips of a full call, and remembers what light ones need of it.

        In a light step that is only the results for the prompt: what other conditions expect comes from full steps alone.
        """
        run, is_of_full_step = self._run, not self._light.is_light(call.step, self._steps())
        wanted = [one if self._is_computed(one) else None for one in call.conditions]
        with self._deep.keeping(call.step, wanted) if self._deep and is_of_full_step else nullcontext():
            clips = self._layout_of(len(call.x)).to_clips(forward(call.x, *call.args, **call.named))
        by_condition = dict(zip(call.conditions, clips))
        run.prompts += [clip for condition, clip in by_condition.items() if condition != NEGATIVE]
        if is_of_full_step:
            self._remember(call, wanted, by_condition)
        return clips

    def _remember(self, call: Call, wanted: Sequence[int | None], by_condition: dict[int, Tensor]) -> None:
        """Remembers a call of a full step. `wanted`: the conditions whose deep features light calls use."""
        run = self._run
        run.full.update(dict.fromkeys(call.conditions, call.step))
        if self._deep:
            unmade = {(call.step, one): call for one in wanted if one is not None and not self._deep.has(call.step, one)}
            run.unmade = {key: old for key, old in run.unmade.items() if key[0] >= call.step - self._light.every} | unmade
        if not self._is_computed(NEGATIVE) and NEGATIVE in by_condition:
            if run.prompts:
                run.from_prompt[call.step] = by_condition[NEGATIVE] - _mean(run.prompts)
                run.from_prompt = dict(list(run.from_prompt.items())[-2:])
            else:  # it comes before the prompt, alone
                del run.full[NEGATIVE]

    def _lightly(self, forward: Callable[..., Tensor], call: Call) -> Tensor:
        """Returns the clips of a light call."""
        run, steps = self._run, self._steps()
        computed = [one for one in call.conditions if self._is_computed(one)]
        by_condition: dict[int, Tensor] = {}
        if computed:
            with patched(self, "_expecting", (call, computed)):
                by_condition.update(zip(computed, self._clips_of(computed, forward, call)))
            run.prompts += [clip for condition, clip in by_condition.items() if condition != NEGATIVE]
        if len(computed) < len(call.conditions):
            expected = self._light.expected(call.step, steps, trust=call.step / steps)
            distance = expected.of(run.from_prompt[expected.last], run.from_prompt.get(expected.before))
            by_condition[NEGATIVE] = _mean(run.prompts) + distance
        return torch.stack([by_condition[one] for one in call.conditions])

    def _is_computed(self, condition: int) -> bool:
        """Whether light steps compute a condition."""
        return not (self._negative and condition == NEGATIVE)

    def _known_features(self, compute: Callable[..., Tensor]) -> AbstractContextManager[None]:
        """While open, the UNet uses the deep features that the running call expects, if it is a light one.

        Those of full calls that were read from the disk are made first. A light call that is read from it needs none.
        """
        if self._deep is None or self._expecting is None:
            return nullcontext()
        call, conditions = self._expecting
        expected = self._light.expected(call.step, self._steps())
        for key in [(step, one) for step in (expected.before, expected.last) for one in conditions]:
            if key in self._run.unmade and not self._deep.has(*key):
                full = self._run.unmade[key]
                wanted = [one if self._is_computed(one) else None for one in full.conditions]
                with self._at_step(full.step), self._deep.keeping(full.step, wanted):
                    compute(full.x, *full.args, **full.named)
        return self._deep.using(expected, conditions)

    def _clips_of(self, conditions: Sequence[int], forward: Callable[..., Tensor], call: Call) -> Tensor:
        """Returns only the clips of some conditions of a call."""
        x, args, named, rows, layout = call.x, call.args, call.named, len(call.x), self._layout_of(len(call.x))
        if len(conditions) < len(call.conditions):
            places = [call.conditions.index(one) for one in conditions]
            chosen = layout.to_clips(torch.arange(rows))[places].flatten().sort().values
            x, *args = self._arguments_of((x, *args), chosen, rows, layout.frames)
            named = self._arguments_of(named, chosen, rows, layout.frames)
        return self._layout_of(len(x)).to_clips(forward(x, *args, **named))


def _mean(clips: list[Tensor]) -> Tensor:
    return torch.stack(clips).mean(dim=0)
