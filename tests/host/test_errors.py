"""Which errors become a sentence of ours, and which pass unchanged."""

import ast
import logging
from pathlib import Path

import pytest
import torch
from fastapi import HTTPException

from animatediff import errors
from animatediff.errors import AnimateDiffError, RequestError, reason, reported_to_user
from motion_module.row_layout import RowLayout, RowLayoutError


def ours(error):
    """Returns a function that raises an error as code of the extension does."""

    def fail():
        raise error

    fail.__code__ = fail.__code__.replace(co_filename=errors.__file__)
    return fail


def theirs(error):
    def fail():
        raise error

    return fail


def through_ours(fail):
    """Returns a function of the extension that calls another one, as a wrapped `forward` does."""
    call = lambda: fail()  # noqa: E731
    call.__code__ = call.__code__.replace(co_filename=errors.__file__)
    return call


def raised_by(fail):
    with pytest.raises(BaseException) as raised, reported_to_user("trying"):
        fail()
    return raised.value


def test_an_unexpected_error_of_ours_is_a_sentence_and_its_cause_is_in_the_log(caplog):
    with caplog.at_level(logging.ERROR, "AnimateDiff"):
        error = raised_by(ours(KeyError("weights")))
    assert (error.status_code, str(error)) == (
        500,
        "AnimateDiff failed while trying; the console has the details. Try again, or report them.",
    )
    assert "KeyError: 'weights'" in caplog.text and "Traceback" in caplog.text


def test_an_error_in_a_library_belongs_to_who_calls_it():
    multiply = lambda: torch.ones(2, 3) @ torch.ones(2, 3)  # noqa: E731
    assert isinstance(raised_by(through_ours(multiply)), RuntimeError), "called by another one's code, within ours"
    multiply.__code__ = multiply.__code__.replace(co_filename=errors.__file__)
    assert isinstance(raised_by(multiply), AnimateDiffError)


@pytest.mark.parametrize(
    "error",
    [TypeError("theirs"), ValueError("theirs"), HTTPException(418, "theirs"), KeyboardInterrupt()],
    ids=repr,
)
def test_errors_of_others_pass_unchanged_through_ours(error):
    assert raised_by(through_ours(theirs(error))) is error


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()], ids=repr)
def test_a_lack_of_memory_and_a_key_press_pass_unchanged(error):
    assert raised_by(ours(error)) is error


def test_an_error_for_the_user_keeps_its_text():
    error = raised_by(lambda: RowLayout(4, 6))
    assert error.status_code == 422 and str(error).startswith("The UNet was called with 6 rows")
    assert isinstance(error.__cause__, RowLayoutError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device", "/x/y.gif"), "No space left on device: y.gif"),
        (OSError("ffmpeg failed: no such preset"), "ffmpeg failed: no such preset"),
        (RequestError("There is no model."), "There is no model"),
        (TypeError("'Scaler' object is not reversible"), "the console has the details"),
    ],
    ids=repr,
)
def test_a_reason_is_in_words(error, text, caplog):
    with caplog.at_level(logging.ERROR, "AnimateDiff"):
        assert reason(error) == text
    assert ("TypeError: 'Scaler'" in caplog.text) == isinstance(error, TypeError)


def raw_errors(source):
    """Yields the line of each text into which an error of the system is put as it is, with its number and class."""
    for handler in ast.walk(ast.parse(source)):
        if isinstance(handler, ast.ExceptHandler) and handler.name and "OSError" in ast.unparse(handler.type):
            for part in ast.walk(handler):
                if isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == handler.name:
                    yield part.lineno


def test_no_text_for_users_has_an_error_of_the_system_as_it_is():
    seen = "try: pass\nexcept (OSError, KeyError) as error: {}(f'{{{}}}')"
    assert list(raw_errors(seen.format("say", "error"))) == [2] and not list(raw_errors(seen.format("say", "reason(error)")))
    folder = Path(errors.__file__).parent
    found = [(file.name, line) for file in folder.rglob("*.py") for line in raw_errors(file.read_text(encoding="utf-8"))]
    assert found == []
