"""C++ compiled on the machine that runs it, where that has a compiler; built once, kept in the cache, loaded by ctypes.

Plain functions over pointers, without PyTorch's headers: such a file is compiled in seconds, where
`torch.utils.cpp_extension` compiles those too, wants ninja and Python's headers, and waits for ever on the lock of a
build that was killed. A build serves every version of Python and PyTorch. It is named after the source, the compiler
and what `-march=native` means to it, so that machines of several kinds may share a cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.io.weights import cache_folder

KERNELS_VARIABLE = "DETECTRON2_SAM_KERNELS"
"""`pytorch`: nothing is compiled and PyTorch's own operators do everything. `triton`: a CUDA build is passed over."""

COMPILERS = ("c++", "g++", "clang++")
"""Looked for on the PATH, in this order, after `$CXX`."""

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp-simd", "-fPIC", "-shared", "-pthread")
_LIMIT = 300  # seconds


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
    path = cache_folder() / "kernels" / f"{source.stem}-{_fingerprint(compiler, source)}.so"
    try:
        if not path.is_file():
            with atomic_path(path) as temporary:
                run_compiler([compiler, *_FLAGS, str(source), "-o", str(temporary)])
        return ctypes.CDLL(str(path))
    except (UserError, OSError) as error:
        raise NoKernel(" ".join(str(error).split())) from error


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
