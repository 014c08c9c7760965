"""An embedded host for the extension: see README.md beside this file."""

import os

OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""No library reaches for a network by itself. They read this as they are imported, and children inherit it."""

os.environ.update(OFFLINE)
