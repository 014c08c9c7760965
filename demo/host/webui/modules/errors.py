"""Errors that a generation survives, for the log."""

import sys
import traceback


def report(message: str, *, exc_info: bool = False) -> None:
    """Prints the message, and the exception being handled where `exc_info` is set."""
    print(f"*** {message}", file=sys.stderr)
    if exc_info:
        print(traceback.format_exc(), file=sys.stderr)
