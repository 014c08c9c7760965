"""`python -m demo`: makes the environment where it is missing, and goes on inside it. See README.md."""

from __future__ import annotations

import subprocess
import sys

from demo.environment import ROOT, ensure
from demo.run import read_options


def main() -> int:
    read_options(sys.argv[1:])  # what is wrong in them is said before anything is installed
    command = [str(ensure()), "-m", "demo.run", *sys.argv[1:]]
    with subprocess.Popen(command, cwd=ROOT) as inside:
        while True:
            try:
                return inside.wait()
            except KeyboardInterrupt:  # whoever runs inside has had it too, and says what there is to say
                continue


if __name__ == "__main__":
    sys.exit(main())
