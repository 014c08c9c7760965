"""Presets: the values of the whole panel, saved under a name in `presets.json`, and some that come with the extension."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gradio as gr

from motion_module.families import V3
from motion_module.weight_files import CheckpointError

from .. import json_store
from ..errors import RequestError, reason
from ..request import module_files, sparse_files
from ..request.choices import RAMP
from ..request.parameter_aliases import renamed
from ..request.params import SAVED_FIELDS, default_of
from ..video.formats import format_problems
from .chosen_module import described
from .controls import ElemId, set_tooltip
from .events import in_sentences
from .gradio_versions import javascript
from .webui_controls import Page

log = logging.getLogger("AnimateDiff")
FILE = "presets"
CHECK = "Check that folder, and presets.json in it."
FIELDS = tuple(field for field in SAVED_FIELDS if field.name != "enable")
IMAGE_TO_VIDEO = "Image to video (v3 + SparseCtrl RGB)"
ADAPTER = "v3_sd15_adapter"
"""The domain adapter of v3, as a LoRA in the prompt."""
OWN: dict[str, dict[str, Any]] = {
    IMAGE_TO_VIDEO: {
        "video_length": 16,
        "sparse_frames": "",
        "sparse_init_image": True,
        "sparse_strength": 1,
        "sparse_start": 0,
        "sparse_end": 1,
        "image_mode": RAMP,
        "ramp_length": 0,
    },
    "Refine a finished video": {
        "video_length": 0,
        "fps": 0,
        "source_start": 0,
        "source_stride": 1,
        "source_for_controlnet": False,
        "interp": "Off",
    },
}
"""Presets that come with the extension; `_files_of` adds their files. They leave all other controls as they are. One that a
user saves replaces its name."""


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
        own = OWN[name] | _files_of(name)
        return [own.get(field.name, gr.update()) for field in FIELDS]
    preset = renamed(saved[name])
    values = [preset.get(field.name, list(default_of(field)) if field.name == "format" else field.default) for field in FIELDS]
    formats = [field.name for field in FIELDS].index("format")
    values[formats] = [name for name in values[formats] if name not in format_problems()]
    return values


def delete(name: str) -> None:
    json_store.update(FILE, lambda presets: {other: preset for other, preset in (presets or {}).items() if other != name})


def _asks_for(parameter: str, name: str) -> bool:
    """Whether the next thing to do after a preset of the extension is to upload something in this parameter's group."""
    return name not in _all() and parameter in OWN[name]


def _files_of(name: str) -> dict[str, str]:
    """Returns the motion module and the model of a preset of the extension: those that are there. Raises RequestError."""
    if name != IMAGE_TO_VIDEO:
        return {}
    return {
        "model": _first(module_files.names(), lambda one: described(one)[1] is V3, "the motion module v3_sd15_mm.ckpt"),
        "sparse_ctrl": _first(
            sparse_files.names(), lambda one: sparse_files.kind_of(one) == "RGB", "the model v3_sd15_sparsectrl_rgb.ckpt"
        ),
    }


def _first(names: list[str], is_one: Callable[[str], bool], what: str) -> str:
    """Returns the first of these files that is what a preset needs; others may be unreadable. Raises RequestError."""
    for name in names:
        with suppress(RequestError, CheckpointError):
            if is_one(name):
                return name
    raise RequestError(
        f"This preset needs {what} (guoyww/animatediff, Hugging Face). Download it into the folder of motion modules, and "
        "press the button that looks for new files, beside the list."
    )


def with_adapter(name: str | None, prompt: str) -> str:
    """Returns a prompt with v3's domain adapter, if the preset has it."""
    if name != IMAGE_TO_VIDEO or name in _all() or f"<lora:{ADAPTER}" in prompt:
        return prompt
    return f"{prompt} <lora:{ADAPTER}:1>".strip()


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


def add_to_panel(page: Page, controls: dict[str, Any], elem_id: ElemId) -> None:
    """Adds a folded group that saves, loads and deletes presets of these controls."""
    panel = [controls[field.name] for field in FIELDS]
    uploads = ("source_start", "sparse_init_image")
    groups = [_group_of(controls[name]) for name in uploads]
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
        return [*load(choice), *(gr.update(open=True) if _asks_for(name, choice) else gr.update() for name in uploads)]

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
    load_button.click(in_sentences(on_load), [choice], [*panel, *groups], show_progress=False)
    page.when_made(
        "preset",
        ["prompt"],
        lambda prompt: load_button.click(in_sentences(with_adapter), [choice, *prompt], prompt, show_progress=False),
    )
    delete_button.click(in_sentences(on_delete), [choice], [choice], show_progress=False).success(**refresh_both_tabs)
    save_button.click(in_sentences(on_save), [name, *panel], [choice], show_progress=False).success(**refresh_both_tabs)
