"""Stands in for `modules.ui_common`: the refresh button."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr


def create_refresh_button(
    component: Any, refresh: Callable[[], None], arguments: Callable[[], dict[str, Any]], elem_id: str
) -> gr.Button:
    """Makes a button that updates the choices of a control."""

    def update() -> Any:
        refresh()
        return gr.update(**arguments())

    button = gr.Button("🔄", elem_id=elem_id, scale=0, min_width=48)
    button.click(update, [], [component])
    return button
