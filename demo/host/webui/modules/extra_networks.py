"""Stands in for `modules.extra_networks`: reads tags such as `<lora:name:0.8>` in prompts."""

from __future__ import annotations

import re
from collections import defaultdict

_TAG = re.compile(r"<(\w+):([^<>]+)>")


class ExtraNetworkParams:
    """The parts of a tag after its kind: a name and numbers, and values by name."""

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.positional = [item for item in items if "=" not in item]
        self.named = dict(item.split("=", 1) for item in items if "=" in item)


def parse_prompts(prompts: list[str]) -> tuple[list[str], dict[str, list[ExtraNetworkParams]]]:
    """Returns the prompts without their tags, and the tags of the first prompt by their kind."""
    tags: dict[str, list[ExtraNetworkParams]] = defaultdict(list)
    for kind, items in _TAG.findall(prompts[0] if prompts else ""):
        tags[kind].append(ExtraNetworkParams(items.split(":")))
    return [_TAG.sub("", prompt) for prompt in prompts], tags
