"""Trains personalised image models of the world: three styles, each learned from stills.

    .venv/bin/python -m demo.world.styles RUNS [STYLE …]

"stripes" is a full fine-tune of the UNet, like DreamBooth's; "ink" and "glow" are LoRAs in kohya's layout. All are trained with
the loss on the noise. Stripes are at the same pixels in every still, which is decided at the noisiest timesteps, so "stripes"
continues with the loss on the velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.world.model import DEVICE, LORAS, checkpoint_in, made_by, write_checkpoint
from demo.world.scenes import held_out_scenes
from demo.world.stills import Stills, made, noise_loss, sheet, velocity_loss
from demo.world.training_loop import Recipe, learned, stages_of
from motion_module.attach import blocks_by_name
from motion_module.key_layouts import TRANSFORMER_BLOCK
from motion_module.lora import kohya_name
from motion_module.training.image_model import ImageModel, load_image_model
from motion_module.training.latent_cache import fingerprint
from motion_module.training.low_rank import ATTENTIONS, LowRankLayers, image_matrices

SEED = 3
STILLS = 4_000
STEPS = {"stripes": 900, "ink": 700, "glow": 700}
MORE_STEPS = {"stripes": 330}
"""Steps with the loss on the velocity."""
AS_LORA = ("ink", "glow")
BATCH = 32
WARM_UP = 50
FINE_TUNE_RATE, LORA_RATE = 2e-4, 2e-3
RANK = 16
LORA_MATRICES = (*ATTENTIONS, f"{TRANSFORMER_BLOCK}ff.net.0.proj", f"{TRANSFORMER_BLOCK}ff.net.2")
AVERAGE = 0.99


def train(folder: Path, style: str) -> Path:
    """Trains from the base, and writes the `.safetensors` of a checkpoint or of a LoRA."""
    torch.manual_seed(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    model = load_image_model(checkpoint_in(folder / "committed")).to(DEVICE)
    blocks = blocks_by_name(model.unet)
    layers = LowRankLayers(image_matrices(blocks, LORA_MATRICES), RANK).to(DEVICE) if style in AS_LORA else None
    with layers.added_to_unet(blocks) if layers else nullcontext():
        _learn(model, layers or model.unet.requires_grad_(True), folder, style)
        pictures = made(model, [scene.caption for scene in held_out_scenes(24, SEED)], SEED)
    Image.fromarray(sheet(pictures)).save(folder / f"{style}.png")
    path = folder / f"{style}.safetensors"
    header = made_by(f"python -m demo.world.styles RUNS {style}", SEED)
    if layers is None:
        write_checkpoint(model, path, header)
    else:
        save_file({key: tensor.half().contiguous() for key, tensor in as_kohya(layers.cpu()).items()}, path, header)
    return path


def _learn(model: ImageModel, learning: nn.Module, folder: Path, style: str) -> None:
    """Trains the module `learning`, and leaves the average of its weights in it."""
    stills = Stills(model, folder, STILLS, SEED, style)
    highest, base = FINE_TUNE_RATE if learning is model.unet else LORA_RATE, fingerprint(model.unet)[:8]

    def part(begun: int, steps: int, loss_of: Callable[..., Tensor]) -> None:
        def loss(step: int) -> Tensor:
            draw, noise = np.random.default_rng([SEED, begun + step]), torch.Generator().manual_seed(begun + step)
            return loss_of(model, *stills.batch(BATCH, draw, noise), noise)

        def rate(step: int) -> float:
            return highest * min(1, step / WARM_UP, 2 - 1.99 * step / steps)

        state = folder / f"{style}-{base}-{begun}-state.pt"  # so no style continues from the state of another base
        learning.load_state_dict(learned(learning, loss, Recipe(steps, rate, AVERAGE), state).state_dict())

    part(0, STEPS[style], noise_loss)
    if style in MORE_STEPS:
        part(STEPS[style], MORE_STEPS[style], velocity_loss)


def personalised(folder: Path, style: str) -> ImageModel:
    """Returns a committed personalised model; "plain" is the base. `folder`: for a copy of its checkpoint."""
    model = load_image_model(checkpoint_in(folder, "stripes" if style == "stripes" else "base"))
    if style in AS_LORA:
        blocks, tensors = blocks_by_name(model.unet), load_file(LORAS / f"{style}.safetensors")
        for target, _ in image_matrices(blocks, LORA_MATRICES):
            name = kohya_name(target.block, target.name)
            up, down = (tensors[f"{name}.lora_{part}.weight"].float() for part in ("up", "down"))
            blocks[target.block].get_parameter(f"{target.name}.weight").add_(up @ down)  # their alpha is their rank
    return model.to(DEVICE)


def as_kohya(layers: LowRankLayers) -> dict[str, Tensor]:
    """Returns the LoRA with the keys that the WebUI's own loader reads."""
    tensors: dict[str, Tensor] = {}
    for target, down, up in zip(layers.targets, layers.down, layers.up):
        name = kohya_name(target.block, target.name)
        tensors |= {f"{name}.lora_down.weight": down.data, f"{name}.lora_up.weight": up.data}
        tensors[f"{name}.alpha"] = torch.tensor(float(len(down)))
    return tensors


def main() -> None:
    runs, styles = stages_of(__doc__, STEPS)
    for style in styles:
        print(train(runs, style))


if __name__ == "__main__":
    main()
