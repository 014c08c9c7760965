"""How strongly a motion module acts: overall, at single places of the UNet, and in a part of the steps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import UserError


class ControlsError(UserError):
    """Rules cannot be read. The text is for the user."""


@dataclass(frozen=True)
class Strength:
    """`scale` multiplies the keys of the temporal attention: above 1, frames pick more sharply whom they look at; at 0, all
    look at all alike. `effect` is how much of what a layer adds is added: at 0 it is switched off, at 1 it acts as trained.
    """

    scale: float = 1.0
    effect: float = 1.0


@dataclass(frozen=True)
class Rule:
    """At places whose name begins with `place`, from `start` to `end` of the steps (0 to 1): another scale, another effect."""

    place: str
    start: float
    end: float
    scale: float | None
    effect: float | None

    def is_for(self, place: str) -> bool:
        return self.place == "all" or place == self.place or place.startswith(self.place + "_")

    def applies(self, place: str, progress: float) -> bool:
        return self.is_for(place) and _within(progress, self.start, self.end)


@dataclass(frozen=True)
class Controls:
    """`overall` holds wherever no rule does; of several rules the last. Before `start` and from `end` on, the module is off."""

    overall: Strength = Strength()
    start: float = 0.0
    end: float = 1.0
    rules: tuple[Rule, ...] = ()

    def active(self, progress: float) -> bool:
        """Whether the module acts at all when `progress` of the steps (0 to below 1) are done."""
        return _within(progress, self.start, self.end)

    def at(self, place: str, progress: float) -> Strength:
        scale, effect = self.overall.scale, self.overall.effect
        for rule in self.rules:
            if rule.applies(place, progress):
                scale = scale if rule.scale is None else rule.scale
                effect = effect if rule.effect is None else rule.effect
        return Strength(scale, effect)


def _within(progress: float, start: float, end: float) -> bool:
    return start <= progress < end or (end >= 1.0 and progress >= end > start)


_RULE = re.compile(
    r"(?P<place>all|mid|(?:down|up)(?:_[0-3](?:_[0-2])?)?)"
    r"(?:\s+(?P<start>[\d.]+)\s*-\s*(?P<end>[\d.]+))?\s*:\s*(?P<values>.+)"
)
_VALUE = re.compile(r"(scale|effect)\s+(-?[\d.]+)")


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules, one a line or between semicolons: `up_3: scale 1.2`, `mid 0.5-1: scale 1.1 effect 0.8`.

    Raises ControlsError with the rule that cannot be read.
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
            return Rule(match["place"], start, end, values.get("scale"), values.get("effect"))
    raise ControlsError(
        f"The rule {line!r} cannot be read. Write for example “up_3: scale 1.2” or “mid 0.5-1: effect 0.8”: a place (all, "
        "down, mid, up, down_1, up_3_2, …), if you like a range of the steps within 0-1, a colon, and scale, effect or both."
    )
