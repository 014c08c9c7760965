"""Writes the folder from which `transformers` loads a CLIP text encoder: its configuration and its tokenizer."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

TEXT_LENGTH = 77
VOCABULARY = 49408


def text_config(width: int, heads: int, layers: int) -> dict[str, Any]:
    """Returns arguments for `transformers.CLIPTextConfig`, as in OpenAI's text encoders."""
    return {
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": TEXT_LENGTH,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


STABLE_DIFFUSION_1 = text_config(width=768, heads=12, layers=12)


def merge_rules() -> list[str]:
    """Returns CLIP's byte pair merges, from the table in the package `clip`."""
    package = importlib.util.find_spec("clip")
    if package is None or package.origin is None:
        raise SystemExit("The package 'clip' is missing. Run `python -m demo`, which installs it, or use a WebUI's Python.")
    table = Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(table.read_bytes()).decode("utf-8").split("\n")
    return lines[1 : VOCABULARY - 512 - 2 + 1]


def byte_symbols() -> list[str]:
    """Returns the printable character that represents each byte in CLIP's vocabulary, in vocabulary order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(others)]


def write_text_folder(folder: Path, config: dict[str, Any]) -> Path:
    """Writes an encoder's configuration, from `text_config`, and its tokenizer. Returns the folder."""
    symbols = byte_symbols()
    merges = merge_rules()
    tokens = symbols + [symbol + "</w>" for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    files = {
        "config.json": json.dumps({"architectures": ["CLIPTextModel"], **config}),
        "vocab.json": json.dumps({token: index for index, token in enumerate(tokens)}),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "tokenizer_config.json": json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_LENGTH}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_if_changed(folder / name, text)
    return folder


def write_if_changed(file: Path, text: str) -> None:
    """Writes a file, unless it holds this text already: another process may be reading it."""
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
