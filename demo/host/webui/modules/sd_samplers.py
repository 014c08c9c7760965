"""Stands in for `modules.sd_samplers`: the samplers by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modules.sd_samplers_common import samples_to_image_grid as samples_to_image_grid
from modules.sd_samplers_kdiffusion import KDiffusionSampler
from modules.sd_samplers_timesteps import CompVisSampler


@dataclass(frozen=True)
class SamplerData:
    name: str
    function: str
    scheduler: str | None = None
    kind: Any = KDiffusionSampler
    options: dict[str, Any] = field(default_factory=dict)

    def total_steps(self, steps: int) -> int:
        """Returns how many times the denoiser is called."""
        return steps * 2 if self.options.get("second_order") else steps


all_samplers = [
    SamplerData("DPM++ 2M", "sample_dpmpp_2m", "karras"),
    SamplerData("Euler a", "sample_euler_ancestral"),
    SamplerData("Euler", "sample_euler"),
    SamplerData("LMS", "sample_lms"),
    SamplerData("Heun", "sample_heun", options={"second_order": True}),
    SamplerData("DDIM", "ddim", None, CompVisSampler),
]
all_samplers_map = {sampler.name: sampler for sampler in all_samplers}


def create_sampler(name: str, _model: Any) -> Any:
    """Returns a new sampler. Raises KeyError for an unknown name."""
    config = all_samplers_map[name]
    return config.kind(config)
