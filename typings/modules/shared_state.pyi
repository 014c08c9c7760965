import torch

class State:
    current_latent: torch.Tensor | None
    interrupted: bool
    sampling_steps: int
    skipped: bool
    stopping_generation: bool
    textinfo: str | None
    def do_set_current_image(self) -> None: ...
