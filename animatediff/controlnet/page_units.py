"""ControlNet's units on the page: the components that hold their values, and when these change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.events import Dependency

from . import script
from .pictures import FOLDER_MODE, MERGE_MODE

PICTURE_MODE = "simple"
TABS = {"upload_tab": PICTURE_MODE, "batch_tab": FOLDER_MODE, "merge_tab": MERGE_MODE}
"""The tabs of a unit, and the input modes that they choose."""
PARTS = ("enabled", "module", "model", "batch_image_dir", "batch_image_dir_state")
"""Components of a unit whose own values are newer than the unit's state."""
CHANGING = ("enabled", "module", "model", "image", "merge_gallery", "update_unit_counter")
"""Components that decide whether a unit acts and which pictures it takes. Many others decide how it acts."""


@dataclass(frozen=True)
class PageUnit:
    """One unit of a tab.

    `state`: the component that holds it. `group`: ControlNet's object with its other components. `mode`: holds its input mode:
    ControlNet brings a change of its tab into its state with the next change of something else.
    """

    state: Any
    group: Any
    mode: gr.State

    @property
    def states(self) -> list[Any]:
        """The inputs of an event that asks for the unit."""
        return [self.state, self.mode, *(getattr(self.group, name) for name in PARTS)]

    @staticmethod
    def read(values: Sequence[Any]) -> Iterator[Any]:
        """Yields ControlNet's units from the values of the `states` of all of them."""
        size = 2 + len(PARTS)
        for first in range(0, len(values), size):
            unit, mode, enabled, module, model, folder, folder_of_all = values[first : first + size]
            newer = {"enabled": enabled, "module": module, "model": model, "batch_images": folder or folder_of_all}
            yield unit.copy(update={**newer, "input_mode": type(unit.input_mode)(mode)})

    def when_changed(self, javascript: str) -> None:
        """Runs a script of the page after a change of the unit has reached what `states` are."""
        changing = {getattr(self.group, name)._id for name in CHANGING}
        for index, event in enumerate(list(Context.root_block.dependencies)):
            if self.state._id in event["outputs"] and changing & set(event["targets"]):
                Dependency(self.state, event, index).then(None, [], [], _js=javascript)
        for name, mode in TABS.items():
            select = getattr(self.group, name).select
            select(_always(mode), [], [self.mode], show_progress=False, queue=False).then(None, [], [], _js=javascript)
        self.group.batch_image_dir.blur(None, [], [], _js=javascript)


def _always(mode: str) -> Callable[[], str]:
    return lambda: mode


def units_of_page(*, is_img2img: bool) -> list[PageUnit]:
    """Returns the units of a tab, once ControlNet has made them; none where this ControlNet has other components."""
    if (found := script.on_page(is_img2img=is_img2img)) is None:
        return []
    kind = script.names_of(found).get("ControlNetUiGroup")
    groups = [group for group in getattr(kind, "all_ui_groups", ()) if group.is_img2img == is_img2img]
    known = all(hasattr(group, name) for group in groups for name in (*PARTS, *TABS, *CHANGING))
    if not known or len(groups) != len(found.controls):
        return []
    return [PageUnit(state, group, gr.State(PICTURE_MODE)) for state, group in zip(found.controls, groups)]
