"""Stands in for `modules.ui_components`: the accordion with a checkbox."""

from __future__ import annotations

from typing import Any

import gradio as gr


class InputAccordion(gr.Checkbox):
    """A checkbox that shows its contents when it is ticked."""

    def __init__(self, value: bool, **kwargs: Any) -> None:
        super().__init__(value, **kwargs)
        self._contents = gr.Column(visible=value)
        self.change(lambda ticked: gr.update(visible=ticked), [self], [self._contents], show_progress=False, queue=False)

    def __enter__(self) -> InputAccordion:
        self._contents.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._contents.__exit__(*exception)

    def get_block_name(self) -> str:
        """Tells gradio to draw it as a checkbox."""
        return "checkbox"
