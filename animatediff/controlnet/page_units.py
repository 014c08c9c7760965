"""ControlNet's units on the page: the components that hold their values, and when these change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gradio.context import Context
from gradio.events import Dependency

from . import script

PARTS = {
    "enabled": "enabled",
    "module": "module",
    "model": "model",
    "input_mode": "input_mode",
    "batch_image_dir_state": "batch_images",
}
"""Components of a unit, and the fields that they are for. Some reach the unit's state with the next change of another only."""
SWITCHES = ("upload_tab", "batch_tab", "merge_tab")
CHANGING = ("enabled", "module", "model", "image", "merge_gallery", "update_unit_counter")
"""Components that decide whether a unit acts and which pictures it takes; there are many that decide how."""


@dataclass(frozen=True)
class PageUnit:
    """One unit of a tab. `state`: the component that holds it. `group`: ControlNet's object with its other components."""

    state: Any
    group: Any

    @property
    def states(self) -> list[Any]:
        """The inputs of an event that asks for the unit."""
        return [self.state, *(getattr(self.group, name) for name in PARTS)]

    @staticmethod
    def read(values: Sequence[Any]) -> Iterator[Any]:
        """Yields ControlNet's units from the values of the `states` of all of them."""
        size = 1 + len(PARTS)
        for first in range(0, len(values), size):
            unit, *parts = values[first : first + size]
            yield unit.copy(update=dict(zip(PARTS.values(), parts)))

    def when_changed(self, script: str) -> None:
        """Runs a script of the page after a change of the unit has reached its state."""
        changing = {getattr(self.group, name)._id for name in CHANGING}
        for index, event in enumerate(list(Context.root_block.dependencies)):
            if self.state._id in event["outputs"] and changing & set(event["targets"]):
                Dependency(self.state, event, index).then(None, [], [], _js=script)
        for name in SWITCHES:
            getattr(self.group, name).select(None, [], [], _js=script)
        self.group.batch_image_dir.blur(None, [], [], _js=script)


def units_of_page(*, is_img2img: bool) -> list[PageUnit]:
    """Returns the units of a tab, once ControlNet has made them; none where this ControlNet has other components."""
    if (found := script.on_page(is_img2img=is_img2img)) is None:
        return []
    kind = script.names_of(found).get("ControlNetUiGroup")
    groups = [group for group in getattr(kind, "all_ui_groups", ()) if group.is_img2img == is_img2img]
    needed = (*PARTS, *SWITCHES, *CHANGING, "batch_image_dir")
    if len(groups) != len(found.controls) or not all(hasattr(group, name) for group in groups for name in needed):
        return []
    return [PageUnit(state, group) for state, group in zip(found.controls, groups)]
