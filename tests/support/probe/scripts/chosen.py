"""A script that is chosen by name, as the WebUI's own are: it generates in one of several ways."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import gradio as gr
from modules import processing, scripts


class ChosenScript(scripts.Script):
    """`how`: a way of generating; one of the methods below."""

    def title(self) -> str:
        return "Probe script"

    def ui(self, is_img2img: bool) -> list[Any]:
        return [gr.Textbox("passes_on", label="How")]

    def run(self, p: Any, how: str) -> Any:
        return getattr(self, how)(p)

    def passes_on(self, p: Any) -> Any:
        """Answers as the WebUI does without a script."""
        return processing.process_images(p)

    def samples_itself(self, p: Any) -> Any:
        """Replaces `p.sample` by a way of its own, as the script “img2img alternative test” does."""
        p.sample = lambda **_: p.rng.next()
        return processing.process_images(p)

    def draws_itself(self, p: Any) -> Any:
        """Generates without AnimateDiff."""
        inner = copy.copy(p)
        ours = next(script for script in p.scripts.alwayson_scripts if script.title() == "AnimateDiff")
        arguments = list(p.script_args)
        arguments[ours.args_from] = False
        inner.script_args = arguments
        return processing.process_images(inner)

    def combines(self, p: Any) -> Any:
        """Makes a picture of its own from what the job answers, as a script that puts tiles together does."""
        processed = processing.process_images(p)
        processed.images = [processed.images[0].convert("RGB")]
        return processed

    def swallows_the_second(self, p: Any) -> Any:
        """Generates twice, and the second time with a value that cannot be met."""
        processed = processing.process_images(copy.copy(p))
        ours = next(script for script in p.scripts.alwayson_scripts if script.title() == "AnimateDiff")
        arguments = list(p.script_args)
        arguments[ours.args_from] = {**arguments[ours.args_from], "fps": -1}
        p.script_args = arguments
        self.swallows(p)
        return processed

    def swallows(self, p: Any) -> Any:
        """Goes on after an exception, as the X/Y/Z plot does."""
        inner = copy.copy(p)
        with contextlib.suppress(Exception):
            processing.process_images(inner)
        return processing.Processed(inner, [])
