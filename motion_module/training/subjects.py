"""What can be trained, by the name that the option `train` has for it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .config import Config
from .trained_parts import Animated, DomainAdapterSubject, MotionLoraSubject, MotionModuleSubject
from .trained_sparse_ctrl import SparseCtrlSubject

SUBJECTS: dict[str, Callable[[nn.Module, Config], Animated]] = {
    "motion module": MotionModuleSubject,
    "motion lora": MotionLoraSubject,
    "domain adapter": DomainAdapterSubject,
    "sparsectrl": SparseCtrlSubject,
}
