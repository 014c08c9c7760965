"""A UNet call that finds too little memory on the GPU is made again with less in memory at once."""

from __future__ import annotations

import pytest
import torch

from motion_module.context_windows import ContextWindows
from motion_module.layer_offload import OffloadOnDemand, can_be_repeated
from motion_module.row_layout import layout_of_call
from motion_module.training.image_model import load_image_model
from motion_module.vram import WindowBudget, is_lack_of_memory
from motion_module.windowed_unet import WindowedUNet
from support.small_training import write_base

ROWS = 8
FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"), True),
        (RuntimeError("Could not allocate tensor with 8 bytes. There is not enough GPU video memory available!"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (MemoryError("out of memory"), False),
    ],
    ids=str,
)
def test_errors_that_say_that_the_memory_is_full(error, expected):
    assert is_lack_of_memory(error) is expected


class Windows:
    """A model that has memory for some rows, in windows of four frames."""

    def __init__(self, fitting: int, error: Exception = FULL, repeatable: bool = True) -> None:
        self.tried: list[int] = []
        self.fitting, self.error = fitting, error
        self._budget = WindowBudget(torch.device("cpu"))
        self._budget.windows = lambda size: self._budget._fitting.get(size, 8)  # as if eight had been found to fit
        self._repeatable = repeatable

    def sampled(self, x: torch.Tensor) -> torch.Tensor:
        model = torch.nn.Identity()
        model.forward = self._forward
        cut = ContextWindows(len(x), 4, 0, uniform=False)
        layout_of = lambda rows: layout_of_call(rows, len(x))  # noqa: E731
        windowed = WindowedUNet(cut, lambda: 0, layout_of, self._budget, repeatable=lambda: self._repeatable)
        with windowed.applied_to(model):
            return model(x)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tried.append(len(x))
        if len(x) > self.fitting:
            raise self.error
        return x * 2


def test_fewer_windows_are_tried_until_they_fit_and_no_window_is_lost():
    model, x = Windows(fitting=8), torch.randn(32, 4, 1, 1)
    torch.testing.assert_close(model.sampled(x), x * 2)
    assert model.tried == [32, 16, 8, 8, 8, 8]
    model.tried.clear()
    model.sampled(x)
    assert model.tried == [8, 8, 8, 8], "what did not fit is not tried again"


@pytest.mark.parametrize(
    ("model", "tried"),
    [
        (Windows(fitting=3), [32, 16, 8, 4]),
        (Windows(fitting=8, error=RuntimeError("shapes")), [32]),
        (Windows(fitting=8, repeatable=False), [32]),
    ],
    ids=["not even one fits", "another error", "calls that cannot be repeated"],
)
def test_what_fewer_windows_do_not_help_passes(model, tried):
    with pytest.raises(RuntimeError):
        model.sampled(torch.randn(32, 4, 1, 1))
    assert model.tried == tried


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    unet = load_image_model(write_base(tmp_path_factory.mktemp("base") / "base.safetensors")).unet
    for part in unet.modules():
        vars(part).pop("forward", None)  # the trainer's own attention
    return unet


@pytest.fixture
def call(unet):
    x, context = torch.randn(ROWS, 4, 8, 8), torch.randn(ROWS, 77, 16)

    def run():
        with torch.no_grad():
            return unet(x, torch.arange(ROWS) * 90, context=context)

    return run


@pytest.fixture
def memory(unet):
    """How many rows a convolution has memory for. `tried`: those that it was given."""
    state = {"rows": ROWS, "tried": [], "error": FULL}

    def allocate(_module, inputs):
        state["tried"].append(len(inputs[0]))
        if len(inputs[0]) > state["rows"]:
            raise state["error"]

    handle = unet.middle_block[0].in_layers[2].register_forward_pre_hook(allocate)
    yield state
    handle.remove()


def on_demand(allowed=True):
    return OffloadOnDemand(2, torch.device("cpu"), lambda latents: allowed and latents.shape == (ROWS, 4, 8, 8))


def test_with_too_little_memory_frames_wait_in_ram_from_then_on(unet, call, memory):
    expected = call()
    memory.update(rows=2)
    memory["tried"].clear()
    offload = on_demand()
    with offload.applied_to(unet, unet):
        assert not offload.begun
        torch.testing.assert_close(call(), expected, atol=1e-5, rtol=0)
        assert offload.begun and memory["tried"] == [8, 2, 2, 2, 2]
        call()
        assert memory["tried"] == [8, *[2] * 8]
    assert not any("forward" in vars(part) for part in unet.modules())


def test_with_enough_memory_all_rows_stay_together(unet, call, memory):
    with on_demand().applied_to(unet, unet):
        call()
    assert memory["tried"] == [ROWS]


@pytest.mark.parametrize(
    ("allowed", "error"), [(False, FULL), (True, RuntimeError("shapes"))], ids=["not allowed", "another error"]
)
def test_what_waiting_in_ram_does_not_help_passes(unet, call, memory, allowed, error):
    memory.update(rows=2, error=error)
    with on_demand(allowed).applied_to(unet, unet), pytest.raises(RuntimeError) as caught:
        call()
    assert caught.value is error and memory["tried"] == [ROWS]


def test_a_call_in_which_another_extension_may_count_is_not_repeated(unet, call, memory):
    """Regional Prompter counts the calls of layers, so that a failed one would shift its regions."""
    memory.update(rows=2)
    block = unet.input_blocks[1][1].transformer_blocks[0]
    own = block._forward
    block._forward = lambda x, context=None: own(x, context=context)
    try:
        assert not can_be_repeated(unet)
        with on_demand().applied_to(unet, unet), pytest.raises(torch.cuda.OutOfMemoryError):
            call()
    finally:
        del block._forward
    assert memory["tried"] == [ROWS] and can_be_repeated(unet)
