"""Stands in for `modules.errors`: logs errors that do not end a generation."""

import sys
import traceback


def report(message: str, *, exc_info: bool = False) -> None:
    """Prints the message, and with `exc_info` the exception that is being handled."""
    print(f"*** {message}", file=sys.stderr)
    if exc_info:
        print(traceback.format_exc(), file=sys.stderr)
