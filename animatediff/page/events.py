"""What users see of errors in the functions that events of the page call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from motion_module.errors import UserError

from ..errors import failure


def in_sentences(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of an event. Its errors are sentences on the page; the log has the cause of unexpected ones."""

    @functools.wraps(handler)  # gradio reads which parameters it has, and their types
    def handled(*values):  # type: ignore[no-untyped-def]  # so that a partial function, which has no types, gets none
        try:
            return handler(*values)
        except gr.Error:
            raise
        except UserError as error:
            raise gr.Error(str(error)) from error
        except Exception as error:
            raise gr.Error(failure(error, "AnimateDiff could not do this")) from error

    return handled
