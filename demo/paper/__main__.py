"""The paper's experiments in the small world: tables and pictures into `docs/paper`.

    .venv/bin/python -m demo.paper [EXPERIMENT …]

What was judged before, in `docs/paper/verdicts`, is not judged again: delete a file there to do so. What has to be trained on
the way goes to `demo/data/paper`, and goes on where it was cut off. From nothing it takes hours on a CPU.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from demo.environment import ROOT
from demo.paper import report
from demo.paper.experiments import EXPERIMENTS, LESSON
from demo.paper.judging import verdicts
from demo.world.scenes import Scene

RUNS, DOCS = ROOT / "demo" / "data" / "paper", ROOT / "docs" / "paper"
SHOWN = Scene("circle", "red", "blue", "moving left")
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"{', '.join(EXPERIMENTS)}; all without any")
    for name in parser.parse_args().experiments or EXPERIMENTS:
        print(f"{name}: {(EXPERIMENTS[name].__doc__ or '').strip()}", flush=True)
        write(name, RUNS, DOCS)


def write(name: str, runs: Path, docs: Path) -> None:
    """Does one experiment, and writes its table and its contact sheet."""
    rows = EXPERIMENTS[name](runs)
    judged = [(row, verdicts(docs / "verdicts" / f"{row.file}.jsonl", row.make, row.scenes)) for row in rows]
    text = report.table(judged)
    if name == "models":
        text += f"\n\n{report.claims(judged)}"
    (docs / f"{name}.md").write_text(f"{text}\n", encoding="utf-8")
    print(text, flush=True)
    shown = replace(SHOWN, motion=LESSON) if name == "lessons" else SHOWN
    report.contact_sheet(rows, shown, SEED, docs / f"{name}.png")


if __name__ == "__main__":
    main()
