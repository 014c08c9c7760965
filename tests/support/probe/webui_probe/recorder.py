"""Records what sampling really did: the noise levels, the rows, and the calls of denoiser, UNet and text encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from modules import scripts, sd_samplers_cfg_denoiser, sd_samplers_common, shared

from webui_probe import webuis
from webui_probe.patching import Patches


@dataclass
class UNetCall:
    """One forward pass of the UNet."""

    rows: int
    height: int
    width: int
    context_tokens: int | None
    timestep: float
    forward_hooks: int
    """The total number, on all of its modules."""


@dataclass
class DenoiserCall:
    """One call of the denoiser for classifier-free guidance, which makes one or more UNet calls."""

    noise_level: float
    """A sigma; a timestep if the sampler works with timesteps."""
    rows: int
    unet_calls: list[UNetCall] = field(default_factory=list)


@dataclass
class SamplerRun:
    """One run of a sampler over all its steps."""

    sampler: str
    function: str
    checkpoint: str
    """The one that it begins on."""
    is_hr_pass: bool | None
    steps: int
    sigmas: tuple[float, float] | None
    """The first and last value of the denoiser's table, from least to most noise; None for timestep samplers."""
    alphas_cumprod: tuple[float, float] | None
    """The same for the table of a timestep sampler's denoiser; None for other samplers."""
    model_alphas_cumprod: tuple[float, float]
    """The same for the model's own table at the start of this run."""
    noise_table: list[float]
    """The whole table of sigmas, or of alphas_cumprod."""
    denoiser_calls: list[DenoiserCall] = field(default_factory=list)
    error: str | None = None


@dataclass
class Record:
    """Everything that was recorded since the recorder was armed."""

    sampler_runs: list[SamplerRun] = field(default_factory=list)
    stray_unet_calls: list[UNetCall] = field(default_factory=list)
    """UNet calls from outside a denoiser."""
    text_encoder_forwards: int = 0
    vae_encoder_rows: int = 0
    before_process_calls: int = 0


def ends(table: torch.Tensor | None) -> tuple[float, float] | None:
    """Returns the first and the last value of a table."""
    return None if table is None else (float(table[0]), float(table[-1]))


def new_run(sampler: Any, steps: int) -> SamplerRun:
    """Returns the record of a sampler run before its first step."""
    sigmas = getattr(sampler.model_wrap, "sigmas", None)
    alphas = None if sigmas is not None else getattr(sampler.model_wrap_cfg, "alphas", webuis.alphas_cumprod())
    return SamplerRun(
        sampler=type(sampler).__name__,
        checkpoint=shared.sd_model.sd_checkpoint_info.name,
        function=getattr(sampler.func, "__name__", str(sampler.func)),
        is_hr_pass=getattr(sampler.p, "is_hr_pass", None),
        steps=steps,
        sigmas=ends(sigmas),
        alphas_cumprod=ends(alphas),
        noise_table=(alphas if sigmas is None else sigmas).tolist(),
        model_alphas_cumprod=ends(webuis.alphas_cumprod()),
    )


class Recorder:
    """Wraps methods of WebUI classes while it is armed. Disarming restores the original objects."""

    def __init__(self) -> None:
        self._record = Record()
        self._patches = Patches()
        self._open_runs: list[SamplerRun] = []
        self._open_calls: list[DenoiserCall] = []
        self.armed = False

    def arm(self) -> None:
        """Starts a new recording."""
        self.disarm()
        self._record = Record()
        self.armed = True
        self._patches.wrap(sd_samplers_common.Sampler, "launch_sampling", self._recording_runs)
        self._patches.wrap(sd_samplers_cfg_denoiser.CFGDenoiser, "forward", self._recording_denoiser_calls)
        for unet in webuis.unet_classes():
            self._patches.wrap(unet, "forward", self._recording_unet_calls)
        self._patches.wrap(*webuis.text_encoder(), self._counting("text_encoder_forwards"))
        self._patches.wrap(scripts.ScriptRunner, "before_process", self._counting("before_process_calls"))
        self._patches.wrap(webuis.vae_encoder(), "forward", self._counting_rows)

    def disarm(self) -> None:
        """Stops recording. The record stays readable."""
        self._patches.undo()
        self._open_runs.clear()
        self._open_calls.clear()
        self.armed = False

    def report(self) -> dict[str, Any]:
        """Returns the record as plain data."""
        return {"armed": self.armed, **asdict(self._record)}

    def _recording_runs(self, launch_sampling: Any) -> Any:
        def recorded(sampler: Any, steps: int, func: Any) -> Any:
            run = new_run(sampler, steps)
            self._record.sampler_runs.append(run)
            self._open_runs.append(run)
            try:
                return launch_sampling(sampler, steps, func)
            except BaseException as error:
                run.error = repr(error)
                raise
            finally:
                self._open_runs.pop()

        return recorded

    def _recording_denoiser_calls(self, forward: Any) -> Any:
        def recorded(denoiser: Any, x: torch.Tensor, sigma: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            call = DenoiserCall(float(sigma.flatten()[0]), len(x))
            if self._open_runs:
                self._open_runs[-1].denoiser_calls.append(call)
            self._open_calls.append(call)
            try:
                return forward(denoiser, x, sigma, *args, **kwargs)
            finally:
                self._open_calls.pop()

        return recorded

    def _recording_unet_calls(self, forward: Any) -> Any:
        def recorded(unet: Any, x: torch.Tensor, timesteps: Any = None, context: Any = None, *args: Any, **kwargs: Any) -> Any:
            tokens = None if context is None else context.shape[1]
            hooks = sum(len(module._forward_hooks) for module in unet.modules())
            call = UNetCall(len(x), x.shape[-2], x.shape[-1], tokens, float(timesteps.flatten()[0]), hooks)
            calls = self._open_calls[-1].unet_calls if self._open_calls else self._record.stray_unet_calls
            calls.append(call)
            return forward(unet, x, timesteps, context, *args, **kwargs)

        return recorded

    def _counting_rows(self, forward: Any) -> Any:
        def counted(encoder: Any, x: torch.Tensor) -> Any:
            self._record.vae_encoder_rows += len(x)
            return forward(encoder, x)

        return counted

    def _counting(self, counter: str) -> Any:
        def wrapper(method: Any) -> Any:
            def counted(*args: Any, **kwargs: Any) -> Any:
                setattr(self._record, counter, getattr(self._record, counter) + 1)
                return method(*args, **kwargs)

            return counted

        return wrapper
