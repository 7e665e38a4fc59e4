"""C++ compiled on the machine that runs it, where that has a compiler; built once, kept in the cache, loaded by ctypes.

Plain functions over pointers, without PyTorch's headers: such a file is compiled in seconds, where
`torch.utils.cpp_extension` compiles those too, wants ninja and Python's headers, and waits forever on the lock of a
build that was killed. A build serves every version of Python and PyTorch. It is named after the source, the compiler
and what `-march=native` means to it, so that machines of several kinds may share a cache, and after its own bytes: one
that was damaged is made anew. What another user could have put there is never loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.io.weights import cache_folder

KERNELS_VARIABLE = "DETECTRON2_SAM_KERNELS"
"""`pytorch`: nothing is compiled and PyTorch's own operators do everything. `triton`: a CUDA build is not used."""

COMPILERS = ("c++", "g++", "clang++")
"""Looked for on the PATH, in this order, after `$CXX`."""

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp-simd", "-fPIC", "-shared", "-pthread")
_LIMIT = 300  # seconds

_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

logger = logging.getLogger(__name__)


class NoKernel(Exception):
    """Why there is no compiled code; the message is one line."""


def load(source: Path) -> ctypes.CDLL:
    """The compiled file, made when it is first asked for; what came of that holds for the process.

    Raises:
        NoKernel: there is none, or `$DETECTRON2_SAM_KERNELS` wants none.
    """
    if os.environ.get(KERNELS_VARIABLE, "") == "pytorch":
        raise NoKernel(f"{KERNELS_VARIABLE} is pytorch")
    made = _made(source)
    if isinstance(made, NoKernel):
        raise made
    return made


@cache
def _made(source: Path) -> ctypes.CDLL | NoKernel:
    try:
        return build(source)
    except NoKernel as reason:
        return reason


def build(source: Path) -> ctypes.CDLL:
    """The compiled file, from the cache or compiled now. Processes that do so at the same time do not disturb another.

    Raises:
        NoKernel: there is no compiler, it fails, or the cache cannot be written to or executed from.
    """
    compiler = find_compiler()
    name = f"{source.stem}-{_fingerprint(compiler, source)}"
    try:
        folder = kernel_folder()
        for path in folder.glob(f"{name}-*.so") if folder is not None else ():
            if is_private(path) and path.stem == f"{name}-{_digest(path.read_bytes())}":
                return ctypes.CDLL(str(path))
            path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as private:
            built = Path(private, f"{name}.so")
            run_compiler([compiler, *_FLAGS, str(source), "-o", str(built)])
            if folder is None:
                return ctypes.CDLL(str(built))
            content = built.read_bytes()
        path = folder / f"{name}-{_digest(content)}.so"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(path.stat().st_mode & ~_BY_OTHERS)
        return ctypes.CDLL(str(path))
    except (UserError, OSError) as error:
        raise NoKernel(" ".join(str(error).split())) from error


def kernel_folder() -> Path | None:
    """Where builds are kept, made if need be; None, with a warning, where others may write to it.

    Raises:
        NoKernel: it cannot be made.
    """
    folder = cache_folder() / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and folder.stat().st_uid == os.geteuid():  # a umask that lets a group write made it so
            folder.chmod(folder.stat().st_mode & ~_BY_OTHERS)
        if is_private(folder) and _is_owned(folder.parent):
            return folder
    except OSError as error:
        raise NoKernel(f"cannot write {folder}: {error.strerror}") from error
    _warn_once(
        f"others may write to {folder}: compiled code is made anew by each process, not kept there; "
        "set DETECTRON2_SAM_CACHE to a folder of yours"
    )
    return None


def is_private(path: Path) -> bool:
    """Whether nobody but the user and root can have written a file, or to a folder."""
    return _is_owned(path) and not (os.name == "posix" and path.stat().st_mode & _BY_OTHERS)


def _is_owned(path: Path) -> bool:
    """Whether it is the user's or root's; in a folder that all may write to, only as /tmp is: no one moves others'."""
    if os.name != "posix":
        return True  # Windows' folders of a user are closed to others
    status = path.stat()
    is_open = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (0, os.geteuid()) and not is_open


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def find_compiler() -> str:
    """The path of the C++ compiler.

    Raises:
        NoKernel: there is none.
    """
    asked = os.environ.get("CXX", "")
    found = next((path for name in (asked, *COMPILERS) if name and (path := shutil.which(name))), None)
    if found is None:
        raise NoKernel(f"no C++ compiler: none of {', '.join(COMPILERS)} is on the PATH")
    return found


def _fingerprint(compiler: str, source: Path) -> str:
    """Names a build: `-###` prints the version and the commands, `native` spelled out as the machine's own features."""
    meant = run_compiler([compiler, *_FLAGS, "-###", "-E", "-x", "c++", os.devnull])
    return hashlib.sha256(source.read_bytes() + f"{platform.machine()}{meant}".encode()).hexdigest()[:16]


def run_compiler(command: list[str]) -> str:
    """What the compiler says."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=_LIMIT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernel(f"{command[0]} cannot be used: {' '.join(str(error).split())[:200]}") from error
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["silently"]
        )
        raise NoKernel(f"{command[0]} failed: {lines[0][:200]}")
    return done.stdout + done.stderr
