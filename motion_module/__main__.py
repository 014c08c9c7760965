"""The command line `python -m motion_module inspect|convert|train|evaluate …`: tools for weight files and clips."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .camera_ctrl import channels_in
from .checkpoint import Description, describe
from .convert import convert_file
from .errors import MissingDependency
from .lora import load_lora
from .weight_files import CheckpointError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m motion_module", description="Tools for AnimateDiff motion modules.")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="describe weight files")
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="print one JSON list")
    conversion = commands.add_parser(
        "convert", help="convert a motion module or LoRA to the authors' layout, or to that of diffusers"
    )
    conversion.add_argument("source", type=Path, metavar="IN", help="a weight file, or a diffusers folder")
    conversion.add_argument("target", type=Path, metavar="OUT", help="a .safetensors file, or a folder for diffusers")
    conversion.add_argument("--to", choices=("original", "diffusers"), required=True)
    training = commands.add_parser("train", help="train a motion module, a motion LoRA, a domain adapter or a SparseCtrl model")
    training.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file; docs/training.md describes its options")
    evaluation = commands.add_parser("evaluate", help="measure how smooth clips are, whether they loop, and how they change")
    evaluation.add_argument("clips", nargs="+", type=Path, metavar="CLIP", help="a video file, or a folder of frames")
    evaluation.add_argument("--plot", type=Path, metavar="FILE", help="write a plot of the measures to a .png file")
    options = parser.parse_args(arguments)
    return {"inspect": _inspect, "convert": _convert, "train": _train, "evaluate": _evaluate}[options.command](options)


def _train(options: argparse.Namespace) -> int:
    try:
        from .training import command
    except ImportError as error:
        print(f"Training needs a package that is missing or too old: {error}. Install it with pip.", file=sys.stderr)
        return 1
    return command.train(options.config)


def _evaluate(options: argparse.Namespace) -> int:
    from .evaluation import as_table, measured, write_plot

    faults: list[str] = []
    try:
        measures, faults = measured(options.clips)
        if measures:
            print(as_table(measures))
        if measures and options.plot:
            write_plot(measures, options.plot)
    except (MissingDependency, OSError, ValueError) as error:
        faults.append(str(error))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def _convert(options: argparse.Namespace) -> int:
    try:
        print(convert_file(options.source, options.target, options.to))
    except (CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _inspect(options: argparse.Namespace) -> int:
    reports = [_report(path) for path in options.files]
    print(json.dumps(reports, indent=2) if options.json else "\n\n".join(map(_as_text, reports)))
    return 0 if all(report["usable"] for report in reports) else 1


def _report(path: Path) -> dict[str, Any]:
    """Returns `usable` and `problem`, and all that is known of the file."""
    try:
        description = describe(path)
    except CheckpointError as error:
        return {"file": str(path), "usable": False, "problem": str(error)}
    problem = None
    try:
        if description.is_lora:
            load_lora(description.path)
        elif description.is_camera:
            channels_in(description.path)
        else:
            description.require_motion_module()
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
        "training": {name: fact for name, fact in description.training.items() if fact not in (None, "")} or None,
    }
    if description.is_lora:
        facts["use"] = f"in models/Lora, with <lora:{description.path.stem}:1> in the prompt"
    if description.is_camera:
        facts["use"] = "as Camera module (camera), beside a motion module"
    if family is None:
        return facts
    advice = family.advice
    return {
        **facts,
        "family": family.key,
        "which is": family.title,
        "assumed": description.assumed,
        "or else": [other.key for other in description.alternatives if other.key != family.key],
        "layout": description.layout,
        "base": family.base,
        "layers": len(description.channels or {}),
        "channels": sorted(set((description.channels or {}).values())),
        "most frames": description.length,
        "group norms of the UNet": family.unet_norms,
        "group norms of motion layers": family.motion_norms,
        "noise schedule": f"linear in {family.schedule.straight_in}, {family.schedule.first} to {family.schedule.last}",
        "trained on": f"{family.frames} frames",
        "made for": f"{advice.sampler}, schedule type {advice.schedule_type}, {advice.steps} steps, CFG {advice.cfg:g}"
        + (f", about {advice.side}×{advice.side}" if advice.side else ""),
        "missing": list(description.missing),
        "misshapen": list(description.misshapen),
        "unexpected": list(description.unexpected),
        "other tensors": len(description.other),
    }


def _as_text(report: dict[str, Any]) -> str:
    lines = [report["file"]]
    for name, value in report.items():
        if name != "file" and value not in (None, [], ""):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"  {name}: {'yes' if shown is True else 'no' if shown is False else shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
