"""The demo: small trained models, and a stand-in for the WebUI that runs the extension. See README.md in this folder."""

import os
from pathlib import Path

ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MPLCONFIGDIR": str(Path(__file__).resolve().parent / "data" / "matplotlib"),
}
"""Keeps libraries off the network and out of other folders. Child processes inherit these variables."""

os.environ.update(ENVIRONMENT)
