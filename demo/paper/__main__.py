"""Runs the paper's experiments in the small world, and writes tables and pictures to `docs/paper`.

    .venv/bin/python -m demo.paper [EXPERIMENT …]

Clips whose verdicts are in `demo/paper/verdicts` are neither made nor judged again while their weights and recipes are the
same. New clips may need models to be trained first, which takes hours; trainings are saved in `demo/data/paper`, and an
interrupted one continues.
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
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(EXPERIMENTS)} (default: all)")
    wanted = parser.parse_args().experiments
    for name in wanted:
        if name not in EXPERIMENTS:
            parser.error(f"there is no experiment {name}; choose from {', '.join(EXPERIMENTS)}")
    for name in wanted or EXPERIMENTS:
        print(f"{name}: {(EXPERIMENTS[name].__doc__ or '').strip()}", flush=True)
        try:
            write(name, RUNS, DOCS)
        except (MismatchedVerdicts, ConfigError) as error:
            sys.exit(str(error))


def write(name: str, runs: Path, docs: Path) -> None:
    """Runs one experiment, and writes its table and its contact sheet. Raises MismatchedVerdicts."""
    rows = EXPERIMENTS[name](runs)
    files = [Verdicts(VERDICTS / f"{row.file}.jsonl", row.made_with) for row in rows]
    judged_before = sum(map(len, files))
    judged = [(row, file.of(row.scenes, row.make)) for row, file in zip(rows, files)]
    text = report.table(judged)
    if name == "models":
        text += f"\n\n{report.claims(judged)}"
    (docs / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    print(text, flush=True)
    picture = docs / f"{name}.png"
    if not picture.exists() or sum(map(len, files)) > judged_before:
        report.contact_sheet(rows, replace(SHOWN, motion=LORA_MOTION) if name == "motion-loras" else SHOWN, SEED, picture)


if __name__ == "__main__":
    main()
