"""Presets: the values of the whole panel, saved under a name in `presets.json`, and some that come with the extension."""

from __future__ import annotations

import logging
from typing import Any

import gradio as gr

from .. import json_store
from ..errors import reason
from ..request.parameter_aliases import renamed
from ..request.params import SAVED_FIELDS, default_of
from ..video.formats import format_problems
from .controls import ElemId, set_tooltip
from .events import in_sentences
from .gradio_versions import javascript

log = logging.getLogger("AnimateDiff")
FILE = "presets"
CHECK = "Check that folder, and presets.json in it."
FIELDS = tuple(field for field in SAVED_FIELDS if field.name != "enable")
OWN: dict[str, dict[str, Any]] = {
    "Refine a finished video": {
        "video_length": 0,
        "fps": 0,
        "source_start": 0,
        "source_stride": 1,
        "source_for_controlnet": False,
        "interp": "Off",
    },
}
"""Presets that come with the extension. They leave all other controls as they are. One that a user saves replaces its name."""


def names() -> list[str]:
    return sorted({*OWN, *_all()})


def save(name: str, *values: Any) -> None:
    """Saves a preset. `values`: one for each of FIELDS."""
    preset = {field.name: value for field, value in zip(FIELDS, values)}
    json_store.update(FILE, lambda presets: {**(presets or {}), name: preset})


def load(name: str) -> list[Any]:
    """Returns a value for each of FIELDS: the default where the preset has none, without formats this machine cannot write."""
    saved = _all()
    if name not in saved:
        return [OWN[name].get(field.name, gr.update()) for field in FIELDS]
    preset = renamed(saved[name])
    values = [preset.get(field.name, list(default_of(field)) if field.name == "format" else field.default) for field in FIELDS]
    formats = [field.name for field in FIELDS].index("format")
    values[formats] = [name for name in values[formats] if name not in format_problems()]
    return values


def delete(name: str) -> None:
    json_store.update(FILE, lambda presets: {other: preset for other, preset in (presets or {}).items() if other != name})


def _asks_for_a_source(name: str) -> bool:
    """Whether the next thing to do is to upload a source video."""
    return name not in _all() and "source_start" in OWN[name]


def _group_of(control: Any) -> gr.Accordion:
    """Returns the folded group that a control is in."""
    while not isinstance(control, gr.Accordion):
        control = control.parent
    return control


def _all() -> dict[str, dict[str, Any]]:
    try:
        return json_store.read(FILE) or {}
    except (OSError, ValueError):
        log.warning("The presets in %s cannot be read. Repair presets.json, or move it away.", json_store.folder())
        return {}


def add_to_panel(controls: dict[str, Any], elem_id: ElemId) -> None:
    """Adds a folded group that saves, loads and deletes presets of these controls."""
    panel = [controls[field.name] for field in FIELDS]
    source_group = _group_of(controls["video_source"])
    with gr.Accordion("Presets", open=False, elem_id=elem_id("presets")):
        with gr.Row(elem_classes="ad-row"):
            choice = gr.Dropdown(names(), label="Preset", elem_id=elem_id("preset"))
            load_button = gr.Button("Load", elem_id=elem_id("preset-load"), scale=0, min_width=80)
            delete_button = gr.Button("Delete", elem_id=elem_id("preset-delete"), scale=0, min_width=80)
        with gr.Row(elem_classes="ad-row"):
            name = gr.Textbox(label="Name of a new preset", max_lines=1, elem_id=elem_id("preset-name"))
            save_button = gr.Button("Save", elem_id=elem_id("preset-save"), scale=0, min_width=80)

    set_tooltip(choice, "A saved preset: the values of all controls of this panel, except uploaded files.")
    set_tooltip(load_button, "Sets the controls of this panel to the values of the preset.")
    set_tooltip(delete_button, "Deletes the preset.")
    set_tooltip(name, "If a preset has this name already, Save replaces it.")
    set_tooltip(save_button, "Saves the values of this panel under the name on the left.")
    refresh_button = gr.Button("", visible=False, elem_id=elem_id("preset-refresh"))  # pressed by the page's script

    def on_load(choice: str | None) -> list[Any]:
        if choice not in names():
            raise gr.Error("Choose a preset first.")
        return [*load(choice), gr.update(open=True) if _asks_for_a_source(choice) else gr.update()]

    def on_save(name: str, *values: Any) -> Any:
        if not (name := name.strip()):
            raise gr.Error("Enter a name for the preset first.")
        try:
            save(name, *values)
        except (OSError, ValueError) as error:
            raise gr.Error(f"The preset could not be saved in {json_store.folder()}: {reason(error)}. {CHECK}") from error
        return gr.update(choices=names(), value=name)

    def on_delete(choice: str | None) -> Any:
        if choice not in names():
            raise gr.Error("Choose a preset first.")
        if choice not in _all():
            raise gr.Error(f"“{choice}” comes with the extension and cannot be deleted. Save your own under its name instead.")
        try:
            delete(choice)
        except (OSError, ValueError) as error:
            raise gr.Error(f"The preset could not be deleted in {json_store.folder()}: {reason(error)}. {CHECK}") from error
        return gr.update(choices=names(), value=None)

    refresh_both_tabs = {"fn": None, **javascript("() => window.animateDiffPresets?.refresh()"), "show_progress": False}
    refresh_button.click(in_sentences(lambda: gr.update(choices=names())), [], [choice], show_progress=False, queue=False)
    load_button.click(in_sentences(on_load), [choice], [*panel, source_group], show_progress=False)
    delete_button.click(in_sentences(on_delete), [choice], [choice], show_progress=False).success(**refresh_both_tabs)
    save_button.click(in_sentences(on_save), [name, *panel], [choice], show_progress=False).success(**refresh_both_tabs)
