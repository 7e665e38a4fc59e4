"""Files of tensors, told apart by what is in them: their names may say anything. Nothing in one is executed."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file
from sam_common.text import shown

SAFETENSORS, TORCH, OLD_TORCH = "safetensors", "PyTorch", "PyTorch before 1.6"
"""Formats of files. The second is a ZIP archive, the third a pickle."""

_HEAD = 512
_PICKLES = 5  # one after the other, of an old file; the tensors' bytes follow
_LONGEST_TUPLE = 1_000_000
_AGAIN = "get the file again"
_OTHERS = (
    (rb"version https://git-lfs", "a Git LFS pointer in place of the file", "run git lfs pull, or download it"),
    (rb"\s*<", "a web page", "download the file itself, not the page about it"),
    (rb"\s*\{.*\"(weight_map|metadata)\"", "the index of several files", "join them, or give one file that holds all"),
    (rb"\s*[\[{]", "JSON", "give the file of the tensors"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf", "compressed", "unpack it"),
    (rb".{257}ustar", "a tar archive", "unpack it"),
    (rb"\x89HDF", "an HDF5 file", "give a .safetensors or a .pth file"),
    (rb"GGUF", "a GGUF file", "give a .safetensors or a .pth file"),
    (rb"[^\x00-\x08\x0e-\x1f\x7f-\xff]*\Z", "a text", _AGAIN),
)
"""How other files begin, what they are and what to do."""


def format_of(path: str | os.PathLike) -> str:
    """Which format a file has, by its first bytes.

    Raises:
        UserError: it is none of them, or cannot be read; what it is instead is told.
    """
    refuse_special_file(path)
    try:
        with open(path, "rb") as file:
            head, size = file.read(_HEAD), os.fstat(file.fileno()).st_size
    except IsADirectoryError:
        raise _unreadable(path, "it is a folder; give a file in it") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return TORCH
    if head.startswith(b"\x80"):
        return OLD_TORCH
    if not head:
        raise _unreadable(path, f"it is empty; {_AGAIN}")
    for begins, name, remedy in _OTHERS:
        if re.match(begins, head, re.DOTALL):
            raise _unreadable(path, f"it is {name}; {remedy}")
    raise _unreadable(path, f"it is no .safetensors or .pth file, or is damaged; {_AGAIN}")


def read_torch(path: str | os.PathLike) -> Any:
    """What torch.save wrote, tensors on the CPU.

    Raises:
        UserError: the file is damaged, or holds anything but tensors, containers, numbers and texts.
    """
    try:
        if format_of(path) == TORCH:
            _check_archive(path)
        else:
            _check_pickles(path)
        with open(path, "rb") as file, warnings.catch_warnings():  # of a path torch believes the ending
            warnings.simplefilter("ignore")  # of how the file was written
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:  # torch advises to run the file
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not found:
            raise _unreadable(path, f"it is damaged; {_AGAIN}") from error
        objects = f"it holds Python objects ({found[1]}), which are never loaded"
        raise _unreadable(path, f"{objects}; save the state dict alone, its values as tensors") from error
    except Exception as error:  # damaged bytes fail in any way
        reason = (str(error).splitlines() or [""])[0][:200]
        raise _unreadable(path, f"it is damaged ({type(error).__name__}: {reason}); {_AGAIN}") from error


def _check_archive(path: str | os.PathLike) -> None:
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist()}
        if "constants.pkl" in names:
            raise _unreadable(path, "it is a TorchScript program, which is never run; save its state dict")
        if "data.pkl" not in names:
            raise _unreadable(path, "it is a ZIP archive of other files; unpack it")
        with archive.open(names["data.pkl"]) as file:
            _check_tuples(file, path)


def _check_pickles(path: str | os.PathLike) -> None:
    with open(path, "rb") as file:
        for _ in range(_PICKLES):
            try:
                _check_tuples(file, path)
            except UserError:
                raise
            except ValueError:  # it is cut off, or no pickle; torch tells
                return


def _check_tuples(file: IO[bytes], path: str | os.PathLike) -> None:
    """Raises UserError for a pickle of tuples that hold one tuple many times, again and again: to look one up in a
    dictionary would never end."""
    stack: list[int] = []  # how long each value is, written out; 0 for a mark
    memo: dict[Any, int] = {}
    for operation, argument, _ in pickletools.genops(file):
        name, before = operation.name, operation.stack_before
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
            continue
        if name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
            continue
        start = len(stack) - len(before)
        if pickletools.markobject in before:
            mark = len(stack) - 1 - stack[::-1].index(0)
            start = mark - before.index(pickletools.markobject)
        length = 1 + sum(stack[start:]) if name.startswith("TUPLE") else max(stack[start:], default=1)
        if length > _LONGEST_TUPLE:
            raise _unreadable(path, f"it holds tuples of more than {_LONGEST_TUPLE} values; save the state dict alone")
        del stack[start:]
        stack += [0 if kind is pickletools.markobject else length for kind in operation.stack_after]


def _unreadable(path: str | os.PathLike, reason: str) -> UserError:
    return UserError(f"{path} cannot be read as weights: {reason}")


def check_state(state: Mapping[Any, Any], where: str, *, extra: bool = False) -> None:
    """Raises UserError where a state dict has a name that is no text, or a value that is no plain tensor.

    Args:
        extra: values that are no tensors may be there: the extra state of modules.
    """
    for name, value in state.items():
        if not isinstance(name, str):
            raise UserError(f"{where} is not a state dict: it has the key {shown(name)}, which is no name of a tensor")
        is_plain = _is_plain(value) if isinstance(value, Tensor) else extra
        if not is_plain:
            kind = f"{value.layout} on {value.device}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{where} is not a state dict: it must hold nothing but named tensors, {name!r} is a {kind}"
            )


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta  # which holds no data
