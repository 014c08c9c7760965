"""Events that tests trigger in the middle of a job: faults, interruptions, nested jobs, unusual models."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from modules import processing, scripts, sd_unet, shared
from PIL import Image

from webui_probe import webuis
from webui_probe.patching import Patches

FAKE_UNET = "probe: fake UNet"


class Fault:
    """Raises RuntimeError from a UNet layer, through a hook that is removed after it has fired."""

    def __init__(self) -> None:
        self._handle: Any = None
        self.fired = 0

    def arm(self, call: int, layer: str, times: int) -> None:
        """Makes the layer's `call`-th run fail, counted from 1. Counting then restarts, until it has failed `times` times."""
        self.disarm()
        self.fired = 0
        runs = 0

        def fail(_module: torch.nn.Module, _inputs: Any) -> None:
            nonlocal runs
            runs += 1
            if runs < call:
                return
            runs = 0
            self.fired += 1
            if self.fired >= times:
                self.disarm()
            raise RuntimeError("probe fault")

        unet = webuis.unet()
        self._handle = unet.get_submodule(layer).register_forward_pre_hook(fail)

    def disarm(self) -> None:
        """Removes the hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class FullMemory:
    """Has a convolution of the UNet find too little memory for more than some rows, as on a GPU that is nearly full."""

    LAYER = "middle_block.0.in_layers.2"

    def __init__(self) -> None:
        self._handle: Any = None

    def arm(self, rows: int) -> None:
        self.disarm()

        def allocate(_module: torch.nn.Module, inputs: Any) -> None:
            if len(inputs[0]) > rows:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory (probe)")

        self._handle = webuis.unet().get_submodule(self.LAYER).register_forward_pre_hook(allocate)

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class ControlFault:
    """Raises RuntimeError from the `forward` of a control model that ControlNet has loaded, and notes where the model moves."""

    def __init__(self) -> None:
        self._model: Any = None
        self._handle: Any = None
        self.fired = 0
        self.moves: list[str] = []

    def arm(self, call: int) -> None:
        """Makes the `call`-th run of the model that was loaded last fail, counted from 1. 0 ends that and the notes."""
        if self._handle is not None:
            self._handle.remove()
            del self._model.to
            self._handle = None
        if not call:
            return
        self.fired, self.moves, runs = 0, [], 0

        def fail(*_: Any) -> None:
            nonlocal runs
            runs += 1
            if runs == call:
                self.fired += 1
                raise RuntimeError("probe fault in a control model")

        def to(device: Any, *others: Any) -> Any:
            self.moves.append(str(device))
            return type(self._model).to(self._model, device, *others)

        runner = scripts.scripts_txt2img
        controlnet = next(script for script in runner.alwayson_scripts if script.title() == "ControlNet")
        self._model = list(controlnet.model_cache.values())[-1].model
        self._model.to = to
        self._handle = self._model.control_model.register_forward_pre_hook(fail)


class SameNoise:
    """While it is armed, `torch.randn_like` gives each row the same values in every call: those who use it draw unseeded."""

    def __init__(self) -> None:
        self._patches = Patches()

    def arm(self, on: bool) -> None:
        self._patches.undo()
        if on:
            self._patches.wrap(torch, "randn_like", _same_in_each_row)


def _same_in_each_row(original: Any) -> Any:
    def randn_like(x: torch.Tensor, **_: Any) -> torch.Tensor:
        row = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0))
        return row.to(x).expand_as(x)

    return randn_like


class AddedWords:
    """Puts words before and after the prompts of all rows, as other extensions do."""

    def __init__(self) -> None:
        self.at: str | None = None
        self.before = self.after = ""

    def arm(self, at: str | None, before: str, after: str) -> None:
        """Adds the words in the hook `at`; None ends that."""
        self.at, self.before, self.after = at, before, after

    def hook_called(self, hook: str, prompts: list[str]) -> None:
        if hook == self.at:
            prompts[:] = [f"{self.before}{prompt}{self.after}" for prompt in prompts]


class Interrupter:
    """Presses Interrupt or Skip at a given step."""

    def __init__(self) -> None:
        self._remaining: int | None = None
        self._how = ""

    def arm(self, call: int | None, how: str) -> None:
        """Acts during the `call`-th denoiser call from now, counted from 1; None cancels that."""
        self._remaining, self._how = call, how

    def denoiser_called(self) -> None:
        """Must be called at every denoiser call."""
        if self._remaining is None:
            return
        self._remaining -= 1
        if self._remaining == 0:
            self._remaining = None
            {"interrupt": shared.state.interrupt, "skip": shared.state.skip}[self._how]()


class Gallery:
    """Hears of saved files as galleries do, notes what it hears, and then fails. With `stamps`, it changes pictures first."""

    def __init__(self) -> None:
        self._armed = self._stamps = False
        self._heard: list[dict[str, Any]] = []

    def arm(self, on: bool, stamps: bool) -> None:
        """Starts with an empty list, or stops listening; the list then stays readable."""
        self._armed, self._stamps = on, stamps
        if on:
            self._heard = []

    def before_image_saved(self, params: Any) -> None:
        """Gives a picture a text and makes it white, and wants another name for it."""
        if self._armed and self._stamps:
            params.image = Image.new("RGB", params.image.size, "white")
            params.pnginfo["stamp"] = "by the probe"
            params.filename = "/nowhere/stamped.png"

    def image_saved(self, params: Any) -> None:
        """Notes a file, and raises RuntimeError."""
        if self._armed:
            size, is_whole = params.image.size, Path(params.filename).stat().st_size > 0
            text = params.pnginfo["parameters"]
            self._heard.append(
                {"file": params.filename, "size": size, "text": text, "steps": params.p.steps, "is_whole": is_whole}
            )
            raise RuntimeError("probe: this gallery fails")

    def report(self) -> list[dict[str, Any]]:
        """Returns what was heard, in order."""
        return self._heard


@dataclass
class NestedResult:
    """The result of a nested job."""

    fired_at: str | None = None
    pictures: int | None = None
    first_picture_sha256: str | None = None
    error: str | None = None


def small_copy(p: Any) -> Any:
    """Returns a shallow copy, as other extensions make them, reset to a plain small picture."""
    inner = copy.copy(p)
    fresh = dict.fromkeys(("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"))
    fresh |= dict.fromkeys(("prompts", "negative_prompts", "seeds", "subseeds", "c", "uc", "rng", "sampler"))
    fresh |= {"width": 64, "height": 64, "steps": 2, "batch_size": 1, "n_iter": 1, "iteration": 0}
    fresh |= {"seed": 1, "subseed": -1, "enable_hr": False, "do_not_save_samples": True, "do_not_save_grid": True}
    fresh |= {"prompt": "nested", "negative_prompt": "", "override_settings": {}, "extra_generation_params": {}}
    vars(inner).update(fresh)
    return inner


class OtherFrames:
    """Puts given pictures into the place of the frames of every clip, as an extension that retouches frames may."""

    def __init__(self) -> None:
        self._pictures: list[str] = []

    def arm(self, pictures: list[str]) -> None:
        """`pictures`: one for each frame, in base64; none to leave frames alone."""
        self._pictures = pictures

    def hook_called(self, p: Any, holder: Any) -> None:
        """Must be called for each picture. `holder`: its attribute `image` is the picture."""
        if self._pictures:
            holder.image = Image.open(io.BytesIO(base64.b64decode(self._pictures[p.batch_index]))).convert("RGB")


class Nested:
    """Starts a second job from within a hook of the next one, as ADetailer does."""

    def __init__(self) -> None:
        self._at: str | None = None
        self._mode = ""
        self.result = NestedResult()

    def arm(self, at: str | None, mode: str) -> None:
        """Fires once, at the next hook of that name; None cancels that."""
        self._at, self._mode, self.result = at, mode, NestedResult()

    def hook_called(self, hook: str, p: Any) -> None:
        """Must be called at every hook where a nested job may start."""
        if hook != self._at:
            return
        self._at = None  # before the nested job calls its own hooks
        self.result.fired_at = hook
        try:
            images = self._run(p)
        except Exception:
            self.result.error = traceback.format_exc()
            return
        self.result.pictures = len(images)
        if images:
            self.result.first_picture_sha256 = hashlib.sha256(images[0].tobytes()).hexdigest()

    def report(self) -> dict[str, Any]:
        """Returns the result as plain data."""
        return asdict(self.result)

    def _run(self, p: Any) -> list[Any]:
        if self._mode == "process_images":
            return processing.process_images(small_copy(p)).images
        processed = processing.Processed(p, [])
        p.scripts.postprocess(copy.copy(p), processed)
        return processed.images


class FakeUNet(getattr(sd_unet, "SdUnet", torch.nn.Module)):  # type: ignore[misc]  # Neo has none
    """Replaces the UNet, as TensorRT engines do, and predicts no noise."""

    calls = 0

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Counts the call and returns zeros."""
        FakeUNet.calls += 1
        return torch.zeros_like(x)


class FakeUNetOption(getattr(sd_unet, "SdUnetOption", object)):  # type: ignore[misc]
    """Offers the fake UNet in the WebUI's list."""

    label = FAKE_UNET
    model_name = "none"

    def create_unet(self) -> FakeUNet:
        """Returns a new fake UNet."""
        return FakeUNet()


class Flags:
    """Makes the loaded model look like another kind."""

    def __init__(self) -> None:
        self._originals: dict[str, Any] = {}
        self._option = FakeUNetOption()

    def set_model_flag(self, name: str, value: bool | None) -> None:
        """Sets an attribute of the loaded model; None restores its own value."""
        model = shared.sd_model
        if value is not None:
            self._originals.setdefault(name, getattr(model, name))
            setattr(model, name, value)
        elif name in self._originals:
            setattr(model, name, self._originals.pop(name))

    def set_custom_unet(self, on: bool | None) -> None:
        """Chooses the fake UNet for later jobs; None chooses the model's own."""
        FakeUNet.calls = 0
        if on:
            sd_unet.unet_options[:] = [self._option]
            shared.opts.data["sd_unet"] = FAKE_UNET
        else:
            sd_unet.unet_options.clear()
            shared.opts.data["sd_unet"] = "None"
            sd_unet.apply_unet()

    def report(self) -> dict[str, Any]:
        """Returns the current flags."""
        current = sd_unet.current_unet_option
        flags = {name: getattr(shared.sd_model, name, False) for name in ("is_sd1", "is_sd2", "is_sdxl")}
        return {**flags, "custom_unet": current and current.label, "custom_unet_calls": FakeUNet.calls}
