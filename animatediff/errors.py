"""How a generation is refused: one error for what a request asks for, one that carries its text through the WebUI."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

from motion_module.errors import UserError


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
def reported_to_user() -> Iterator[None]:
    """Turns every UserError into an AnimateDiffError, which reaches the page, the log and the API with its text."""
    try:
        yield
    except UserError as error:
        raise AnimateDiffError(str(error)) from error
