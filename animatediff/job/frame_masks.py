"""A mask for each frame in img2img's inpainting.

The WebUI prepares one mask for all rows of a batch: it blurs it, crops to it, fills what it covers, and encodes the image. Here
it does so once for what all masks cover together, which decides the crop, and then for each frame with its own image and mask.
The rows that come out are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from modules import shared
from PIL import Image

from motion_module.patching import patched

from ..errors import AnimateDiffError
from ..interrupt import is_stopping
from ..request import masks
from .init_frames import BY_ROW
from .resume_store import seeded

MADE_OF_MASKS = ("image_mask", "mask", "nmask", "mask_for_overlay", "overlay_images", "paste_to")
"""The attributes of `p` that masks give values to. A job with masks gives them back."""
OF_ONE_MASK = ("mask", "nmask")
"""The latent masks, `(4, height, width)` or in Neo `(1, 4, height, width)`: the WebUI has one for all rows."""
CROPS = ("get_crop_region", "get_crop_region_v2")
"""The WebUI's functions that find the region to crop to. Versions before 1.9 have only the first."""


class FrameMasks:
    """The masks of one job. `of_frames`: one for each frame, or one for all, which is then the WebUI's own."""

    def __init__(self, p: Any, of_frames: list[Image.Image]) -> None:
        self._p = p
        self._masks = of_frames
        self._for_overlay: list[Image.Image] = []

    def give(self) -> None:
        """Gives the WebUI what all masks cover together."""
        if self._masks:
            self._p.image_mask = masks.union(self._masks, inverted=bool(self._p.inpainting_mask_invert))

    @contextmanager
    def prepared(self, init: Callable[..., None]) -> Iterator[None]:
        """Around the WebUI's `init`. `init`: the same function without hooks, which runs for each frame after it."""
        p, images, corrections, frames = self._p, self._p.init_images, self._p.color_corrections, self._p.batch_size
        with _one_region():
            p.init_images, p.batch_size = images[:1], 1
            yield
            self.require_used()
            rows: dict[str, list[Any]] = {name: [] for name in (*BY_ROW, *OF_ONE_MASK)}
            self._for_overlay.clear()
            same_noise = len(images) == 1
            for index, image in enumerate(images * frames if same_noise else images):
                number = index + 1
                shared.state.textinfo = f"AnimateDiff: preparing frame {number} of {frames}"
                if is_stopping():
                    raise AnimateDiffError(
                        f"Preparing the masks was interrupted at frame {number} of {frames}, so there is no video. "
                        "Generate again."
                    )
                p.init_images, p.image_mask, p.color_corrections = [image], self._masks[index], corrections
                with seeded(p.all_seeds[0]) if same_noise else nullcontext():  # or the image would differ from frame to frame
                    init(*([of_rows[index]] for of_rows in (p.all_prompts, p.all_seeds, p.all_subseeds)))
                for name, found in rows.items():
                    found.append(getattr(p, name))
                self._for_overlay.append(p.mask_for_overlay)
        p.init_images, p.batch_size = images, frames
        self.give()
        for name, found in rows.items():
            setattr(p, name, _together(found))

    def require_used(self) -> None:
        """Raises AnimateDiffError where the WebUI's `init` has left the masks out."""
        if self._masks and self._p.mask is None:
            raise AnimateDiffError(
                "The WebUI has not used the masks (mask_path), since Mask blur leaves nothing of them. Lower it, or give "
                "larger masks."
            )

    def for_overlay(self, index: int) -> Image.Image | None:
        """Returns the mask with which the WebUI puts a frame onto its image; None where it has its own."""
        return self._for_overlay[index] if self._for_overlay else None


def _together(rows: list[Any]) -> Any:
    """Returns the values of all frames as the WebUI has them for a batch."""
    if isinstance(rows[0], torch.Tensor):
        return torch.cat([row.reshape(-1, *row.shape[-3:]) for row in rows])
    return None if rows[0] is None else [value for (value,) in rows]


@contextmanager
def _one_region() -> Iterator[None]:
    """While open, the WebUI crops to the region of the first mask that it asks about, so that a clip does not jump."""
    from modules import masking  # here, since the stand-in WebUI has none

    with ExitStack() as undo:
        for name in CROPS:
            if (find := getattr(masking, name, None)) is not None:
                undo.enter_context(patched(masking, name, _always_the_first(find)))
        yield


def _always_the_first(find: Callable[..., Any]) -> Callable[..., Any]:
    found: list[Any] = []

    def region(*arguments: Any, **named: Any) -> Any:
        if not found:
            found.append(find(*arguments, **named))
        return found[0]

    return region
