"""A page as gradio describes it, and the events that it sends. Gradio 3 and Gradio 4 write both differently."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from support.server import Server

Event = dict[str, Any]


class GradioPage:
    """The page of a host, without a browser."""

    def __init__(self, server: Server) -> None:
        config = server.get("/config").json()
        self._server = server
        self.is_gradio_4 = int(config["version"].partition(".")[0]) >= 4
        self._ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}
        self._values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self._events: list[Event] = config["dependencies"]

    def event(self, elem_id: str, *, takes_it: bool = False) -> Event:
        """Returns the first event on the server that this component alone causes. `takes_it`: and that gets its value."""
        ours = self._ids[elem_id]
        targets = [ours], [[ours, "click"]], [[ours, "change"]]
        return next(
            event
            for event in self._events
            if event["targets"] in targets and event["backend_fn"] and (ours in event["inputs"] or not takes_it)
        )

    def send(self, event: Event, changes: Mapping[str, Any]) -> requests.Response:
        """Sends an event with the values that the page begins with, and other ones for the components with these ids."""
        values = {**self._values, **{self._ids[name]: value for name, value in changes.items()}}
        data = [values[part] for part in event["inputs"]]
        number = event.get("id", self._events.index(event))
        return self._server.post("/run/predict", {"fn_index": number, "data": data, "session_hash": "one"})

    def file(self, path: str | Path) -> dict[str, Any]:
        """Returns the value of a component for files, with this file of the server as its upload."""
        facts = {"orig_name": "a.mp4", "size": 1}
        if self.is_gradio_4:
            return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **facts}
        return {"name": str(path), "data": None, "is_file": True, **facts}
