from typing import Any

import torch

class State:
    current_latent: torch.Tensor | None
    interrupted: bool
    job_count: int
    sampling_steps: int
    skipped: bool
    stopping_generation: bool
    textinfo: str | None
    def assign_current_image(self, image: Any) -> None: ...
    def do_set_current_image(self) -> None: ...
