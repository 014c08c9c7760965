"""What the panel shows while the folder of motion modules is empty."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from modules import shared

from ..request import module_files
from .controls import ElemId, first_choice
from .events import in_sentences


def add_to_panel(dropdown: gr.Dropdown, elem_id: ElemId) -> None:
    """Adds a notice that says what to do, and a button that uses the folder of sd-webui-animatediff if that has modules."""
    notice = gr.HTML(_notice(), elem_id=elem_id("notice"))
    if (folder := module_files.old_folder()) is None or shared.cmd_opts.hide_ui_dir_config:
        return

    def use_it() -> tuple[Any, Any, Any]:
        shared.opts.set("animatediff_model_path", str(folder))
        shared.opts.save(shared.config_filename)
        names = module_files.names()
        return (
            gr.update(choices=names, value=first_choice(names)),
            gr.update(value=_notice()),
            gr.update(visible=False),
        )

    button = gr.Button("Use the motion modules of sd-webui-animatediff", elem_id=elem_id("use-old-folder"))
    button.click(in_sentences(use_it), [], [dropdown, notice, button])


def _notice() -> str:
    if module_files.names():
        return ""
    return (
        "<p><span>There is no motion module in this folder:</span> "
        f"<code>{html.escape(str(module_files.folder()))}</code><br>"
        "<span>Download one for your checkpoint, put it there and press the refresh button. For example:</span> "
        f"{module_files.EXAMPLES}</p>"
    )
