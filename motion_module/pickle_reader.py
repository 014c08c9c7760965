"""Reads a pickle as data: what it names and calls is written down, never looked up or run.

`pickle.Unpickler` cannot be used for files of unknown origin, even if it resolves no name: 139 bytes with a large memo index
make it take 4 GB, and hashing a key of nested tuples takes exponential time. Here time and memory are linear in the length of
the pickle, and both are bounded. The opcodes are those of protocols 2 to 5 (Python's `pickletools` describes them).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any

MOST_BYTES = 1 << 25
"""The longest pickle. That of a checkpoint has about 150 bytes for each tensor."""
MOST_OPERATIONS = 600_000
"""A checkpoint has about 45 for each tensor."""
LONGEST_NAME = 200


class UnreadablePickle(Exception):
    """A pickle is damaged, or larger than those of weight files."""


class ForbiddenName(Exception):
    """A pickle has a name that is not allowed. The text is the name."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Call:
    """What a pickle would call, and with what. `state`: what it would then give to the object that the call returns."""

    target: Any
    arguments: Any
    state: Any = None


@dataclass(frozen=True, eq=False, repr=False)
class Reference:
    """What a pickle says about something outside of it, such as the storage of a tensor."""

    id: Any


@dataclass(frozen=True, eq=False, repr=False)
class Pickle:
    """What a pickle describes, what it refers to outside of it, and where it ends."""

    content: Any
    references: list[Any]
    end: int


def read_pickle(data: bytes, allowed: Container[Name], start: int = 0) -> Pickle:
    """Reads a pickle. Of dictionaries, only entries with texts as keys are kept; sets become lists.

    Raises UnreadablePickle, or ForbiddenName if it has a name that is not allowed.
    """
    reader = _Reader(data, allowed, start)
    return Pickle(reader.read(), reader.references, reader.position)


_ORDERED_DICT = Name("collections", "OrderedDict")
_CONSTANTS: dict[int, Callable[[], Any]] = {
    ord("N"): lambda: None,
    0x88: lambda: True,
    0x89: lambda: False,
    ord("]"): list,
    ord("}"): dict,
    ord(")"): tuple,
    0x8F: list,  # a set: an element may take exponential time to hash
}
_BYTE, _SHORT, _INT, _UNSIGNED, _LONG, _FLOAT = map(struct.Struct, ("<B", "<H", "<i", "<I", "<Q", ">d"))
_NUMBERS = {ord("J"): _INT, ord("K"): _BYTE, ord("M"): _SHORT, ord("G"): _FLOAT}
_text = methodcaller("decode", "utf-8", "replace")  # half a surrogate pair cannot be written into an answer
_integer = partial(int.from_bytes, byteorder="little", signed=True)
_SIZED: dict[int, tuple[struct.Struct, Callable[[bytes], Any]]] = {
    ord("X"): (_UNSIGNED, _text),
    ord("T"): (_UNSIGNED, _text),
    0x8C: (_BYTE, _text),
    ord("U"): (_BYTE, _text),
    0x8D: (_LONG, _text),
    ord("B"): (_UNSIGNED, bytes),
    ord("C"): (_BYTE, bytes),
    0x8E: (_LONG, bytes),
    0x96: (_LONG, bytes),
    0x8A: (_BYTE, _integer),
    0x8B: (_UNSIGNED, _integer),
}
_PUTS = {ord("q"): _BYTE, ord("r"): _UNSIGNED}
_GETS = {ord("h"): _BYTE, ord("j"): _UNSIGNED}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_IGNORED = {0x80: _BYTE, 0x95: _LONG}
_STOP = ord(".")


class _Reader:
    def __init__(self, data: bytes, allowed: Container[Name], position: int) -> None:
        self._data = data
        self._allowed = allowed
        self.position = position
        self.references: list[Any] = []
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        try:
            for _ in range(MOST_OPERATIONS):
                code = self._data[self.position]
                self.position += 1
                if code == _STOP:
                    return self._stack.pop()
                self._do(code)
        except (IndexError, KeyError, ValueError, struct.error) as error:
            raise UnreadablePickle(f"its pickle breaks at byte {self.position}") from error
        raise UnreadablePickle(f"its pickle has more than {MOST_OPERATIONS:,} operations")

    def _do(self, code: int) -> None:
        stack = self._stack
        if code in _GETS:
            stack.append(self._memo[self._number(_GETS[code])])
        elif code in _PUTS:
            self._memo[self._number(_PUTS[code])] = stack[-1]
        elif code in _NUMBERS:
            stack.append(self._number(_NUMBERS[code]))
        elif code in _SIZED:
            layout, read = _SIZED[code]
            stack.append(read(self._bytes(layout)))
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code]())
        elif code in _TUPLES:
            stack[-_TUPLES[code] :] = [tuple(stack[-_TUPLES[code] :])]
        elif code in _IGNORED:
            self._number(_IGNORED[code])
        elif code in _OTHERS:
            _OTHERS[code](self)
        else:
            raise UnreadablePickle(f"its pickle has the unknown operation {code:#04x}")

    def _number(self, layout: struct.Struct) -> Any:
        (number,) = layout.unpack_from(self._data, self.position)
        self.position += layout.size
        return number

    def _bytes(self, layout: struct.Struct) -> bytes:
        length = self._number(layout)
        if length > len(self._data) - self.position:
            raise UnreadablePickle("its pickle ends within a text")
        self.position += length
        return self._data[self.position - length : self.position]

    def _line(self) -> str:
        end = self._data.index(b"\n", self.position, self.position + LONGEST_NAME)
        line = self._data[self.position : end].decode()
        self.position = end + 1
        return line

    def _marked(self) -> list[Any]:
        mark = self._marks.pop()
        marked = self._stack[mark:]
        del self._stack[mark:]
        return marked

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _global(self) -> None:
        self._name(self._line(), self._line())

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if not all(isinstance(part, str) and len(part) < LONGEST_NAME for part in (module, name)):
            raise UnreadablePickle("its pickle has an impossible name")
        named = Name(module, name)
        if named not in self._allowed:
            raise ForbiddenName(str(named))
        self._stack.append(named)

    def _call(self) -> None:
        arguments, target = self._stack.pop(), self._stack.pop()
        self._stack.append({} if (target, arguments) == (_ORDERED_DICT, ()) else Call(target, arguments))

    def _call_with_names(self) -> None:
        self._stack.pop()
        self._call()

    def _build(self) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Call):
            self._stack[-1].state = state

    def _refer(self) -> None:
        self.references.append(self._stack.pop())
        self._stack.append(Reference(self.references[-1]))

    def _append(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                # Weights are named by texts. Other keys may collide, or take exponential time to hash.
                if isinstance(key, str):
                    self._stack[-1][key] = value

    def _set_one(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _dictionary(self) -> None:
        items = self._marked()
        self._stack.append({})
        self._set(items)


_OTHERS: dict[int, Callable[[_Reader], Any]] = {
    ord("("): _Reader._mark,
    ord("0"): lambda reader: reader._stack.pop(),
    ord("1"): _Reader._marked,
    ord("2"): lambda reader: reader._stack.append(reader._stack[-1]),
    ord("t"): lambda reader: reader._stack.append(tuple(reader._marked())),
    ord("l"): lambda reader: reader._stack.append(reader._marked()),
    ord("d"): _Reader._dictionary,
    0x91: lambda reader: reader._stack.append(reader._marked()),  # a frozen set
    ord("a"): lambda reader: reader._append([reader._stack.pop()]),
    ord("e"): lambda reader: reader._append(reader._marked()),
    0x90: lambda reader: reader._append(reader._marked()),
    ord("s"): _Reader._set_one,
    ord("u"): lambda reader: reader._set(reader._marked()),
    0x94: _Reader._memoize,
    ord("c"): _Reader._global,
    0x93: _Reader._stack_global,
    ord("R"): _Reader._call,
    0x81: _Reader._call,
    0x92: _Reader._call_with_names,
    ord("b"): _Reader._build,
    ord("Q"): _Reader._refer,
}
