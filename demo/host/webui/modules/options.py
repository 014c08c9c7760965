"""Stands in for `modules.options`: `data` holds the chosen settings, `data_labels` all settings with their defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class OptionInfo:
    """A setting: its default, how a settings page would show it, and whether the API is forbidden to change it."""

    def __init__(
        self,
        default: Any = None,
        label: str = "",
        component: Any = None,
        component_args: Any = None,
        restrict_api: bool = False,
        **_: Any,
    ):
        self.default = default
        self.label = label
        self.component = component
        self.component_args = component_args
        self.restrict_api = restrict_api

    def info(self, _text: str) -> OptionInfo:
        return self

    link = info

    def needs_reload_ui(self) -> OptionInfo:
        return self


class Options:
    """The settings. Each is read as an attribute."""

    data: dict[str, Any]
    data_labels: dict[str, OptionInfo]

    def __init__(self, defaults: dict[str, Any]) -> None:
        vars(self).update(data={}, data_labels={key: OptionInfo(value) for key, value in defaults.items()})

    def __getattr__(self, key: str) -> Any:
        if key in self.data:
            return self.data[key]
        if key in self.data_labels:
            return self.data_labels[key].default
        raise AttributeError(f"There is no setting {key!r}.")

    def __setattr__(self, key: str, value: Any) -> None:
        self.data[key] = value

    def set(self, key: str, value: Any, is_api: bool = False, run_callbacks: bool = True) -> bool:
        """Changes a setting. Returns whether that changed anything; setting a default counts."""
        if key in self.data and self.data[key] == value:
            return False
        if is_api and key in self.data_labels and self.data_labels[key].restrict_api:
            return False
        self.data[key] = value
        return True

    def add_option(self, key: str, info: OptionInfo) -> None:
        self.data_labels[key] = info

    def load(self, filename: str) -> None:
        if Path(filename).is_file():
            self.data.update(json.loads(Path(filename).read_text(encoding="utf-8")))

    def save(self, filename: str) -> None:
        Path(filename).write_text(json.dumps(self.data, indent=4), encoding="utf-8")
