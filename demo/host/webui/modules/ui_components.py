"""Controls that gradio does not have."""

from __future__ import annotations

from typing import Any

import gradio as gr


class InputAccordion(gr.Checkbox):
    """A checkbox whose contents are shown where it is ticked."""

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
        """The page shows it as the checkbox that it is."""
        return "checkbox"
