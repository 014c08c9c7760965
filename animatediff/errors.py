"""How a generation is refused: one error for what a request asks for, one that carries its text through the WebUI."""

from __future__ import annotations

import logging
import reprlib
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch
from fastapi import HTTPException

import motion_module
from motion_module.errors import UserError

log = logging.getLogger("AnimateDiff")
OURS = tuple(str(Path(file).parent) for file in (__file__, motion_module.__file__ or ""))
LIBRARIES = ("site-packages", "dist-packages", sysconfig.get_path("stdlib"), "<")
"""Parts of the file names of Python's library and of installed packages."""
DETAILS = "the console has the details"


class RequestError(UserError):
    """A request cannot be met. The text tells the user what, with which value, and what to do about it."""


class AnimateDiffError(HTTPException):
    """Ends a generation with a sentence for the user.

    The API answers with its status and the sentence in `detail`. `str` gives the sentence too: the page and the log show that.
    """

    def __init__(self, text: str, status_code: int = 422) -> None:
        super().__init__(status_code=status_code, detail=text)

    def __str__(self) -> str:
        return self.detail


def shown(value: object) -> str:
    """Returns a given value as an error shows it: short, whatever was given, and in characters that any answer can hold."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to write numbers of more than 4,300 digits
        return "a number of thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlist = _SHORT.maxtuple = 10


@contextmanager
def reported_to_user(doing: str) -> Iterator[None]:
    """Turns errors of ours into an AnimateDiffError, which reaches the page, the log and the API with its text.

    A UserError has that text. For others it says that AnimateDiff failed while `doing` something, and the log has the cause.
    What the WebUI or another extension raises passes unchanged: users know those errors. So does a lack of GPU memory.
    """
    try:
        yield
    except UserError as error:
        raise AnimateDiffError(str(error)) from error
    except (HTTPException, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if not _is_ours(error.__traceback__):
            raise
        raise AnimateDiffError(failure(error, f"AnimateDiff failed while {doing}"), 500) from error


def failure(error: Exception, what: str) -> str:
    """Logs an error that nobody expected, and returns a sentence about it for the user. `what`: what failed, as a clause."""
    log.error("%s:\n%s", what, "".join(traceback.format_exception(error)))
    return f"{what}; {DETAILS}. Try again, or report them."


def reason(error: Exception) -> str:
    """Returns why something failed, in words for the user: those of the system or of an error of ours. Others are logged.

    A sentence continues after it: it has no full stop.
    """
    if isinstance(error, OSError):
        file = error.filename and Path(str(error.filename)).name  # without its folder, which is the server's business
        return ": ".join(str(part).rstrip(".") for part in (error.strerror or error, file) if part)
    if type(error).__module__.partition(".")[0] in (__package__, motion_module.__name__):
        return str(error).rstrip(".")
    log.error("".join(traceback.format_exception(error)))
    return DETAILS


def _is_ours(trace: TracebackType | None) -> bool:
    """Whether code of ours raised an exception, or called the library that did."""
    for frame, _ in reversed(list(traceback.walk_tb(trace))):
        file = frame.f_code.co_filename
        if file.startswith(OURS):
            return True
        if not any(part in file for part in LIBRARIES):
            return False
    return False
