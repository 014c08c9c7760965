"""The extension's section in the WebUI's settings. Keys are those of sd-webui-animatediff where it has the same setting."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import shared

from ..controlnet.map_cache import DEFAULT_MEGABYTES
from ..request.choices import FORMATS
from ..request.params import Params
from ..video.clip import DITHERINGS, Quality
from . import training_processes

SECTION = ("animatediff", "AnimateDiff")
MP4_PRESETS = ("veryslow", "slower", "slow", "medium", "fast", "faster", "veryfast", "superfast", "ultrafast")
MP4_TUNES = ("film", "animation", "grain")


def add_settings() -> None:
    """`on_ui_settings`: adds the section."""
    defaults = {
        "animatediff_model_path": _path_option("Folder of motion modules").info(
            "empty: the folder “model” of this extension; press the refresh button of the panel after a change"
        ),
        "animatediff_default_save_formats": shared.OptionInfo(
            list(Params.format), "Default save formats", gr.CheckboxGroup, {"choices": list(FORMATS)}, section=SECTION
        ).needs_reload_ui(),
        "animatediff_save_to_custom": shared.OptionInfo(
            True, "Save frames in a separate folder next to the video", section=SECTION
        ).info("off: frames are saved like other images of the WebUI"),
        "animatediff_keep_on_gpu": shared.OptionInfo(
            False, "Keep the motion module on the GPU after a video", section=SECTION
        ).info("the next video starts sooner, but less memory is left for images"),
        "animatediff_keep_unfinished": shared.OptionInfo(
            True, "Keep intermediate results of long videos, so that unfinished videos can be resumed", section=SECTION
        ).info("with several context windows or FreeInit; a 512×512 frame takes 64 KB per step, or 128 KB in full precision"),
        "animatediff_source_folders": _path_option("Folders from which source videos may be read, one per line", lines=3).info(
            "for img2img and ControlNet; the API cannot change this setting"
        ),
        "animatediff_map_cache_mb": shared.OptionInfo(
            DEFAULT_MEGABYTES,
            "Megabytes of ControlNet's maps that are kept on disk",
            gr.Number,
            {"precision": 0},
            section=SECTION,
        ).info("the next clip of the same source video need not make them again; 0 keeps none"),
    }
    if training_processes.can_run():
        defaults["animatediff_training_folders"] = _path_option(
            "Folders from which trainings may read videos, one per line", lines=3
        ).info("for a WebUI that others can reach: with --listen, --share or a login; the API cannot change this setting")
    defaults |= {f"animatediff_{name}": info for name, info in _quality_options().items()}
    for key, info in defaults.items():
        shared.opts.add_option(key, info)


def _path_option(label: str, lines: int = 1) -> shared.OptionInfo:
    """Returns a setting that says which files may be read: only for the Settings page, without `--hide-ui-dir-config`."""
    return shared.OptionInfo("", label, gr.Textbox, {"lines": lines, **shared.hide_dirs}, section=SECTION, restrict_api=True)


def _quality_options() -> dict[str, shared.OptionInfo]:
    """Returns one setting for each field of `Quality`."""

    def option(name: str, label: str, component: Any, **arguments: Any) -> shared.OptionInfo:
        return shared.OptionInfo(getattr(Quality, name), label, component, arguments, section=SECTION)

    return {
        "gif_dithering": option("gif_dithering", "GIF dithering", gr.Radio, choices=list(DITHERINGS)).info(
            "how colours are reduced to 256; Pattern does not flicker in still areas"
        ),
        "optimize_gif_gifsicle": option("optimize_gif_gifsicle", "Compress GIF with gifsicle", gr.Checkbox).info(
            "gifsicle must be installed"
        ),
        "mp4_crf": option("mp4_crf", "MP4 CRF (H.264)", gr.Slider, minimum=0, maximum=51, step=1).info(
            "0: lossless; 51: lowest quality, smallest file"
        ),
        "mp4_preset": option("mp4_preset", "MP4 preset (H.264)", gr.Dropdown, choices=["", *MP4_PRESETS]).info(
            "slower presets make smaller files; empty: the default of the encoder"
        ),
        "mp4_tune": option("mp4_tune", "MP4 tune (H.264)", gr.Dropdown, choices=["", *MP4_TUNES]).info(
            "the kind of content to optimise for; empty: none"
        ),
        "webp_quality": option("webp_quality", "WebP quality", gr.Slider, minimum=1, maximum=100, step=1),
        "webp_lossless": option("webp_lossless", "Lossless WebP", gr.Checkbox),
    }
