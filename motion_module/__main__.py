"""`python -m motion_module inspect FILE…`: says what weight files are."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .checkpoint import Description, describe
from .files import CheckpointError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m motion_module", description="Tools for AnimateDiff motion modules.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="say what weight files are")
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="print one JSON list")
    options = parser.parse_args(arguments)

    reports = [_report(path) for path in options.files]
    print(json.dumps(reports, indent=2) if options.json else "\n\n".join(map(_as_text, reports)))
    return 0 if all(report["usable"] for report in reports) else 1


def _report(path: Path) -> dict[str, Any]:
    """`usable` and `problem`, and with them all that is known of the file."""
    try:
        description = describe(path)
    except CheckpointError as error:
        return {"file": str(path), "usable": False, "problem": str(error)}
    try:
        description.require_motion_module()
        problem = None
    except CheckpointError as error:
        problem = str(error)
    return {"file": str(path), "usable": problem is None, "problem": problem, **_facts(description)}


def _facts(description: Description) -> dict[str, Any]:
    family = description.family
    facts: dict[str, Any] = {
        "kind": description.kind,
        "because": description.reason,
        "container": description.container,
        "numbers": list(description.dtypes),
        "parameters": description.parameters,
    }
    if family is None:
        return facts
    return {
        **facts,
        "family": family.key,
        "base": family.base,
        "layers": len(description.channels or {}),
        "channels": sorted(set((description.channels or {}).values())),
        "most frames": description.length,
        "group norms of the UNet": family.unet_norms,
        "noise schedule": f"straight in {family.schedule.straight_in}, {family.schedule.first} to {family.schedule.last}",
        "missing": list(description.missing),
        "misshapen": list(description.misshapen),
        "other tensors": len(description.other),
    }


def _as_text(report: dict[str, Any]) -> str:
    lines = [report["file"]]
    for name, value in report.items():
        if name != "file" and value not in (None, []):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"  {name}: {'yes' if shown is True else 'no' if shown is False else shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
