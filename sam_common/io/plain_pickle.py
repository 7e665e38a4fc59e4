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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam_common.errors import UserError

_MARK = object()
_NUMBERS = {
    f"{kind}{size}" for kind, sizes in {"b": "1", "i": "1248", "u": "1248", "f": "248"}.items() for size in sizes
}


class _Refused(Exception):
    """Why a pickle is not plain."""


class _Name:
    """A name in place of what it would import: a key of `_CALLS`, or numpy's array type."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Dtype:
    """A numpy dtype of numbers; its byte order is told afterwards."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _NUMBERS:
            raise _Refused(f"a numpy array of {code!r}; arrays of numbers can be read")
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
        raise _Refused(f"a numpy array of the shape {shape!r}")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise _Refused(f"a numpy array of the shape {shape!r} with {len(content)} bytes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, content: bytes) -> int | float | bool:
    return _array(content, dtype, (), "C").item()


def _latin1(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes."""
    if encoding != "latin1":
        raise _Refused(f"bytes in the encoding {encoding!r}")
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

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
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
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
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
            self.stack.append(_CONSTANTS[name]())
        elif name not in _IGNORED:
            action = getattr(self, f"_{name.lower()}", None)
            if action is None:
                raise _Refused(f"the instruction {name}, which plain data does not need")
            action(argument)

    def _take(self, number: int) -> list[Any]:
        if number > len(self.stack):
            raise IndexError("the stack is empty")
        taken = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return [value.values if isinstance(value, _Array) else value for value in taken]

    def _take_to_mark(self) -> list[Any]:
        place = max(index for index, value in enumerate(self.stack) if value is _MARK)
        taken = self._take(len(self.stack) - place)
        return taken[1:]

    # --- containers

    def _append(self, _: Any) -> None:
        self._extend(self._take(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._take_to_mark())

    def _extend(self, values: Sequence[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _Refused(f"an append to {type(target).__name__}")
        target.extend(values)

    def _setitem(self, _: Any) -> None:
        self._update(self._take(2))

    def _setitems(self, _: Any) -> None:
        self._update(self._take_to_mark())

    def _update(self, values: Sequence[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise _Refused(f"an entry of {type(target).__name__}")
        target.update(zip(values[::2], values[1::2], strict=True))

    def _list(self, _: Any) -> None:
        self.stack.append(self._take_to_mark())

    def _dict(self, _: Any) -> None:
        values = self._take_to_mark()
        self.stack.append(dict(zip(values[::2], values[1::2], strict=True)))

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._take_to_mark()))

    def _tuple1(self, _: Any) -> None:
        self.stack.append(tuple(self._take(1)))

    def _tuple2(self, _: Any) -> None:
        self.stack.append(tuple(self._take(2)))

    def _tuple3(self, _: Any) -> None:
        self.stack.append(tuple(self._take(3)))

    # --- memory

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    # --- numpy

    def _global(self, name: str) -> None:
        if name not in _CALLS and name != _ARRAY_TYPE:
            raise _Refused(f"the name {name.replace(' ', '.')}, which is not imported")
        self.stack.append(_Name(name))

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        self._global(f"{module} {name}")

    def _reduce(self, _: Any) -> None:
        function, arguments = self._take(2)
        if not isinstance(function, _Name) or function.name not in _CALLS:
            raise _Refused("a call of something that is no function of numpy's arrays")
        self.stack.append(_CALLS[function.name](*arguments))

    def _build(self, _: Any) -> None:
        (state,) = self._take(1)
        target = self.stack[-1]
        if not isinstance(target, _Array | _Dtype):
            raise _Refused(f"a state of {type(target).__name__}")
        target.build(state)
