"""Axes of the WebUI's X/Y/Z plot, one for each parameter that is saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from modules import scripts

from ..detailer import detector_files
from ..request import module_files, sparse_files
from ..request.params import SAVED_FIELDS, option_of
from ..request.xyz_values import ON_P, xyz_values


def add_axes() -> None:
    """`on_before_ui`: adds the axes to the plot's options."""
    for grid in (data.module for data in scripts.scripts_data if data.script_class.__module__ == "xyz_grid.py"):
        known = {axis.label for axis in grid.axis_options}
        for field in SAVED_FIELDS:
            if (label := f"[AnimateDiff] {_label(field)}") not in known:  # the options outlive a reload of the page
                grid.axis_options.append(grid.AxisOption(label, _kind(field), _apply(field), choices=_choices(field)))


def _label(field: dataclasses.Field[Any]) -> str:
    return "Enabled" if field.name == "enable" else option_of(field).label


def _kind(field: dataclasses.Field[Any]) -> type:
    return {"int": int, "float": float}.get(str(field.type), str)


def _apply(field: dataclasses.Field[Any]) -> Callable[[Any, Any, Any], None]:
    """Returns a function that sets the parameter on a cell: a shallow copy of `p`, so it needs a dictionary of its own."""

    def apply(p: Any, value: Any, _all_values: Any) -> None:
        if field.name == "enable":
            value = value == "True"
        elif field.name == "format":
            value = value.split()
        setattr(p, ON_P, {**xyz_values(p), field.name: value})

    return apply


def _choices(field: dataclasses.Field[Any]) -> Callable[[], list[str]] | None:
    if field.name in ("model", "model_2", "camera"):
        return module_files.names
    if field.name == "sparse_ctrl":
        return sparse_files.names
    if field.name == "enable":
        return lambda: ["True", "False"]
    if field.name == "detail":
        return detector_files.choices
    choices = option_of(field).choices
    return (lambda: list(choices)) if choices and field.name != "format" else None
