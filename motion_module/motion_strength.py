"""How strongly a motion module acts: overall, in single blocks of the UNet, and in a range of the steps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import UserError

PerFrame = float | tuple[float, ...]
"""One number for all frames, or one for each frame of the video."""


class MotionStrengthError(UserError):
    """Rules cannot be read. The text is for the user."""


@dataclass(frozen=True)
class LayerStrength:
    """How strongly one motion layer acts.

    `scale` multiplies the queries of the temporal attention, which is the same as its keys: above 1, a frame attends to fewer
    frames more strongly; at 0, to all alike. `effect` multiplies what the layer adds to its input: at 0 the layer is off, at 1
    it acts as trained.
    """

    scale: PerFrame = 1.0
    effect: PerFrame = 1.0


@dataclass(frozen=True)
class Rule:
    """Sets the scale or the effect in some blocks and in a range of the steps.

    `block`: "all", the name of a block such as "up_3_2", or the beginning of it, such as "up". `start`, `end`: fractions of the
    steps, from 0 to 1. None for `scale` or `effect` leaves it as it is.
    """

    block: str
    start: float
    end: float
    scale: float | None
    effect: float | None

    def is_for(self, block: str) -> bool:
        """Returns whether the rule is for a block, by the block's name."""
        return self.block == "all" or block == self.block or block.startswith(self.block + "_")

    def applies(self, block: str, progress: float) -> bool:
        """Returns whether the rule is for a block at a fraction of the steps."""
        return self.is_for(block) and _within(progress, self.start, self.end)


@dataclass(frozen=True)
class MotionStrength:
    """How strongly a motion module acts in each block at each step.

    `overall` applies where no rule does, and only that can differ from frame to frame. Of several rules for a block, the last
    one applies. The module is on from `start` to `end`, which are fractions of the steps.
    """

    overall: LayerStrength = LayerStrength()
    start: float = 0.0
    end: float = 1.0
    rules: tuple[Rule, ...] = ()

    def active(self, progress: float) -> bool:
        """Returns whether the module is on when a fraction `progress` of the steps, from 0 to below 1, is done."""
        return _within(progress, self.start, self.end)

    def at(self, block: str, progress: float) -> LayerStrength:
        """Returns the strength in a block when a fraction `progress` of the steps is done."""
        scale, effect = self.overall.scale, self.overall.effect
        for rule in self.rules:
            if rule.applies(block, progress):
                scale = scale if rule.scale is None else rule.scale
                effect = effect if rule.effect is None else rule.effect
        return LayerStrength(scale, effect)


def _within(progress: float, start: float, end: float) -> bool:
    return start <= progress < end or (end >= 1.0 and progress >= end > start)


_RULE = re.compile(
    r"(?P<block>all|mid|(?:down|up)(?:_[0-3](?:_[0-2])?)?)"
    r"(?:\s+(?P<start>[\d.]+)\s*-\s*(?P<end>[\d.]+))?\s*:\s*(?P<values>.+)"
)
_VALUE = re.compile(r"(scale|effect)\s+(-?[\d.]+)")


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Reads rules, one per line or separated by semicolons: `up_3: scale 1.2`, `mid 0.5-1: scale 1.1 effect 0.8`.

    Raises MotionStrengthError with the rule that cannot be read.
    """
    lines = (line.strip() for line in re.split(r"[;\n]", text))
    return tuple(_parse_rule(line) for line in lines if line)


def _parse_rule(line: str) -> Rule:
    match = _RULE.fullmatch(line)
    if match:
        try:
            values = {name: float(number) for name, number in _VALUE.findall(match["values"])}
            start, end = float(match["start"] or 0), float(match["end"] or 1)
        except ValueError:
            values = {}
        if values and not _VALUE.sub("", match["values"]).strip(" ,") and 0 <= start < end <= 1:
            return Rule(match["block"], start, end, values.get("scale"), values.get("effect"))
    raise MotionStrengthError(
        f"The rule “{line}” cannot be read. Write for example “up_3: scale 1.2” or “mid 0.5-1: effect 0.8”: a block (all, "
        "down, mid, up, down_1, up_3_2, …), optionally a range of the steps within 0-1, a colon, and scale, effect or both."
    )
