"""The state of a training on disk, from which it is resumed as if it had never stopped. The file contains no code."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoint import TRAINING
from .config import MAY_CHANGE, Config, ConfigError
from .folder import STATE
from .latent_cache import replacing


class NotSaved(RuntimeError):
    """A state could not be written. The text is for the user."""


@dataclass(frozen=True)
class Identity:
    """What has to be the same for a training to be resumed."""

    config: dict[str, Any]
    parts: dict[str, str]
    """Hashes of what the training is based on, by name: the base, the data, …"""

    @classmethod
    def of(cls, config: Config, parts: dict[str, str], devices: int) -> Identity:
        """Returns the identity of a training on a number of devices."""
        described = json.loads(json.dumps(config.described()))
        kept = {name: value for name, value in described.items() if name not in MAY_CHANGE}
        return cls({**kept, "batch on all devices": config.batch * devices}, parts)

    @property
    def digest(self) -> str:
        """A hash that identifies the training in the headers of its files."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def require_same(self, other: Identity, folder: Path) -> None:
        """Raises ConfigError if `other`, the identity of a state, is that of another training."""
        changed = [
            f"{name} was {old} and is now {self.config.get(name)}"
            for name, old in other.config.items()  # a later version may have more options
            if old != self.config.get(name)
        ]
        parts = {**other.parts, **self.parts}
        changed += [f"the {part} is a different one" for part in parts if other.parts.get(part) != self.parts.get(part)]
        if changed:
            raise _of_another(folder, "; ".join(changed))


def _of_another(folder: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{folder} contains the state of another training: {why}. "
        "Restore the previous options and files, choose another output, or delete this folder and its output to start again."
    )


def save_state(
    folder: Path,
    step: int,
    *,
    identity: Identity,
    learning: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
) -> None:
    """Replaces the previous state, which stays if the disk is full. Raises NotSaved."""
    tensors = {f"weights.{name}": tensor for name, tensor in learning.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    facts = {"step": step, "config": identity.config, "parts": identity.parts, "scaler": scaler.state_dict() if scaler else {}}
    write(folder / STATE, tensors, {"facts": json.dumps(facts)})


def write(file: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Writes a safetensors file completely or not at all. Raises NotSaved."""
    try:
        with replacing(file) as part:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, header)
    except (OSError, SafetensorError) as error:
        kept = f" The previous file is kept: {file}." if file.exists() else ""
        raise NotSaved(
            f"{file.name} could not be written to {file.parent}: {getattr(error, 'strerror', None) or error}. Check that the "
            f"disk has free space.{kept}"
        ) from error


def load_state(
    folder: Path,
    *,
    identity: Identity,
    learning: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
) -> int:
    """Loads what `save_state` wrote, and returns its step; 0 if there is no state. Raises ConfigError."""
    if not (folder / STATE).exists():
        return 0
    facts = _facts(folder)
    identity.require_same(_identity(facts), folder)
    with safe_open(folder / STATE, framework="pt") as file:
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118  (no view of a file to be replaced)
    try:
        learning.load_state_dict(_below(tensors, "weights."))
        averaged.load_state_dict(_below(tensors, "averaged."))
    except RuntimeError as error:  # its motion module has other layers
        raise _of_another(folder, "what it trains has other weights") from error
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        values.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    if scaler and facts["scaler"]:  # there is none if the precision was another one
        scaler.load_state_dict(facts["scaler"])
    return int(facts["step"])


def belongs(output: Path, folder: Path) -> bool:
    """Returns whether a file was written by the training whose state is in a folder. Raises ConfigError."""
    if not (folder / STATE).exists():
        return False
    digest = _identity(_facts(folder)).digest
    with suppress(OSError, SafetensorError, KeyError, TypeError, ValueError), safe_open(output, framework="pt") as file:
        return bool(json.loads(file.metadata()[TRAINING])["training"] == digest)
    return False


def _facts(folder: Path) -> dict[str, Any]:
    """Reads the header of the state in a folder. Raises ConfigError."""
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            return facts
    except (SafetensorError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / STATE} is damaged: {error}. Delete it and the output to start again.") from error


def _identity(facts: dict[str, Any]) -> Identity:
    return Identity(facts["config"], facts["parts"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
