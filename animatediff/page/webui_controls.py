"""The WebUI's own controls on one of its pages. They come in an order that users may change, before our panel and after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Then = Callable[[list[Any]], None]


class Page:
    def __init__(self, tab: str) -> None:
        """`tab`: "txt2img" or "img2img"."""
        self.tab = tab
        self._found: dict[str, Any] = {}
        self._waiting: dict[str, tuple[list[str], Then]] = {}
        self._told: set[str] = set()

    def see(self, component: Any, elem_id: str | None) -> None:
        """A control has been made. Of two with one name the first counts: the page is made again, for the API alone."""
        if elem_id and elem_id not in self._found:
            self._found[elem_id] = component
            self._tell()

    def when_there(self, who: str, names: Sequence[str], then: Then) -> None:
        """Calls `then`, once for `who`, with the controls of these names (without the page's prefix, where the WebUI gives
        them one) when all are there.
        """
        if who not in self._waiting:
            self._waiting[who] = [*names], then
            self._tell()

    def _tell(self) -> None:
        for who, (names, then) in self._waiting.items():
            controls = [self._found.get(f"{self.tab}_{name}", self._found.get(name)) for name in names]
            if who not in self._told and all(control is not None for control in controls):
                self._told.add(who)
                then(controls)
