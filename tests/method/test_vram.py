"""How many windows fit into the memory of a device."""

from __future__ import annotations

import pytest
import torch

from motion_module.context_windows import ContextWindows
from motion_module.row_layout import layout_of_call
from motion_module.vram import WindowBudget
from motion_module.windowed_unet import WindowedUNet


@pytest.fixture
def card(monkeypatch):
    """A GPU with 1,000 bytes: 300 are in use, and 40 are reserved but free."""
    state = {"reserved": 340}
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: state.update(reserved=300))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: state["reserved"])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    # in torch 2.1.2 it needs an index, or a device with one
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 - state["reserved"], 1000) if device == 0 else 1 / 0)
    return state


def test_one_window_is_measured_and_three_quarters_of_the_free_memory_are_used(card):
    budget = WindowBudget(torch.device("cuda"))
    assert budget.windows("small") == 1
    with budget.measuring("small"):
        card["reserved"] += 100
    assert budget.windows("small") == 1 + 4, "600 are free, 450 of them are counted on"
    assert budget.windows("large") == 1, "of another size nothing is known"
    with budget.measuring("large"):
        card["reserved"] += 690
    assert budget.windows("large") == 1
    with budget.measuring("cached"):
        pass
    assert budget.windows("cached") == 1, "what took nothing new tells nothing"


def test_on_other_devices_there_is_one_window_per_call(card):
    budget = WindowBudget(torch.device("cpu"))
    with budget.measuring("small"):
        card["reserved"] += 1
    assert budget.windows("small") == 1


def test_calls_have_as_many_windows_as_fit(card):
    """The first call has one window, the next ones have as many as fit, and the last one has the rest."""
    calls = []

    class Model(torch.nn.Module):
        def forward(self, x):
            calls.append(len(x))
            card["reserved"] += 150 if len(calls) == 1 else 0
            return x

    model, windows, budget = Model(), ContextWindows(34, 4, 1, uniform=False), WindowBudget(torch.device("cuda"))
    with WindowedUNet(windows, lambda: 0, lambda rows: layout_of_call(rows, 34), budget).applied_to(model):
        for _ in range(2):
            torch.testing.assert_close(model(torch.ones(34, 4, 1, 1)), torch.ones(34, 4, 1, 1))
    assert len(windows.at(0).frames) == 11
    assert calls == [4, 12, 12, 12, 4, 12, 12, 12, 8]
