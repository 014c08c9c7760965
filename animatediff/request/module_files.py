"""The folder of motion modules: what is in it, and reading one."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath

from modules import hashes, shared
from modules.paths_internal import extensions_dir

from motion_module.checkpoint import Description, describe, load
from motion_module.families import Family
from motion_module.lora import Lora, load_lora
from motion_module.network import MotionModule
from motion_module.weight_files import SUFFIXES, CheckpointError, weights_of

from ..errors import RequestError
from .params import NO_MODULE

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = "v3_sd15_mm.ckpt, or mm_sdxl_v10_beta.ckpt for SDXL (guoyww/animatediff, Hugging Face)"


def folder() -> Path:
    """Where motion modules lie: the setting, else `model/` in the extension's own folder."""
    chosen = shared.opts.data.get("animatediff_model_path")
    return Path(chosen) if chosen else ROOT / "model"


def names() -> list[str]:
    """Paths of all weight files below the folder, written with `/`, in the order in which people count."""
    root = str(folder())
    files = shared.walk_files(root, allowed_extensions=list(SUFFIXES)) if folder().is_dir() else ()
    return sorted((Path(os.path.relpath(file, root)).as_posix() for file in files), key=shared.natural_sort_key)


def find(name: str) -> Path:
    """The file of that name below the folder. Raises RequestError if none is chosen, it is not there, or lies outside."""
    if name in NO_MODULE:
        raise RequestError(f"No motion module is chosen. {_what_there_is()}")
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or Path(name).is_absolute() or Path(name).drive:
        raise RequestError(f"The motion module {name!r} lies outside {folder()}. Name a file in that folder.")
    path = folder() / relative
    with suppress(CheckpointError):  # of a folder without weights it is said below that it is not there
        path = weights_of(path)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise RequestError(f"The motion module {name!r} is not there. {_what_there_is()}")
    return path


def old_folder() -> Path | None:
    """The `model` folder of the established extension, where it holds motion modules and ours does not."""
    candidate = Path(extensions_dir) / "sd-webui-animatediff" / "model"
    if names() or candidate == folder() or not candidate.is_dir():
        return None
    return candidate if any(file.suffix.lower() in SUFFIXES for file in candidate.rglob("*")) else None


def what_it_is(path: Path) -> Description:
    """What a weight file is; surer of it once the WebUI knows the file's hash. Raises CheckpointError if it cannot be read."""
    return _describe_once(path, *_identity(path)).with_hash(hashes.sha256_from_cache(str(path), _title(path)))


def trained_frames(description: Description, family: Family) -> int:
    """How many frames a motion module is at its best with."""
    return min(family.frames, description.length)


def lora(path: Path) -> Lora:
    """The LoRA in a file. The last few are kept in memory. Raises CheckpointError where it is none of ours, or broken."""
    return _load_lora_once(path, *_identity(path))


def read(files: tuple[tuple[Path, Family], ...]) -> tuple[MotionModule, ...]:
    """The motion modules in some files, each as of a family. Those of the last call are kept in memory."""
    return _load_once(tuple((path, family, *_identity(path)) for path, family in files))


def short_hash(path: Path) -> str | None:
    """Eight digits of the file's SHA-256, which the WebUI keeps; None where hashing is switched off."""
    digest = hashes.sha256(str(path), _title(path))
    return digest[:8] if digest else None


def _title(path: Path) -> str:
    """Under which the WebUI remembers the hash; the whole path, since diffusers gives all weights the same name."""
    return f"animatediff/{path}"


def _what_there_is() -> str:
    available = names()
    if not available:
        return f"There is none in {folder()} yet. Get one for your checkpoints and put it there, such as {EXAMPLES}."
    shown = ", ".join(available[:8]) + (", …" if len(available) > 8 else "")
    return f"In {folder()} there are: {shown}."


def _identity(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return 0, 0  # whoever opens it will say what is wrong
    return facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=64)
def _describe_once(path: Path, _changed: int, _size: int) -> Description:
    return describe(path)


@lru_cache(maxsize=16)
def _load_lora_once(path: Path, _changed: int, _size: int) -> Lora:
    return load_lora(path)


@lru_cache(maxsize=1)
def _load_once(files: tuple[tuple[Path, Family, int, int], ...]) -> tuple[MotionModule, ...]:
    return tuple(load(path, family)[1] for path, family, _changed, _size in files)
