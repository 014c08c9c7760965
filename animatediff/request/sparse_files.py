"""The files of SparseCtrl models: those beside the motion modules, and those that ControlNet has."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from modules import shared
from modules.paths_internal import models_path

from motion_module.sparse_ctrl import Shape, SparseCtrl, describe_sparse_ctrl, load_sparse_ctrl
from motion_module.sparse_ctrl_keys import Kind
from motion_module.weight_files import SUFFIXES, CheckpointError, weights_of

from ..errors import RequestError, shown
from . import module_files
from .module_files import MOST_NAMED, identity_of

MARK = "sparse"
"""What the path of a listed file has in it: ControlNet's folder may have hundreds of others, which need not be opened then."""
EXAMPLE = "v3_sd15_sparsectrl_rgb.ckpt (guoyww/animatediff, Hugging Face)"


def folders() -> list[Path]:
    """Returns the folder of motion modules, and those where ControlNet has its models."""
    of_controlnet = getattr(shared.cmd_opts, "controlnet_dir", None)
    return [module_files.folder(), Path(models_path) / "ControlNet", *([Path(of_controlnet)] if of_controlnet else [])]


def names() -> list[str]:
    """Returns the paths below these folders of weight files that are SparseCtrl by their names, in natural order."""
    found = set()
    for folder in folders():
        files = shared.walk_files(str(folder), allowed_extensions=list(SUFFIXES)) if folder.is_dir() else ()
        found |= {Path(os.path.relpath(file, folder)).as_posix() for file in files}
    named = [name for name in found if MARK in name.casefold() and name.isprintable()]
    return sorted(named, key=shared.natural_sort_key)


def find(name: str) -> Path:
    """Returns the file of that name, which may lack its suffix or its folder. Raises RequestError if there is none."""
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or Path(name).is_absolute() or Path(name).drive:
        raise RequestError(
            f"The SparseCtrl model {shown(name)} is no name within a folder of models. Name a file in the folder of motion "
            "modules, or of ControlNet's models, by its path within it."
        )
    wanted = str(relative).casefold()
    alike = [one for one in names() if wanted in module_files.spellings(PurePosixPath(one))]
    for candidate in (name, *(alike if len(alike) == 1 else ())):
        for folder in folders():
            if (path := _file(folder, candidate)) is not None:
                return path
    available = names()
    if not available:
        raise RequestError(
            f"The SparseCtrl model {shown(name)} is missing, and so are all others. Download one into the folder of motion "
            f"modules, such as {EXAMPLE}."
        )
    named = ", ".join(available[:MOST_NAMED]) + (", …" if len(available) > MOST_NAMED else "")
    raise RequestError(f"The SparseCtrl model {shown(name)} is missing. Choose one of {named}.")


def what_it_is(path: Path) -> Shape:
    """Returns what a file says about its network. Raises CheckpointError."""
    return _describe_once(path, *identity_of(path))


def kind_of(name: str) -> Kind:
    """Returns what the model of that name is made for. Raises RequestError or CheckpointError."""
    return what_it_is(find(name)).kind


def read(files: tuple[Path, ...]) -> tuple[SparseCtrl, ...]:
    """Loads networks. Those of the last call stay in memory. Raises CheckpointError."""
    return _load_once(tuple((path, *identity_of(path)) for path in files))


def _file(folder: Path, name: str) -> Path | None:
    try:
        path = weights_of(folder / PurePosixPath(name.replace("\\", "/")))
        return path if path.suffix.lower() in SUFFIXES and path.is_file() else None
    except (CheckpointError, OSError, ValueError):  # a folder without weights, or a name that no file can have
        return None


@lru_cache(maxsize=16)
def _describe_once(path: Path, _changed: int, _size: int) -> Shape:
    return describe_sparse_ctrl(path)


@lru_cache(maxsize=1)
def _load_once(files: tuple[tuple[Path, int, int], ...]) -> tuple[SparseCtrl, ...]:
    return tuple(load_sparse_ctrl(path) for path, _changed, _size in files)
