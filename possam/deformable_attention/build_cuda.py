"""Builds the CUDA C++ kernel of deformable attention, at request and with nvcc; where there is one, GPUs run it.

    python -m possam.deformable_attention.build_cuda                    # for the GPUs of this machine
    python -m possam.deformable_attention.build_cuda --arch 8.0 9.0     # for others: compute capabilities

It is kept in the same cache as what is compiled for the CPU, one file for each capability; once built it needs no nvcc.
Without it GPUs run the kernel in Triton. **Untested on a GPU**: it was compiled, and its arithmetic checked on a CPU.

Like the CPU's kernel it is plain functions over pointers, called through ctypes (native.py says why). A CUDA runtime of
its own is linked in and works in the context that PyTorch has made: nvcc may be of another version than PyTorch's CUDA.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.io.native import NoKernel, is_private, kernel_folder, run_compiler
from sam_common.io.weights import cache_folder

SOURCE = Path(__file__).with_name("cuda.cu")
COMMAND = "python -m possam.deformable_attention.build_cuda"
_FLAGS = ("-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC", "-cudart", "static")


def load(device: torch.device) -> ctypes.CDLL:
    """The kernel for a device.

    Raises:
        NoKernel: it was not built for this kind of GPU, or cannot be loaded.
    """
    loaded = _loaded(built_file(torch.cuda.get_device_capability(device)))
    if isinstance(loaded, NoKernel):
        raise loaded
    return loaded


def why_no_build(device: torch.device) -> str:
    """Why `load` fails, in a line; "" where it does not."""
    try:
        load(device)
    except NoKernel as reason:
        return str(reason)
    return ""


@cache
def _loaded(path: Path) -> ctypes.CDLL | NoKernel:
    if not path.is_file():
        return NoKernel(f"no CUDA build, which {COMMAND} makes")
    if not (is_private(path) and is_private(path.parent)):
        return NoKernel(f"others may write to {path}, so the CUDA build is not loaded")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        return NoKernel(f"the CUDA build cannot be loaded, {COMMAND} again: {' '.join(str(error).split())}")


def built_file(capability: tuple[int, int]) -> Path:
    """Where the build for a compute capability lies, named after the source: an old one is never loaded."""
    major, minor = capability
    return cache_folder() / "kernels" / f"{SOURCE.stem}-cuda-{_version()}-sm_{major}{minor}.so"


@cache
def _version() -> str:
    return hashlib.sha256(SOURCE.read_bytes() + platform.machine().encode()).hexdigest()[:16]


def build(capability: tuple[int, int]) -> Path:
    """Compiles anew for a compute capability and returns the file.

    Raises:
        UserError: there is no nvcc, or it fails.
    """
    arch = "".join(map(str, capability))
    path = built_file(capability)
    try:
        nvcc = find_nvcc()
        if kernel_folder() is None:
            raise UserError(f"others may write to {path.parent}; set DETECTRON2_SAM_CACHE to a folder of yours")
        with atomic_path(path) as temporary:
            target = f"arch=compute_{arch},code=sm_{arch}"
            run_compiler([nvcc, *_FLAGS, "-gencode", target, *_pip_libraries(nvcc), str(SOURCE), "-o", str(temporary)])
        path.chmod(0o644)
    except NoKernel as reason:
        raise UserError(str(reason)) from reason
    _loaded.cache_clear()  # which may remember that there was none
    return path


def find_nvcc() -> str:
    """`$CUDA_HOME`'s, the one on the PATH, /usr/local/cuda's, or the one of the package nvidia-cuda-nvcc.

    Raises:
        NoKernel: there is none.
    """
    for place in _places():
        if place and (found := shutil.which("nvcc", path=place)):
            return found
    raise NoKernel(
        "no nvcc in $CUDA_HOME, on the PATH or in /usr/local/cuda; install NVIDIA's CUDA toolkit, or what fits PyTorch "
        f'here: pip install "nvidia-cuda-nvcc=={torch.version.cuda or "13.0"}.*"'
    )


def _places() -> list[str]:
    """Folders to look into, each as a PATH."""
    home, folders = os.environ.get("CUDA_HOME", ""), [Path("/usr/local/cuda"), *_pip_folders()]
    return [home and str(Path(home, "bin")), os.environ.get("PATH", ""), *(str(folder / "bin") for folder in folders)]


def _pip_folders() -> list[Path]:
    """Where NVIDIA's packages of PyPI lie, beginning with CUDA 13; torch brings those of them that have the headers."""
    spec = importlib.util.find_spec("nvidia")
    return [
        folder
        for place in (spec.submodule_search_locations or [] if spec else [])
        for folder in Path(place).glob("cu[0-9]*")
    ]


def _pip_libraries(nvcc: str) -> list[str]:
    """Such a package looks for its libraries where a whole toolkit has them."""
    folder = Path(nvcc).resolve().parents[1]
    return [f"-L{folder / 'lib'}"] if folder in [path.resolve() for path in _pip_folders()] else []


def compute_capability(text: str) -> tuple[int, int]:
    """Of "9.0": 9, 0."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def main(argv: Sequence[str] | None = None) -> int:
    """Builds and tells the files; 2 where that cannot be done, and one line says why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", type=compute_capability, metavar="X.Y", help="compute capabilities")
    args = parser.parse_args(argv)
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    capabilities = args.arch or sorted({torch.cuda.get_device_capability(index) for index in gpus})
    try:
        if not capabilities:
            raise UserError("PyTorch sees no GPU here; name the compute capability of yours, for example --arch 9.0")
        for capability in capabilities:
            print(build(capability))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
