"""Finds the WebUI's own controls on a page.

Users may reorder the page, so the WebUI makes its controls before or after the panel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Then = Callable[[list[Any]], None]


class Page:
    """The controls of one tab, as far as the WebUI has made them."""

    def __init__(self, tab: str) -> None:
        """`tab`: "txt2img" or "img2img"."""
        self.tab = tab
        self._made: dict[str, Any] = {}
        self._pending: dict[str, tuple[list[str], Then]] = {}
        self._notified: set[str] = set()

    def register(self, component: Any, elem_id: str | None) -> None:
        """Registers a control. The first one of an id counts, because the WebUI builds the page a second time for its API."""
        if elem_id and elem_id not in self._made:
            self._made[elem_id] = component
            self._notify()

    def when_made(self, who: str, names: Sequence[str], then: Then) -> None:
        """Calls `then` with the controls of these ids, once for each `who`, as soon as all of them exist.

        `names`: ids without the tab's prefix, if they have one.
        """
        if who not in self._pending:
            self._pending[who] = [*names], then
            self._notify()

    def _notify(self) -> None:
        for who, (names, then) in self._pending.items():
            controls = [self._made.get(f"{self.tab}_{name}", self._made.get(name)) for name in names]
            if who not in self._notified and all(control is not None for control in controls):
                self._notified.add(who)
                then(controls)
