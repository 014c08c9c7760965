"""The table of parameters as a JSON schema and as the Markdown table of `docs/parameters.md`.

`python -m animatediff.request.schema` prints the Markdown table.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from .params import FIELDS, default_of, first_value, option_of


def schema() -> dict[str, Any]:
    """Returns a JSON schema of the API's dictionary."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AnimateDiff",
        "type": "object",
        "properties": {field.name: _schema_of(field) for field in FIELDS},
    }


_ITEMS = {"tuple[FramePicture, ...]": ("string", "object"), "tuple[SparseAsked, ...]": ("object",)}
"""What a list may have in it."""


def _schema_of(field: dataclasses.Field[Any]) -> dict[str, Any]:
    option = option_of(field)
    types = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "Image.Image | None": "string"}
    facts: dict[str, Any] = {"description": option.full_help, "default": field.default}
    if field.name == "format":
        facts |= {"type": ["array", "string"], "items": {"enum": list(option.choices)}, "default": list(default_of(field))}
        return facts
    if str(field.type).startswith("tuple"):
        return {**facts, "type": "array", "items": {"type": list(_ITEMS[str(field.type)])}, "default": list(default_of(field))}
    facts["type"] = types[str(field.type)]
    is_number = facts["type"] != "string"
    if is_number and option.minimum is not None:
        facts["minimum"] = 0 if option.zero_is_auto else option.minimum
    if is_number and option.maximum is not None:
        facts["maximum"] = option.maximum
    if option.more_choices:
        facts["maxLength"] = option.longest
        facts["anyOf"] = [{"enum": list(option.choices)}, {"pattern": f"{re.escape(option.more_choices)}$"}]
    elif option.choices:
        facts["enum"] = list(option.choices)
    elif field.type == "str":
        facts["maxLength"] = option.longest
    return facts


def as_markdown() -> str:
    """Returns the table of `docs/parameters.md`."""
    rows = ["| key | type | default | in the panel | meaning |", "|---|---|---|---|---|"]
    for field in FIELDS:
        facts, option = _schema_of(field), option_of(field)
        shown, in_panel_first = _shown(default_of(field)), _shown(first_value(field))
        if in_panel_first != shown:
            shown += f"; in the panel {in_panel_first}"
        kind = "list" if str(field.type).startswith("tuple") else facts["type"]
        more = f", or the name of a {option.more_choices} file" if option.more_choices else ""
        allowed = f" One of {', '.join(option.choices)}{more}." if option.choices else ""
        if option.minimum is not None and option.maximum is not None:
            kinds = "0, or from" if option.zero_is_auto else "Numbers from" if option.is_schedule else "From"
            allowed = f" {kinds} {option.minimum:,} to {option.maximum:,}."
        in_panel = " › ".join(filter(None, (option.group.title if option.group else "", option.label)))
        rows.append(f"| `{field.name}` | {kind} | {shown} | {in_panel} | {facts['description']}{allowed} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else value
    return "empty" if text in ("", None) else f"`{text}`"


if __name__ == "__main__":
    print(as_markdown(), end="")
