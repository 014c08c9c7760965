"""The ControlNet that is built into Forge, reForge and Forge Neo: its script, and the units of a request.

Requests may name units in the words of sd-webui-controlnet too: `batch_images`, `mask`, a preprocessor "none", and models
without their hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..errors import RequestError, shown
from . import script
from .pictures import FOLDER_MODE, MERGE_MODE

NO_PICTURE = 5
"""Masks and pictures whose levels of 255 are all less than this count as empty, as in ControlNet."""


def find(p: Any) -> Any:
    """Returns the script of the built-in ControlNet; None where there is none."""
    return script.among(p.scripts, script.BUILT_IN)


def names_of(found: Any) -> dict[str, Any]:
    """Returns the names in the module of the script."""
    names: dict[str, Any] = type(found).get_input_data.__globals__  # torch's decorators hide those of other methods
    return names


def in_its_words(found: Any, argument: Any) -> Any:
    """Returns a unit of a request as the built-in ControlNet reads it: one of the page, or a dictionary."""
    if isinstance(argument, dict):
        argument = _translated(argument)
    names = names_of(found)["global_state"]
    for key, known in (("module", _preprocessors(names)), ("model", names.controlnet_filename_dict)):
        _set(argument, key, _known_name(_get(argument, key), known))
    return argument


def _translated(given: dict[str, Any]) -> dict[str, Any]:
    """Returns a dictionary in which pictures are where the built-in ControlNet looks for them."""
    unit = {key: value for key, value in given.items() if value != ""}  # the library webuiapi sends "" for no picture
    if isinstance(picture := unit.get("image"), dict) and isinstance(picture.get("image"), str):
        unit["image"] = picture["image"]
        unit.setdefault("mask_image", picture.get("mask"))
    if unit.get("mask"):
        unit["mask_image"] = unit["mask"]
    if unit.get("input_mode") == FOLDER_MODE:  # we read the folder, and give each picture of it
        del unit["input_mode"]
    return unit


def _preprocessors(global_state: Any) -> Any:
    return global_state.supported_preprocessors


def _known_name(name: Any, known: Any) -> Any:
    """Returns a name as it is known: requests may write it in other letters, and leave the hash of a model out."""
    if not isinstance(name, str) or name in known:
        return name
    return next((each for each in known if name.lower() in (each.lower(), each.rpartition(" [")[0].lower())), name)


def _get(unit: Any, key: str) -> Any:
    return unit.get(key, "None") if isinstance(unit, dict) else getattr(unit, key)


def _set(unit: Any, key: str, value: Any) -> None:
    if isinstance(unit, dict):
        unit[key] = value
    else:
        setattr(unit, key, value)


def enabled_units(p: Any) -> list[tuple[int, Any]]:
    """Returns what `pictures` asks about each enabled unit, with its number, which counts all units from 0.

    Raises RequestError for a unit that ControlNet cannot read, and for names that it does not have.
    """
    found = find(p)
    units: list[tuple[int, Any]] = []
    for number, argument in enumerate(p.script_args[found.args_from : found.args_to]):
        try:
            of_argument = found.get_enabled_units([] if argument is None else [in_its_words(found, argument)])
        except Exception as error:
            raise RequestError(f"ControlNet cannot read its unit {number}: {str(error).rstrip('.')}. Correct it.") from None
        units += [(number, _asked(argument, unit)) for unit in of_argument]
    for number, unit in units:
        _require_names(names_of(found)["global_state"], number, unit)
    return units


def _asked(argument: Any, unit: Any) -> SimpleNamespace:
    """Returns what `pictures` asks about a unit. `argument`: the unit as the request has it."""
    mode = getattr(getattr(unit, "input_mode", None), "value", None)
    folder = _folder_of(unit)
    image, mask = unit.image, _drawn(getattr(unit, "mask_image", None))
    if isinstance(argument, dict) and argument.get("input_mode") == FOLDER_MODE:
        mode, folder = FOLDER_MODE, argument.get("batch_images") or folder
    if mode == MERGE_MODE:  # its pictures are for one frame after another
        image = unit.batch_input_gallery or None
    if getattr(unit, "use_preview_as_input", False) and unit.generated_image is not None:
        mode, image = None, unit.generated_image
    return SimpleNamespace(
        module=str(unit.module),
        model=str(unit.model),
        image=image,
        mask=mask,
        input_mode=SimpleNamespace(value=mode),
        batch_images=folder,
        is_inpaint="inpaint" in str(unit.module).lower(),
        ipadapter_input=None,
        accepts_multiple_inputs=True,
    )


def _folder_of(unit: Any) -> str:
    folder, masks = (getattr(unit, f"batch_{what}_dir", "") or "" for what in ("image", "mask"))
    return f"{folder}\nmask:{masks}" if folder and masks else folder


def _drawn(mask: Any) -> Any:
    """Returns a mask, or None where nothing of it was drawn."""
    parts: Sequence[Any] = tuple(mask.values()) if isinstance(mask, dict) else (mask,)
    return mask if any(part is not None and (np.asarray(part) > NO_PICTURE).any() for part in parts) else None


def _require_names(global_state: Any, number: int, unit: Any) -> None:
    preprocessor = _preprocessors(global_state).get(unit.module)
    if preprocessor is None:
        raise RequestError(
            f"ControlNet unit {number} asks for the preprocessor {shown(unit.module)}, which this ControlNet does not have. "
            "Choose one of its list."
        )
    if preprocessor.do_not_need_model:
        return
    if unit.model == "None":
        raise RequestError(f"ControlNet unit {number} has no model. Choose one, or disable the unit.")
    if unit.model not in global_state.controlnet_filename_dict:
        raise script.unknown_model(number, unit.model)
