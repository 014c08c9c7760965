"""What prompts ask for between angle brackets, as `<lora:name:0.8>`."""

from __future__ import annotations

import re
from collections import defaultdict

_TAG = re.compile(r"<(\w+):([^<>]+)>")


class ExtraNetworkParams:
    """What stands behind the kind: a name, numbers, and values by name."""

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.positional = [item for item in items if "=" not in item]
        self.named = dict(item.split("=", 1) for item in items if "=" in item)


def parse_prompts(prompts: list[str]) -> tuple[list[str], dict[str, list[ExtraNetworkParams]]]:
    """The prompts without what stands in brackets, and what that is in the first of them, by kind."""
    asked: dict[str, list[ExtraNetworkParams]] = defaultdict(list)
    for kind, items in _TAG.findall(prompts[0] if prompts else ""):
        asked[kind].append(ExtraNetworkParams(items.split(":")))
    return [_TAG.sub("", prompt) for prompt in prompts], asked
