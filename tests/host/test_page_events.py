"""Errors on the page are sentences."""

import ast
import functools
import inspect
import logging
import typing
from pathlib import Path

import gradio as gr
import pytest

import animatediff.page
from animatediff.errors import RequestError
from animatediff.page.events import in_sentences

EVENTS = {"click", "change", "upload", "select", "load", "submit", "input", "then", "event"}


def failing(error):
    def handler(value: int, request: gr.Request):
        raise error

    return in_sentences(handler)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            TypeError("no such thing"),
            "AnimateDiff could not do this; the console has the details. Try again, or report them.",
        ),
        (RequestError("Choose another one."), "Choose another one."),
        (gr.Error("Enter a name first."), "Enter a name first."),
    ],
)
def test_what_a_handler_raises_becomes_a_sentence(error, text, caplog):
    with caplog.at_level(logging.ERROR, "AnimateDiff"), pytest.raises(gr.Error) as shown:
        failing(error)(1, None)
    assert shown.value.message == text
    assert ("TypeError: no such thing" in caplog.text) == isinstance(error, TypeError)


def test_gradio_still_sees_the_parameters_of_a_handler():
    assert [str(parameter) for parameter in inspect.signature(failing(None)).parameters] == ["value", "request"]


def test_gradio_reads_the_types_of_a_handler_also_of_a_partial_one():
    assert typing.get_type_hints(failing(None)) == {"value": int, "request": gr.Request}
    assert typing.get_type_hints(in_sentences(functools.partial(pow, 2))) == {}


def test_every_handler_of_the_page_is_guarded():
    found = 0
    for file in Path(animatediff.page.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or not call.args or len(call.args) < 3:
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in EVENTS:
                handler = ast.unparse(call.args[0]).replace(" ", "")
                assert handler in ("None", "lambda:0") or handler.startswith("in_sentences("), f"{file.name}: {handler}"
                found += 1
    assert found >= 18
