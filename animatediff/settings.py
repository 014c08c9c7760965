"""The section of the WebUI's settings, with the keys of the established extension."""

from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr
from modules import shared

from .request.params import FORMATS, Params
from .video.clip import DITHERINGS, Quality

SECTION = ("animatediff", "AnimateDiff")
MP4_PRESETS = ("veryslow", "slower", "slow", "medium", "fast", "faster", "veryfast", "superfast", "ultrafast")
MP4_TUNES = ("film", "animation", "grain")


def add_settings() -> None:
    defaults = {
        "animatediff_model_path": shared.OptionInfo("", "Folder of motion modules", gr.Textbox, section=SECTION).info(
            "empty: the folder model of this extension; press the refresh button of the panel afterwards"
        ),
        "animatediff_default_save_formats": shared.OptionInfo(
            list(Params.format), "Save formats chosen at first", gr.CheckboxGroup, {"choices": list(FORMATS)}, section=SECTION
        ).needs_reload_ui(),
        "animatediff_save_to_custom": shared.OptionInfo(
            True, "Save frames in a folder of their own beside the video", section=SECTION
        ).info("off: where and as the WebUI saves other pictures"),
        "animatediff_keep_on_gpu": shared.OptionInfo(
            False, "Leave the motion module on the GPU after a video", section=SECTION
        ).info("the next video begins sooner, and pictures have less memory"),
        "animatediff_keep_unfinished": shared.OptionInfo(
            True,
            "Keep what has been calculated of long videos until they are finished, so that they can be resumed",
            section=SECTION,
        ).info("videos in several windows, and FreeInit; a frame of 512×512 takes 64 KB a step, in single precision 128 KB"),
    }
    defaults["animatediff_source_folders"] = shared.OptionInfo(
        "",
        "Folders whose videos programs and the panel may name, one a line",
        gr.Textbox,
        {"lines": 3},
        section=SECTION,
        restrict_api=True,
    ).info("as source videos of img2img; programs cannot change this setting")
    defaults |= {f"animatediff_{name}": info for name, info in _quality_options().items()}
    for key, info in defaults.items():
        shared.opts.add_option(key, info)


def _quality_options() -> dict[str, shared.OptionInfo]:
    """One setting for each field of `Quality`, under the established extension's key."""

    def option(name: str, label: str, component: Any, **arguments: Any) -> shared.OptionInfo:
        return shared.OptionInfo(getattr(Quality, name), label, component, arguments, section=SECTION)

    return {
        "gif_dithering": option("gif_dithering", "GIF: dithering", gr.Radio, choices=list(DITHERINGS)).info(
            "how 256 colours stand in for more; a pattern keeps still what stands still"
        ),
        "optimize_gif_gifsicle": option("optimize_gif_gifsicle", "GIF: make it smaller with gifsicle", gr.Checkbox).info(
            "where that program is installed"
        ),
        "mp4_crf": option("mp4_crf", "MP4: CRF of H.264", gr.Slider, minimum=0, maximum=51, step=1).info(
            "0 loses nothing, 51 is worst and smallest"
        ),
        "mp4_preset": option("mp4_preset", "MP4: preset of H.264", gr.Dropdown, choices=["", *MP4_PRESETS]).info(
            "slower ones make smaller files; empty: its own default"
        ),
        "mp4_tune": option("mp4_tune", "MP4: what H.264 is tuned for", gr.Dropdown, choices=["", *MP4_TUNES]).info(
            "empty: nothing in particular"
        ),
        "webp_quality": option("webp_quality", "WebP: quality", gr.Slider, minimum=1, maximum=100, step=1),
        "webp_lossless": option("webp_lossless", "WebP: lose nothing", gr.Checkbox),
    }


def keeps_unfinished() -> bool:
    return shared.opts.data.get("animatediff_keep_unfinished", True)


def quality() -> Quality:
    """What the settings say of encoders."""
    chosen = {
        field.name: shared.opts.data.get(f"animatediff_{field.name}", field.default) for field in dataclasses.fields(Quality)
    }
    return Quality(**chosen)
