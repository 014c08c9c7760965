"""The section of the WebUI's settings, with the keys of the established extension."""

from __future__ import annotations

import gradio as gr
from modules import shared

from .params import FORMATS

SECTION = ("animatediff", "AnimateDiff")


def add_settings() -> None:
    defaults = {
        "animatediff_model_path": shared.OptionInfo("", "Folder of motion modules", gr.Textbox, section=SECTION).info(
            "empty: the folder model of this extension; press the refresh button of the panel afterwards"
        ),
        "animatediff_default_save_formats": shared.OptionInfo(
            list(FORMATS), "Save formats chosen at first", gr.CheckboxGroup, {"choices": list(FORMATS)}, section=SECTION
        ).needs_reload_ui(),
        "animatediff_save_to_custom": shared.OptionInfo(
            True, "Save frames in a folder of their own beside the video", section=SECTION
        ).info("off: where and as the WebUI saves other pictures"),
    }
    for key, info in defaults.items():
        shared.opts.add_option(key, info)
