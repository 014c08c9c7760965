"""The script of sd-webui-controlnet in the WebUI, and the units of a request.

Everything here that belongs to ControlNet is looked up when it is used, since ControlNet may be absent, or come later.
"""

from __future__ import annotations

from typing import Any

from modules import scripts

from ..errors import RequestError, shown

TITLE = "controlnet"
MAIN = "controlnet_main_entry"
"""The method of sd-webui-controlnet's script that prepares all units of a generation."""
BUILT_IN = "process_unit_after_click_generate"
"""The method of the script built into Forge and its relatives that prepares one unit."""


def is_installed() -> bool:
    """Returns whether the WebUI has loaded the script of a ControlNet."""
    return any(among(of_page(is_img2img=False), main) for main in (MAIN, BUILT_IN))


def on_page(*, is_img2img: bool) -> Any:
    """Returns the script of a tab of the page; None where there is none."""
    return among(of_page(is_img2img=is_img2img), MAIN)


def of_page(*, is_img2img: bool) -> Any:
    """Returns the WebUI's runner of the scripts of a tab; None before there is a page."""
    return getattr(scripts, "scripts_img2img" if is_img2img else "scripts_txt2img", None)


def find(p: Any) -> Any:
    """Returns the script of sd-webui-controlnet; None where there is none, or another ControlNet, such as Forge's own."""
    return among(p.scripts, MAIN)


def among(runner: Any, main: str) -> Any:
    """Returns the script of a ControlNet with the method `main`, by which one ControlNet is told from another."""
    for script in runner.alwayson_scripts if runner else ():
        if script.title().lower() == TITLE and hasattr(script, main):
            return script
    return None


def names_of(script: Any) -> dict[str, Any]:
    """Returns the names in the module of ControlNet's script, which is loaded under a name that others have too."""
    names: dict[str, Any] = getattr(type(script), MAIN).__globals__
    return names


def version_of(script: Any) -> str:
    """Returns ControlNet's version, as its own module states it; empty where it does not."""
    return str(getattr(names_of(script).get("controlnet_version"), "version_flag", ""))


def enabled_units(p: Any) -> list[tuple[int, Any]]:
    """Returns ControlNet's units that are switched on, each with its number, which counts all units from 0.

    Raises RequestError where ControlNet cannot read them.
    """
    if (script := find(p)) is None:
        return []
    try:
        names = names_of(script)
        units = names["external_code"].get_all_units_in_processing(p)
        # Other scripts, such as the X/Y/Z plot, may change units on their way to ControlNet.
        units = [names["Script"].parse_remote_call(p, unit.copy(), number) for number, unit in enumerate(units)]
    except Exception as error:  # ValueError is pydantic's; others come from assertions and from reading embeddings
        raise RequestError(f"ControlNet cannot read its units: {_faults(error)}. Correct them.") from None
    enabled = [(number, unit) for number, unit in enumerate(units) if unit.enabled]
    for number, unit in enabled:
        _require_model(script, number, unit)
    return enabled


def _require_model(script: Any, number: int, unit: Any) -> None:
    """Raises RequestError where ControlNet will not find the model of a unit; it takes one whose name is similar too."""
    names = names_of(script)
    if names["Preprocessor"].get_preprocessor(unit.module).do_not_need_model:
        return
    if unit.model in (None, "None"):
        raise RequestError(f"ControlNet unit {number} has no model. Choose one, or disable the unit.")
    if names["find_closest_lora_model_name"](unit.model) is None:
        raise unknown_model(number, unit.model)


def unknown_model(number: int, model: str) -> RequestError:
    """Returns the error for a model that ControlNet does not have."""
    return RequestError(
        f"ControlNet unit {number} asks for the model {shown(model)}, which ControlNet does not have. Choose one of its list, "
        "or copy the file to its folder of models and refresh the list."
    )


def _faults(error: Exception) -> str:
    """Returns what pydantic found wrong: the names of fields, and why."""
    faults: list[dict[str, Any]] = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
    return "; ".join(": ".join([*map(str, fault["loc"]), str(fault["msg"])]) for fault in faults)
