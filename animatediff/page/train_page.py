"""The tab AnimateDiff under Train: starts trainings and shows their progress. A script in `javascript/` refreshes it."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from modules import paths, sd_models, shared, ui_tempdir
from modules.ui_common import create_refresh_button

from .. import settings
from ..request import module_files, sparse_files
from ..request.network_paths import leads_elsewhere
from . import training_processes
from .events import in_sentences
from .training_processes import Training, TrainingError

KINDS = ("motion module", "motion lora", "domain adapter", "sparsectrl")
PRECISIONS = ("fp16", "bf16", "full")
NUMBERS = {
    "frames": ("Frames per clip", 16),
    "stride": ("Stride", 4),
    "size": ("Size", 256),
    "steps": ("Steps", 10_000),
    "batch": ("Batch size", 1),
    "accumulate": ("Gradient accumulation steps", 4),
    "learning_rate": ("Learning rate", 1e-4),
    "warm_up": ("Warm-up steps", 0),
    "rank": ("LoRA rank", 32),
    "save_every": ("Save every … steps", 500),
}
"""The numeric options: label and default, by the name in the configuration file."""
PLOT_WIDTH, PLOT_HEIGHT, PLOT_POINTS = 640, 160, 320


def add_to_page(_params: Any = None) -> None:
    """Adds the tab; a callback of `on_ui_train_tabs`."""
    with gr.Tab("AnimateDiff", elem_id="train-ad"), gr.Row():
        with gr.Column():
            options, name = _options()
            start = gr.Button("Start training", variant="primary", elem_id="train-ad-start")
        with gr.Column():
            chosen = _choice("run", "Training", _names, value=None)
            with gr.Row():
                pause = gr.Button("Pause", elem_id="train-ad-pause")
                resume = gr.Button("Resume", elem_id="train-ad-resume")
                stop = gr.Button("Stop", elem_id="train-ad-stop")
            shown = gr.HTML(elem_id="train-ad-status")
            # Separate elements, which gradio redraws only when they change: details stay open, and clips go on playing.
            data = gr.HTML(elem_id="train-ad-report")
            clips = gr.HTML(elem_id="train-ad-clips")
            look = gr.Button("", visible=False, elem_id="train-ad-look")
    start.click(in_sentences(partial(_start, tuple(options))), [name, *options.values()], [chosen], show_progress=False)
    for button, act in ((pause, partial(_request, "pause")), (stop, partial(_request, "stop")), (resume, _resume)):
        button.click(in_sentences(act), [chosen], [], show_progress=False)
    for event in (look.click, chosen.change):
        event(
            in_sentences(lambda run: (_status(run), _data(run), _clips(run))),
            [chosen],
            [shown, data, clips],
            show_progress=False,
            queue=False,
        )


def _options() -> tuple[dict[str, gr.components.Component], gr.Textbox]:
    """Builds the controls. Returns them by their name in the configuration file, and the one for the training's name."""
    options: dict[str, gr.components.Component] = {}
    name = gr.Textbox("", label="Name of the training and of the file that it writes", elem_id="train-ad-name")
    options["train"] = gr.Dropdown(list(KINDS), value=KINDS[0], label="Train", elem_id="train-ad-train")
    options["base"] = _choice("base", "Base checkpoint", _bases, value=next(iter(_bases()), ""), look=sd_models.list_models)
    options["data"] = gr.Textbox(
        "",
        label="Folder of videos",
        info="Put a text file of the same name, with the caption, beside each video or folder of frames. "
        "Or name a CSV file with the columns videoid and name.",
        elem_id="train-ad-data",
    )
    options["videos"] = gr.Textbox("", label="With a CSV file: the folder of its videos", elem_id="train-ad-videos")
    info = "The module that a motion LoRA or a SparseCtrl model is trained for, or that training continues from."
    options["motion_module"] = _choice("motion_module", "Motion module", lambda: ["", *module_files.names()], info=info)
    info = "A LoRA that is applied to the base checkpoint while a motion module is trained."
    options["domain_adapter"] = _choice("domain_adapter", "Domain adapter", lambda: ["", *_loras()], info=info)
    with gr.Accordion("Details", open=False, elem_id="train-ad-details"):
        for first, second in zip(*[iter(NUMBERS)] * 2):
            with gr.Row(elem_classes="ad-row"):
                options |= {key: _number(key) for key in (first, second)}
        options["precision"] = gr.Dropdown(list(PRECISIONS), value="fp16", label="Precision", elem_id="train-ad-precision")
        options["gradient_checkpointing"] = gr.Checkbox(
            True,
            label="Gradient checkpointing",
            info="Uses less memory and takes a third more time.",
            elem_id="train-ad-checkpointing",
        )
        options["horizontal_flip"] = gr.Checkbox(
            False,
            label="Also train on mirrored clips",
            info="Their captions swap the words left and right.",
            elem_id="train-ad-flip",
        )
        options["licence"] = gr.Textbox("", label="Licence, written into the file's header", elem_id="train-ad-licence")
    options["prompts"] = gr.Textbox("", label="Prompts for validation clips, one per line", lines=2, elem_id="train-ad-prompts")
    options["every"] = gr.Number(500, precision=0, label="Validation clips every … steps", elem_id="train-ad-every")
    return options, name


def _choice(
    key: str,
    label: str,
    names: Callable[[], list[str]],
    value: str | None = "",
    info: str | None = None,
    look: Callable[[], Any] = lambda: None,
) -> gr.Dropdown:
    """Builds a dropdown with a refresh button, which calls `look` and then `names`."""
    with gr.Row():
        dropdown = gr.Dropdown(names(), value=value, label=label, info=info, elem_id=f"train-ad-{key}")
        create_refresh_button(dropdown, look, lambda: {"choices": names()}, f"train-ad-{key}_refresh")
    return dropdown


def _bases() -> list[str]:
    return [entry.title for entry in sd_models.checkpoints_list.values()]


def _loras() -> list[str]:
    """Returns the LoRA files by their path in the folder of LoRAs, written with `/`."""
    files = _lora_folder().rglob("*.safetensors")
    return sorted((file.relative_to(_lora_folder()).as_posix() for file in files), key=shared.natural_sort_key)


def _number(key: str) -> gr.Number:
    label, value = NUMBERS[key]
    return gr.Number(value, label=label, precision=0 if isinstance(value, int) else None, elem_id=f"train-ad-{key}")


def _names() -> list[str]:
    return [training.name for training in training_processes.all_trainings()]


def _start(options: tuple[str, ...], name: str, *values: Any) -> Any:
    try:
        training = training_processes.named(name)
        training.start(_config(training, dict(zip(options, values))))
    except (ValueError, OSError) as error:
        raise gr.Error(str(error)) from error
    return gr.update(choices=_names(), value=training.name)


def _config(training: Training, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration for the values on the page. Raises TrainingError or RequestError."""
    checkpoint = sd_models.get_closet_checkpoint_match(given["base"])
    if checkpoint is None:
        raise TrainingError("Choose a base checkpoint.")
    for name in ("data", "videos"):
        given[name] = readable(given[name])
    if not given["data"]:
        raise TrainingError("Fill in the folder of videos.")
    prompts = [line.strip() for line in given.pop("prompts").splitlines() if line.strip()]
    every = given.pop("every")
    config = {key: value for key, value in given.items() if value not in ("", None)}
    if given["motion_module"]:
        config["motion_module"] = str(module_files.find(given["motion_module"]).absolute())
    if given["domain_adapter"] in _loras():
        config["domain_adapter"] = str((_lora_folder() / given["domain_adapter"]).absolute())
    elif given["domain_adapter"]:
        raise TrainingError(f"The domain adapter {given['domain_adapter']} is missing. Choose a file in {_lora_folder()}.")
    return {
        **config,
        "base": str(Path(checkpoint.filename).absolute()),
        "output": str(_output(given["train"], training.name).absolute()),
        "validation": {"prompts": prompts, "every": every},
    }


def _output(train: str, name: str) -> Path:
    """Returns the file that a training writes, where the panel looks for it. SparseCtrl models are known by their names."""
    folder = module_files.folder() if train in ("motion module", "sparsectrl") else _lora_folder()
    suffix = f"_{train}" if train == "sparsectrl" and sparse_files.MARK not in name.casefold() else ""
    return folder / f"{name}{suffix}.safetensors"


def readable(text: str) -> str:
    """Returns the absolute path of a folder or CSV file. Windows puts quotation marks around a path that is copied.

    Raises TrainingError if it may not be read. The text does not tell whether it exists.
    """
    bare = text.strip().strip('"')
    if not bare:
        return ""
    try:
        path = Path(bare).expanduser().absolute()
        is_allowed = _lies_in(bare, _folders()) or not _others_can_start_trainings()
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(f"{bare!r} is not a valid path. Name a folder, or a CSV file.") from error
    if not is_allowed:
        raise TrainingError(
            f"{bare!r} lies outside the folders that may be read, since others can reach this WebUI. Put the videos into "
            "outputs/animatediff-training in the WebUI's data folder, or add their folder to “Folders from which trainings may "
            "read videos” in the settings of AnimateDiff."
        )
    return str(path)


def _lies_in(name: str, folders: list[Path]) -> bool:
    return not leads_elsewhere(name, folders) and any(map(Path(name).expanduser().resolve().is_relative_to, folders))


def _others_can_start_trainings() -> bool:
    """Returns whether the page is for more people than those who sit at this machine."""
    options = shared.cmd_opts
    return bool(options.webui_is_non_local or options.gradio_auth or options.gradio_auth_path)


def _folders() -> list[Path]:
    """Returns the folders that the settings allow, and the one of all trainings."""
    return [training_processes.folder().resolve(), *settings.folders("animatediff_training_folders")]


def _lora_folder() -> Path:
    """Returns the folder of LoRAs. `--lora-dir` is an option of the built-in extension Lora, which may be switched off."""
    return Path(getattr(shared.cmd_opts, "lora_dir", None) or Path(paths.models_path) / "Lora")


def _request(action: str, name: str | None) -> None:
    try:
        _chosen(name).request(action)
    except (TrainingError, OSError) as error:
        raise gr.Error(str(error)) from error


def _resume(name: str | None) -> None:
    try:
        _chosen(name).resume()
    except (TrainingError, OSError) as error:
        raise gr.Error(str(error)) from error


def _chosen(name: str | None) -> Training:
    if not name:
        raise TrainingError("Choose a training first.")
    return training_processes.named(name)


# --- what is shown ---


def _status(name: str | None) -> str:
    """Returns HTML with what the training is doing, and a plot of its losses."""
    if not name:
        return ""
    training = training_processes.named(name)
    return _line(training.status()) + _plot(training.losses())


def _data(name: str | None) -> str:
    """Returns HTML with the number of clips in its videos, and details on videos that were skipped or look wrong."""
    first, *others = [html.escape(line) for line in training_processes.named(name).data()] if name else [""]
    summary = f"<summary>{len(others)} × <span>skipped, or worth checking</span></summary>"
    return f"<p>{first}</p>" + (f"<details>{summary}{'<br>'.join(others)}</details>" if others else "")


def _clips(name: str | None) -> str:
    """Returns HTML with its newest validation clips."""
    return "".join(map(_clip, training_processes.named(name).clips())) if name else ""


def _line(status: dict[str, Any]) -> str:
    parts = [f"<span>{html.escape(status['doing'])}</span>"]
    if "step" in status:
        parts.append(f"<span>step</span> {status['step']} / {status['steps']}")
    if status.get("loss") is not None:
        parts.append(f"<span>loss</span> {status['loss']:.4f}")
    if status.get("seconds_left") is not None and status["doing"] == "Training":
        minutes, seconds = divmod(round(status["seconds_left"]), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append(f"{hours}:{minutes:02}:{seconds:02} <span>left</span>")
    error = f"<p class='ad-train-error'>{html.escape(status['error'])}</p>" if status.get("error") else ""
    return f"<p>{' · '.join(parts)}</p>{error}"


def _plot(losses: Sequence[tuple[int, float]]) -> str:
    """Returns an SVG plot of the losses; each point is the mean of a few steps."""
    if len(losses) < 2:
        return ""
    group = max(1, len(losses) // PLOT_POINTS)
    groups = [losses[first : first + group] for first in range(0, len(losses), group)]
    points = [(some[-1][0], sum(loss for _, loss in some) / len(some)) for some in groups]
    first, last = points[0][0], points[-1][0]
    top = max(loss for _, loss in points) * 1.05 or 1.0
    coordinates = " ".join(
        f"{PLOT_WIDTH * (step - first) / max(1, last - first):.1f},{PLOT_HEIGHT * (1 - loss / top):.1f}"
        for step, loss in points
    )
    return (
        f"<svg class='ad-train-plot' viewBox='0 -4 {PLOT_WIDTH} {PLOT_HEIGHT + 22}'>"
        f"<polyline points='{coordinates}' fill='none' stroke='currentColor' vector-effect='non-scaling-stroke'/>"
        f"<text x='2' y='10' font-size='11' fill='currentColor'>{top:.3g}</text>"
        f"<text x='2' y='{PLOT_HEIGHT + 14}' font-size='11' fill='currentColor'>{first}</text>"
        f"<text x='{PLOT_WIDTH - 2}' y='{PLOT_HEIGHT + 14}' font-size='11' fill='currentColor' text-anchor='end'>{last}</text>"
        "</svg>"
    )


def _clip(clip: Path) -> str:
    ui_tempdir.register_tmp_file(shared.demo, str(clip))
    return f"<img class='ad-train-clip' src='file={quote(str(clip))}' alt='{html.escape(clip.stem)}'>"
