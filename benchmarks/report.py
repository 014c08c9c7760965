"""Compares AnimateDiff extensions in one table: `make bench`.

Each figure of time is of the plain batch of the same process, which has as many frames and no motion module. Other extensions
are measured in the same way.

    python benchmarks/report.py [--host webui] [--other DIR ...] [--size 64] [--rounds 3]

On a GPU the embedded host runs in half precision. What a host or an extension cannot do is "not measured".
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from step_time import LIGHT

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NOT_MEASURED = "not measured"
WINDOWS = ["--frames", "64", "--length", "16", "--overlap", "4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", choices=("embedded", "webui"), default="embedded")
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="folders of other AnimateDiff extensions")
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speed", action="store_true", help="measure light steps too, which takes four times as long")
    options = parser.parse_args()

    columns = [rows_of(extension, options) for extension in (ROOT, *options.other)]
    names = ["AnimateDiff", *(folder.resolve().name for folder in options.other)]
    print(f"{options.host} host, {options.size}x{options.size}, medians of {options.rounds} rounds\n")
    print("| | " + " | ".join(names) + " |\n" + "|---" * (1 + len(names)) + "|")
    for row in columns[0]:
        print(f"| {row} | " + " | ".join(column.get(row, NOT_MEASURED) for column in columns) + " |")


def rows_of(extension: Path, options: argparse.Namespace) -> dict[str, str]:
    """Returns the figures of an extension by what they are."""
    of_ours = extension == ROOT
    common = ["--host", options.host, "--size", str(options.size), "--extension", str(extension)]
    light = ["--speed", "Fast"] if options.speed and of_ours else []
    rows = {}
    for clip, more in (("16 frames", []), ("64 frames in windows of 16 that overlap by 4", WINDOWS)):
        rows |= of_step(
            f"a sampling step of {clip}", run("step_time.py", *common, "--rounds", str(options.rounds), *more, *light)
        )
    if memory := run("job_memory.py", *common):
        peaks, after = memory["peaks"], memory["after"]
        rows["peak memory of 256 frames, of that of 64"] = f"{peaks['256'] / peaks['64']:.3f}"
        rows[f"memory after {len(after)} clips, of that after 6"] = f"{after[-1] / after[5]:.3f}"
    if options.host == "webui":
        for name, seconds in (run("answer_time.py", "--extension", str(extension)) or {"seconds": {}})["seconds"].items():
            rows[f"from the last step to the answer, 16 frames of 512x512, {name}"] = f"{statistics.median(seconds):.2f} s"
    return rows


def of_step(what: str, found: dict[str, Any] | None) -> dict[str, str]:
    if found is None:
        return {}
    medians = {kind: [statistics.median(values) for values in zip(*rounds)] for kind, rounds in found["rounds"].items()}
    plain = medians["without"]
    rows = {
        f"{what}, of the plain batch": f"{medians['with'][0] / plain[0]:.3f}",
        f"{what}, peak memory of the plain batch": f"{medians['with'][1] / plain[1]:.3f}",
    }
    if LIGHT in medians:
        rows[f"{what}, with Fast"] = f"{medians[LIGHT][0] / plain[0]:.3f}"
    return rows


def run(program: str, *arguments: str) -> dict[str, Any] | None:
    """Returns what a benchmark prints in its last line; None if it fails, whose reason is on the console."""
    print(f"{program} {' '.join(arguments)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, HERE / program, *arguments], stdout=subprocess.PIPE, text=True)
    print(done.stdout, file=sys.stderr, flush=True)
    found: dict[str, Any] | None = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    return found


if __name__ == "__main__":
    main()
