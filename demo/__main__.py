"""`python -m demo`: makes the Python environment if it is missing, and runs `demo.run` in it. See README.md."""

from __future__ import annotations

import subprocess
import sys

from demo.environment import ROOT, ensure
from demo.run import read_options


def main() -> int:
    read_options(sys.argv[1:])  # reports wrong options before anything is installed
    command = [str(ensure()), "-m", "demo.run", *sys.argv[1:]]
    with subprocess.Popen(command, cwd=ROOT) as inside:
        while True:
            try:
                return inside.wait()
            except KeyboardInterrupt:  # the child process gets Ctrl-C as well, and reports it
                continue


if __name__ == "__main__":
    sys.exit(main())
