"""An embedded host for the extension: see README.md beside this file."""

import os
from pathlib import Path

HABITS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MPLCONFIGDIR": str(Path(__file__).resolve().parent / "data" / "matplotlib"),
}
"""No library reaches for a network, or writes outside this folder, by itself. Children of this process inherit it."""

os.environ.update(HABITS)
