"""The folder of motion modules: lists, finds, describes and loads the files in it."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from modules import hashes, shared
from modules.paths_internal import extensions_dir

from motion_module.camera_ctrl import CameraModule, load_camera
from motion_module.checkpoint import Description, describe, load
from motion_module.families import Family
from motion_module.lora import Lora, load_lora
from motion_module.network import MotionModule
from motion_module.ordinary_loras import load_ordinary
from motion_module.weight_files import SUFFIXES, CheckpointError, weights_of

from ..errors import RequestError, shown
from .choices import DEFAULT_MODULE, NO_MODULE

ROOT = Path(__file__).resolve().parents[2]
MOST_NAMED = 8
"""How many files an error names."""
EXAMPLES = "v3_sd15_mm.ckpt, or mm_sdxl_v10_beta.ckpt for SDXL (guoyww/animatediff, Hugging Face)"


def folder() -> Path:
    """Returns the folder of motion modules: that of the setting, else `model/` in the extension's folder."""
    chosen = shared.opts.data.get("animatediff_model_path")
    return Path(chosen) if chosen else ROOT / "model"


def names() -> list[str]:
    """Returns the paths of all weight files below the folder, with `/` as separator, in natural order."""
    return [name for name in _all_names() if _shown(name) == name]


def unusable_names() -> list[str]:
    """Returns the paths of weight files that no answer can name, because they are not UTF-8, with ? for what is not."""
    return [_shown(name) for name in _all_names() if _shown(name) != name]


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()


def _all_names() -> list[str]:
    root = str(folder())
    files = shared.walk_files(root, allowed_extensions=list(SUFFIXES)) if folder().is_dir() else ()
    return sorted((Path(os.path.relpath(file, root)).as_posix() for file in files), key=shared.natural_sort_key)


def find(name: str) -> Path:
    """Returns the file of that name below the folder. Raises RequestError if there is none, or it lies outside."""
    if name in NO_MODULE:
        raise RequestError(f"No motion module is chosen. {_available()}")
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or Path(name).is_absolute() or Path(name).drive:
        raise RequestError(
            f"The motion module {shown(name)} lies outside {folder()}. Name a file in that folder, by its path within it."
        )
    if (path := _file(name)) is not None or (path := _file(meant(name))) is not None:
        return path
    if len(alike := _alike(name)) > 1:
        raise RequestError(
            f"The motion module {shown(name)} could be {' or '.join(alike[:MOST_NAMED])}. Name one of them in full."
        )
    if name == DEFAULT_MODULE:  # the request may not have named one at all
        raise RequestError(f"No motion module is chosen, and the default, {name!r}, is missing. {_available()}")
    raise RequestError(f"The motion module {shown(name)} is missing. {_available()}")


def meant(name: str) -> str:
    """Returns the name of the file that a request means: its own words, if such a file exists or several could be meant.

    Else the only file of that name in another case, without its suffix or its folder.
    """
    if name in NO_MODULE or _file(name) is not None:
        return name
    alike = _alike(name)
    return alike[0] if len(alike) == 1 else name


def _alike(name: str) -> list[str]:
    """Returns the files that could be meant by a name in another case, without a suffix or a folder."""
    wanted = name.replace("\\", "/").strip().casefold()
    paths = map(PurePosixPath, names())
    return [str(path) for path in paths if wanted in spellings(path)]


def spellings(path: PurePosixPath) -> set[str]:
    """Returns how a file may be named: with or without its folder and its suffix, in lower case."""
    return {spelling.casefold() for spelling in (str(path), str(path.with_suffix("")), path.name, path.stem)}


def _file(name: str) -> Path | None:
    """Returns the weight file of exactly this name, or the one in a diffusers folder of this name; None if there is none."""
    path = folder() / PurePosixPath(name.replace("\\", "/"))
    try:
        path = weights_of(path)
        return path if path.suffix.lower() in SUFFIXES and path.is_file() else None
    except (CheckpointError, OSError, ValueError):  # a folder without weights, or a name that no file can have
        return None


def old_folder() -> Path | None:
    """Returns the `model` folder of sd-webui-animatediff if it holds motion modules and ours does not, else None."""
    candidate = Path(extensions_dir) / "sd-webui-animatediff" / "model"
    if names() or candidate == folder() or not candidate.is_dir():
        return None
    return candidate if any(file.suffix.lower() in SUFFIXES for file in candidate.rglob("*")) else None


def what_it_is(path: Path) -> Description:
    """Describes a weight file. If the WebUI knows its hash, a published file is recognised by it. Raises CheckpointError."""
    return _describe_once(path, *identity_of(path)).with_hash(hashes.sha256_from_cache(str(path), _title(path)))


def trained_frames(description: Description, family: Family) -> int:
    """Returns the number of frames that a motion module was trained on."""
    return min(family.frames, description.length)


def camera(path: Path) -> CameraModule:
    """Loads CameraCtrl's module; the last one stays in memory. Raises CheckpointError."""
    return _load_camera_once(path, *identity_of(path))


def lora(path: Path) -> Lora:
    """Loads a LoRA; the last few stay in memory. Raises CheckpointError for a broken file, or one for other models."""
    return _load_lora_once(path, *identity_of(path))


def ordinary_lora(path: Path) -> Lora:
    """Loads what a LoRA changes in the image model; the last few stay in memory. Raises CheckpointError."""
    return _load_ordinary_once(path, *identity_of(path))


def read(files: tuple[tuple[Path, Family], ...]) -> tuple[MotionModule, ...]:
    """Loads motion modules, each as one of a family. Those of the last call stay in memory."""
    return _load_once(tuple((path, family, *identity_of(path)) for path, family in files))


def short_hash(path: Path) -> str | None:
    """Returns eight digits of the file's SHA-256, which the WebUI caches; None where hashing is switched off."""
    digest = hashes.sha256(str(path), _title(path))
    return digest[:8] if digest else None


def _title(path: Path) -> str:
    """Returns the key of the WebUI's cache of hashes. It has the whole path: in diffusers' layout all files have one name."""
    return f"animatediff/{path}"


def _available() -> str:
    available = names()
    if not available:
        return f"The folder {folder()} has none yet. Download one for your checkpoints into it, such as {EXAMPLES}."
    named = ", ".join(available[:MOST_NAMED]) + (", …" if len(available) > MOST_NAMED else "")
    return f"Choose a motion module from {folder()}: {named}."


def identity_of(path: Path) -> tuple[int, int]:
    """Returns what changes when a file does: its time and its size."""
    try:
        facts = path.stat()
    except OSError:
        return 0, 0  # opening it will report the fault
    return facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=64)
def _describe_once(path: Path, _changed: int, _size: int) -> Description:
    return describe(path)


@lru_cache(maxsize=1)
def _load_camera_once(path: Path, _changed: int, _size: int) -> CameraModule:
    return load_camera(path)


@lru_cache(maxsize=16)
def _load_lora_once(path: Path, _changed: int, _size: int) -> Lora:
    return load_lora(path)


@lru_cache(maxsize=16)
def _load_ordinary_once(path: Path, _changed: int, _size: int) -> Lora:
    return load_ordinary(path)


@lru_cache(maxsize=1)
def _load_once(files: tuple[tuple[Path, Family, int, int], ...]) -> tuple[MotionModule, ...]:
    return tuple(load(path, family)[1] for path, family, _changed, _size in files)
