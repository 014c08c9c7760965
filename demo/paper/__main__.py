"""The paper's experiments in the small world: tables and pictures into `docs/paper`.

    .venv/bin/python -m demo.paper [EXPERIMENT …]

Clips that were judged before, by `demo/paper/verdicts`, are neither made nor judged again while weights and recipes are the
same. What has to be trained for others goes to `demo/data/paper`, and goes on where it was cut off: from nothing, in hours.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from demo.environment import ROOT
from demo.paper import report
from demo.paper.experiments import EXPERIMENTS, LORA_MOTION
from demo.paper.judging import MismatchedVerdicts, Verdicts
from demo.world.scenes import Scene
from motion_module.training.config import ConfigError

RUNS, DOCS = ROOT / "demo" / "data" / "paper", ROOT / "docs" / "paper"
SHOWN = Scene("circle", "red", "blue", "moving left")
SEED = 1
VERDICTS = Path(__file__).parent / "verdicts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(EXPERIMENTS)}; all without any")
    wanted = parser.parse_args().experiments
    for name in wanted:
        if name not in EXPERIMENTS:
            parser.error(f"there is no {name}; there are {', '.join(EXPERIMENTS)}")
    for name in wanted or EXPERIMENTS:
        print(f"{name}: {(EXPERIMENTS[name].__doc__ or '').strip()}", flush=True)
        try:
            write(name, RUNS, DOCS)
        except (MismatchedVerdicts, ConfigError) as error:
            sys.exit(str(error))


def write(name: str, runs: Path, docs: Path) -> None:
    """Does one experiment, and writes its table and its contact sheet. Raises MismatchedVerdicts."""
    rows = EXPERIMENTS[name](runs)
    files = [Verdicts(VERDICTS / f"{row.file}.jsonl", row.made_with) for row in rows]
    known = sum(map(len, files))
    judged = [(row, file.of(row.scenes, row.make)) for row, file in zip(rows, files)]
    text = report.table(judged)
    if name == "models":
        text += f"\n\n{report.claims(judged)}"
    (docs / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    print(text, flush=True)
    picture = docs / f"{name}.png"
    if not picture.exists() or sum(map(len, files)) > known:
        report.contact_sheet(rows, replace(SHOWN, motion=LORA_MOTION) if name == "lessons" else SHOWN, SEED, picture)


if __name__ == "__main__":
    main()
