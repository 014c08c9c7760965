"""The refusals and warnings of the product, read from its source, as the page `docs/messages.md`.

`python tests/support/user_texts.py` prints the page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FEWEST_WORDS = 6
"""Texts of fewer words count only where SAYING says them. Elsewhere they are names and labels."""
SAYING = ("failure", "reported_to_user", "_finished_on_error", "_require_motion", "_warn", "_damaged", "Contents")
"""Functions whose texts are always messages or parts of one. What is raised always is, too."""
LABELS = ("help", "info", "placeholder", "label", "description", "title", "tooltip", "value", "bar_format")
"""Arguments that are no messages."""
NO_MESSAGES = (
    "animatediff/page/settings_section.py",
    "animatediff/request/schema.py",
    "animatediff/job/estimate.py",
    "animatediff/job/live_preview.py",
    "animatediff/page/module_advice.py",
    "motion_module/__main__.py",
    "motion_module/training/validation.py",
)
"""Files of labels and facts."""
CODE = re.compile(r"<(\w+ |/?\w+>)|\n|%\(|\(\?:|\\S|-grow:|\.weight$|\{bar\}|‹help›|^config in |Error\|")
"""HTML, CSS, regular expressions, descriptions and the like."""
OTHER_TEXTS = (
    "A saved preset:",
    "Sets the controls of this panel",
    "If a preset has this name already",
    "Saves the values of this panel",
    "The module that a motion LoRA or a SparseCtrl model is trained for",
    "A LoRA that is applied to the base checkpoint",
    "Use the motion modules of sd-webui-animatediff",
    "Sets the sampler, schedule type",
    "‹videos› videos make",
    "‹title›: ‹number of names› more",
    "Done/Stopped at step",
    "PyTorch before 1.6",
    "v3_sd15_mm.ckpt, or",
    "video ‹iteration + 1›",
)
"""How labels and reports begin that would otherwise be taken for messages."""

AREAS = {
    "Values of a request": (
        "animatediff/request/values.py",
        "animatediff/request/reading.py",
        "animatediff/request/base64_pictures.py",
    ),
    "Values without effect, and unsuitable ones": (
        "animatediff/request/needs.py",
        "animatediff/job/without_effect.py",
        "animatediff/job/advice.py",
        "motion_module/families.py",
    ),
    "Settings that do not go together": (
        "animatediff/job/validate.py",
        "animatediff/job/unsuitable_extensions.py",
        "animatediff/job/dynamic_prompts.py",
        "animatediff/job/init_frames.py",
        "animatediff/request/plan.py",
        "motion_module/motion_strength.py",
        "motion_module/context_windows.py",
    ),
    "Prompt travel, and schedules per frame": (
        "animatediff/job/prompt_travel.py",
        "animatediff/request/schedules.py",
        "motion_module/frame_schedule.py",
        "motion_module/prompt_travel.py",
        "motion_module/keyframe_lines.py",
    ),
    "The camera": (
        "animatediff/request/camera.py",
        "animatediff/job/camera.py",
        "motion_module/camera_ctrl.py",
        "motion_module/camera_poses.py",
    ),
    "ControlNet": ("animatediff/controlnet",),
    "SparseCtrl": (
        "animatediff/request/frame_pictures.py",
        "animatediff/request/sparse_files.py",
        "animatediff/job/sparse_control.py",
        "motion_module/sparse_ctrl.py",
        "motion_module/sparse_control.py",
    ),
    "Detail": ("animatediff/detailer", "animatediff/job/detailing.py"),
    "Source videos, masks, and everything else that is read as a video": (
        "animatediff/request/inputs.py",
        "animatediff/request/source_video.py",
        "animatediff/request/masks.py",
        "animatediff/job/frame_masks.py",
        "animatediff/job/motion_masks.py",
        "motion_module/video_reader.py",
        "motion_module/video_file.py",
        "motion_module/pictures.py",
        "motion_module/evaluation.py",
        "motion_module/optical_flow.py",
    ),
    "The Batch tab": ("animatediff/page/batch_tab.py",),
    "Motion module files": (
        "animatediff/request/module_files.py",
        "motion_module/checkpoint.py",
        "motion_module/convert.py",
    ),
    "All weight files": (
        "motion_module/weight_files.py",
        "motion_module/file_signatures.py",
        "motion_module/pickle_reader.py",
        "motion_module/pickled_tensors.py",
    ),
    "LoRAs": (
        "animatediff/job/loras.py",
        "motion_module/lora.py",
        "motion_module/ordinary_loras.py",
        "motion_module/weight_patches.py",
    ),
    "Checkpoints, scripts and other extensions": (
        "animatediff/host",
        "animatediff/job/animated_model.py",
        "animatediff/job/acting.py",
        "animatediff/job/chosen_script.py",
        "animatediff/job/job.py",
        "animatediff/job/finished_frames.py",
        "scripts/animatediff.py",
        "motion_module/attach.py",
        "motion_module/row_layout.py",
    ),
    "Resuming": ("animatediff/job/resuming.py", "animatediff/job/resume_store.py"),
    "Saving": ("animatediff/output", "animatediff/video"),
    "The page": ("animatediff/page",),
    "Training": ("animatediff/page/train_page.py", "animatediff/page/training_processes.py", "motion_module/training"),
    "The API, and faults of AnimateDiff itself": (
        "animatediff/api.py",
        "animatediff/errors.py",
        "animatediff/job/processing_hooks.py",
        "animatediff/job/run_history.py",
    ),
}
"""The headings of the page, with the files, or the folders, whose texts are below them. A file decides before its folder."""
PLAIN = {
    "adapter": "file",
    "alike": "files",
    "bare": "path",
    "base": "kind of checkpoint",
    "before": "frames",
    "by name": "parameter",
    "description": "file",
    "error": "reason",
    "field": "parameter",
    "found": "what it is",
    "getattr": "value",
    "kept": "where the previous file is",
    "lora": "LoRA",
    "misshapen": "such weights",
    "named": "names",
    "path": "file",
    "spoken": "value",
    "tag": "LoRA tag",
    "theirs": "what the checkpoint has",
    "why": "reason",
}
"""What values are called on the page, where the source calls them otherwise."""
SILENT = ("name", "title", "text", "path", "strerror", "positional")
"""Attributes that say no more than what they belong to."""
TRANSPARENT = ("repr", "shown", "str", "list", "sorted", "map", "reason", "spoken", "spoken_name", "shortened", "_plain")
"""Functions that return what they are given, in words."""
INTRODUCTION = """\
# Messages

Every refusal and warning of the extension, in the order of what it is about. On the page a refusal appears in place of the
result, in the API as `detail`. Warnings are below the result, in the API in `AnimateDiff warnings`. A message says what was
given, why it cannot be, and what to do. ‹Words in brackets› stand for your values.

This page is generated from the source; `python tests/support/user_texts.py` prints it.
"""


@dataclass(frozen=True)
class Text:
    """One text, with its values as ‹names›."""

    file: str
    line: int
    words: str

    @property
    def is_message(self) -> bool:
        """Whether it is a whole message. Others are parts of one, such as the reason why a file cannot be used."""
        return re.search(r"[.!?][)”]?( ?‹[^›]*›)?$", self.words) is not None

    @property
    def area(self) -> str:
        """The heading that it belongs to. Raises KeyError for a file that AREAS does not have."""
        areas = {place: area for area, places in AREAS.items() for place in places}
        return areas[
            next(place for place in (self.file, *map(str, Path(self.file).parents), "") if place in areas or not place)
        ]


def as_page() -> str:
    """Returns `docs/messages.md`."""
    lines = [INTRODUCTION]
    for area, places in AREAS.items():
        found = [text for text in texts() if text.area == area]
        found.sort(key=lambda text: [text.file.startswith(place) for place in places].index(True))
        lines += [f"## {area}", "", *_list(text.words for text in found if text.is_message)]
        if parts := _list(text.words for text in found if not text.is_message):
            lines += ["Parts of these and other messages:", "", *parts]
    return "\n".join(lines).rstrip() + "\n"


def _list(words: Iterable[str]) -> list[str]:
    lines = [f"- {re.sub('(?=<[a-z])', chr(92) * 2, text)}" for text in dict.fromkeys(words)]
    return [*lines, ""] if lines else []


@lru_cache
def texts() -> tuple[Text, ...]:
    """Returns all texts, in the order of files and lines."""
    files = sorted(file for folder in ("animatediff", "motion_module", "scripts") for file in (ROOT / folder).rglob("*.py"))
    trees = {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}
    constants = _constants(trees.values())
    found = [text for name, tree in trees.items() if name not in NO_MESSAGES for text in _texts(name, tree, constants)]
    whole = [text for text in found if not any(_ends(other, text) for other in found)]
    return tuple(sorted(whole, key=lambda text: (text.file, text.line)))


def _ends(message: Text, text: Text) -> bool:
    """Whether a text is a constant that ends, or is within, a message of the same file."""
    return text.is_message and message.file == text.file and f" {text.words}" in message.words


def _constants(trees: Iterable[ast.Module]) -> dict[str, Any]:
    """Returns the values of modules' constants that are written out there, without names that have several."""
    found: dict[str, Any] = {}
    several = set[str]()
    for node in (node for tree in trees for node in tree.body if isinstance(node, ast.Assign)):
        value, target = _computed(node.value, found), node.targets[0]
        names, values = (target.elts, value) if isinstance(target, ast.Tuple) else ([target], [value])
        named = {_name(name): one for name, one in zip(names, values or ()) if one is not None and _name(name).isupper()}
        several |= {name for name, one in named.items() if found.get(name, one) != one}
        found.update(named)
    return {name: value for name, value in found.items() if name not in several}


def _computed(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    """Returns the value of an expression of constants alone, else None."""
    try:
        value = eval(ast.unparse(node), {"__builtins__": {}}, dict(constants))  # our own source
    except Exception:
        return None
    return value if isinstance(value, (str, int, float, tuple)) else None


def _texts(file: str, tree: ast.Module, constants: Mapping[str, Any]) -> Iterator[Text]:
    said, skipped = set[int](), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _name(node.func) in SAYING):
            said |= _within(node)
        if isinstance(node, ast.keyword) and node.arg in LABELS:
            skipped |= _within(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            skipped |= _within(node)
        if isinstance(node, ast.JoinedStr):
            skipped |= _within(node) - {id(node)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if not is_text or id(node) in skipped:
            continue
        words = re.sub(r"%[sd]", "‹value›", _written(node, constants)).strip()
        counts = len(words.split()) >= (2 if id(node) in said else FEWEST_WORDS)
        if counts and not CODE.search(words) and not words.startswith(OTHER_TEXTS):
            yield Text(file, node.lineno, words.removeprefix("AnimateDiff: "))


def _within(node: ast.AST) -> set[int]:
    return {id(child) for child in ast.walk(node)}


def _written(node: ast.AST, constants: Mapping[str, Any]) -> str:
    """Returns a text as its reader sees it, with values as ‹names›."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_written(value, constants) for value in node.values)
    value = node.value if isinstance(node, ast.FormattedValue) else node
    if isinstance(value, ast.IfExp):
        choices = [_written(choice, constants) for choice in (value.body, value.orelse)]
        return "/".join(choices) if all(choices) else f"({''.join(choices)})"
    if isinstance(value, ast.BinOp) and isinstance(value.left, ast.Constant):  # "s" * (count > 1)
        return f"({value.left.value})"
    computed = _computed(value, constants)
    if isinstance(computed, (str, int, float)):
        return f"{computed:,}" if isinstance(computed, int) else str(computed)
    words = _meaning(value)
    return f"‹{PLAIN.get(words, words)}›"


def _meaning(node: ast.AST) -> str:
    """Returns in words what an expression is."""
    if isinstance(node, ast.Name):
        return node.id.replace("_", " ").strip().lower()
    if isinstance(node, ast.Attribute):
        is_silent = node.attr in SILENT and _name(node.value) != "self"
        return _meaning(node.value) if is_silent else node.attr.replace("_", " ").strip()
    if isinstance(node, ast.Call):
        name, given = _name(node.func), [_meaning(argument) for argument in node.args]
        if name == "len":
            return f"number of {given[0]}"
        if name == "join" or name in TRANSPARENT:
            return given[-1]
        return _meaning(node.func)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return node.slice.value.replace("_", " ")
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)) and isinstance(node.right, ast.Constant):
        return f"{_meaning(node.left)} {'+−'[isinstance(node.op, ast.Sub)]} {node.right.value}"
    for part in ("value", "left", "generators", "iter", "values"):
        if inner := getattr(node, part, None):
            return _meaning(inner[0] if isinstance(inner, list) else inner)
    return "value"


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


if __name__ == "__main__":
    print(as_page(), end="")
