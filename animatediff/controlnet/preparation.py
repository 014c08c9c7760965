"""While units are prepared: what is told to the user, what ended it, and the mask of one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from modules import shared

from motion_module.errors import UserError
from motion_module.patching import patched

from ..errors import DETAILS, AnimateDiffError, RequestError
from ..interrupt import is_stopping
from .pictures import Unit

PYTHONS_OWN = (LookupError, TypeError, AttributeError)
"""Errors whose texts tell nothing to a user."""
OF_NO_UNIT = "its units"


class Preparation:
    """Whether ControlNet could prepare its units: the WebUI swallows what its hooks raise.

    `failure`: what ended it. `preparing`: what of it runs.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begins anew."""
        self.failure: AnimateDiffError | None = None
        self.preparing = OF_NO_UNIT

    @contextmanager
    def remembering_failure(self) -> Iterator[None]:
        """While open, an exception becomes the failure, and goes on to the WebUI, which logs it."""
        try:
            yield
        except UserError as error:
            self.failure = AnimateDiffError(str(error))
            raise
        except Exception as error:
            told = DETAILS if isinstance(error, PYTHONS_OWN) else str(error).rstrip(".") or DETAILS
            self.failure = AnimateDiffError(
                f"ControlNet could not prepare {self.preparing}: {told}. Check pictures, preprocessors and models."
            )
            raise
        finally:
            shared.state.textinfo = None

    def require_success(self) -> None:
        """Raises what ended the preparation."""
        if self.failure is not None:
            raise self.failure

    def tell(self, planned: Unit, position: int, count: int) -> None:
        """Shows which frame is next. Raises RequestError where the user has interrupted."""
        self.preparing = f"unit {planned.number}, frame {position + 1}"
        shared.state.textinfo = f"ControlNet: frame {position + 1} of {count}"
        if is_stopping():
            raise RequestError(
                f"ControlNet unit {planned.number} was interrupted at frame {position + 1} of {count}, so there is no video. "
                "Generate again."
            )


@contextmanager
def with_mask(p: Any, mask: Any, prepare_mask: Callable[[Any, Any], Any]) -> Iterator[None]:
    """While open, img2img's mask is that of one frame, but pictures are cropped to what all masks cover.

    `prepare_mask`: ControlNet's function.
    """
    from modules import masking  # here, since the stand-in WebUI has none

    find = masking.get_crop_region
    covered = np.asarray(prepare_mask(p.image_mask, p))
    with (
        patched(masking, "get_crop_region", lambda _, *padding: find(covered, *padding)),
        patched(p, "image_mask", mask),
    ):
        yield
