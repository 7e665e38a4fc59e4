"""Plain data out of a pickle, without unpickling it.

A pickle is a program for a stack machine that may import and call anything. This reads its instructions with
`pickletools` and carries out those that build lists, tuples, dictionaries, texts, bytes, numbers and numpy arrays of
numbers. No name of the file is ever imported and nothing of it is ever called: the few names that numpy's arrays need
stand for functions of this module, every other one is refused (https://docs.python.org/3/library/pickle.html).
"""

from __future__ import annotations

import math
import os
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from sam_common.errors import UserError
from sam_common.io.files import read_bytes
from sam_common.text import shown

_MARK = object()
_NUMBERS = {
    f"{kind}{size}" for kind, sizes in {"b": "1", "i": "1248", "u": "1248", "f": "248"}.items() for size in sizes
}


class _Refused(Exception):
    """Why a pickle is not plain."""


class _Name:
    """A name in place of what it would import: a key of `_CALLS`, or numpy's array type."""

    def __init__(self, name: str) -> None:
        if name not in _CALLS and name != _ARRAY_TYPE:
            raise _Refused(f"the name {name.replace(' ', '.')}, which is not imported")
        self.name = name


class _Dtype:
    """A numpy dtype of numbers; its byte order is told afterwards."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or code not in _NUMBERS:
            raise _Refused(f"a numpy array of {shown(code)}; arrays of numbers can be read")
        self.dtype = np.dtype(code)

    def build(self, state: tuple) -> None:
        if len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("a numpy dtype of an unknown form")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A numpy array; its contents are told afterwards."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray | None = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        self.values = _array(content, dtype, shape, "F" if is_fortran else "C")


def _array(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray) or order not in ("C", "F"):
        raise _Refused("a numpy array of an unknown form")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise _Refused(f"a numpy array of the shape {shown(shape)}")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise _Refused(f"a numpy array of the shape {shape!r} with {len(content)} bytes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, content: bytes) -> int | float | bool:
    return _array(content, dtype, (), "C").item()


def _latin1(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes."""
    if encoding != "latin1":
        raise _Refused(f"bytes in the encoding {shown(encoding)}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocols before 3 write bytes where there are none."""
    return b""


_CALLS: dict[str, Callable[..., Any]] = {
    "numpy dtype": _Dtype,
    "_codecs encode": _latin1,
    "__builtin__ bytes": _no_bytes,
    **{f"numpy.{core}.multiarray _reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _array for core in ("core", "_core")},
}
_ARRAY_TYPE = "numpy ndarray"

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_IGNORED = frozenset(("PROTO", "FRAME", "STOP"))


def read_plain_pickle(path: str | os.PathLike) -> Any:
    """The content of a pickled file: lists, tuples, dictionaries, texts, bytes, numbers, None, numpy arrays of numbers.

    Raises:
        UserError: the file cannot be read, is damaged, or holds anything else; the name or instruction is told.
    """
    content = read_bytes(path)
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.step(opcode.name, argument)
        (result,) = machine.stack
    except _Refused as error:
        raise UserError(f"{path} is refused: it holds {error}") from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        # The instructions of a damaged file find other things on the stack than they need.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as a pickle of plain data: {reason}") from error
    return result.values if isinstance(result, _Array) else result


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carries out an instruction; `_Refused` where it is none of those known."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            kind, number = _CONTAINERS[name]
            self.stack.append(kind(self._take(number)))
        elif name in ("APPEND", "APPENDS"):
            values = self._take(1 if name == "APPEND" else None)
            self._top(list, "an append to").extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self._take(2 if name == "SETITEM" else None)
            self._top(dict, "an entry of").update(_pairs(values))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.stack.append(_Name(argument if name == "GLOBAL" else " ".join(self._take(2))))
        elif name == "REDUCE":
            function, arguments = self._take(2)
            if not isinstance(function, _Name) or function.name not in _CALLS:
                raise _Refused("a call of something that is no function of numpy's arrays")
            self.stack.append(_CALLS[function.name](*arguments))
        elif name == "BUILD":
            (state,) = self._take(1)
            self._top((_Array, _Dtype), "a state of").build(state)
        elif name not in _IGNORED:
            raise _Refused(f"the instruction {name}, which plain data does not need")

    def _take(self, number: int | None) -> list[Any]:
        """The values on top of the stack, which leave it: so many, or all above the last mark, which goes too."""
        if number is None:
            first = max(index for index, value in enumerate(self.stack) if value is _MARK)
        elif number <= len(self.stack):
            first = len(self.stack) - number
        else:
            raise IndexError("the stack is empty")
        taken = self.stack[first:] if number is not None else self.stack[first + 1 :]
        del self.stack[first:]
        return [value.values if isinstance(value, _Array) else value for value in taken]

    def _top(self, kind: type | tuple[type, ...], action: str) -> Any:
        """What lies on top of the stack, which must be of this kind."""
        if not isinstance(self.stack[-1], kind):
            raise _Refused(f"{action} {type(self.stack[-1]).__name__}")
        return self.stack[-1]


def _pairs(values: list[Any]) -> dict[Any, Any]:
    for key in values[::2]:  # where they are one tuple, and so on, the hash alone could take forever
        if isinstance(key, tuple) and any(isinstance(part, tuple) for part in key):
            raise _Refused(f"a dictionary with a tuple of tuples as a key, {shown(key)}")
    return dict(zip(values[::2], values[1::2], strict=True))


_CONTAINERS: dict[str, tuple[Callable[[list[Any]], Any], int | None]] = {
    "EMPTY_LIST": (list, 0),
    "EMPTY_DICT": (_pairs, 0),
    "EMPTY_TUPLE": (tuple, 0),
    "LIST": (list, None),
    "DICT": (_pairs, None),
    "TUPLE": (tuple, None),
    "TUPLE1": (tuple, 1),
    "TUPLE2": (tuple, 2),
    "TUPLE3": (tuple, 3),
}
"""What makes a container, and of how many values; None: of those above the mark."""
