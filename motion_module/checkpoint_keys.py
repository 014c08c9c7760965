"""The keys of whole Stable Diffusion checkpoints: which model a file is, and its keys as they were published.

The rules are those of the WebUI (`sd_models.py`), so that a file that it loads is known here too.
"""

from __future__ import annotations

from collections.abc import Mapping

from .weight_files import Entry

KINDS = {
    "model.diffusion_model.x_embedder.": "Stable Diffusion 3",
    "conditioner.embedders.1.model.": "SDXL",
    "conditioner.embedders.0.model.": "the SDXL refiner",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "cond_stage_model.transformer.": "SD 1.5",
}
"""The model by the prefix of a key. Earlier ones come first: a file may have keys of later ones too."""
_SD_1 = {
    f"cond_stage_model.transformer.{part}.": f"cond_stage_model.transformer.text_model.{part}."
    for part in ("embeddings", "encoder", "final_layer_norm")
}
"""Later versions of transformers, and files that they wrote, have no `text_model`."""
_SD_2_TURBO = {"conditioner.embedders.0.": "cond_stage_model."}
_NORM_OF_SD_2 = "conditioner.embedders.0.model.ln_final.weight"


def published_keys(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Returns the keys of a file by the name under which they were published."""
    turbo = _NORM_OF_SD_2 in entries and entries[_NORM_OF_SD_2].shape[:1] == (1024,)
    return {_renamed(key, _SD_2_TURBO if turbo else _SD_1): key for key in entries}


def kind_of_checkpoint(entries: Mapping[str, Entry]) -> str | None:
    """Returns the model that a file is; None if its keys do not tell."""
    keys = published_keys(entries)
    return next((kind for start, kind in KINDS.items() if any(key.startswith(start) for key in keys)), None)


def _renamed(key: str, replacements: Mapping[str, str]) -> str:
    for start, other in replacements.items():
        if key.startswith(start):
            return other + key[len(start) :]
    return key
