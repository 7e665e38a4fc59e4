"""Weight files: official ones by name, downloaded once and verified; reading them safely; the hash of what was loaded.

The names and addresses are segment-anything's (README, "Model Checkpoints"). The hash in Meta's file names is the start
of the file's MD5. A file is checked against its full SHA-256, as projects that redistribute these files publish it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import socket
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch.hub
from safetensors.torch import load_file
from torch import Tensor

from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file
from sam_common.io.tensor_files import SAFETENSORS, check_state, format_of, read_torch
from sam_common.text import some

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "DETECTRON2_SAM_CACHE"
_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class OfficialFile:
    """A published file: where it is, and the SHA-256 of its bytes, or how it begins where no more is published."""

    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


_SHA256 = {
    "sam_vit_b_01ec64": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    "sam_vit_l_0b3195": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "sam_vit_h_4b8939": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
}
_URL = "https://dl.fbaipublicfiles.com/segment_anything/{}.pth"
OFFICIAL = {name[:9]: OfficialFile(_URL.format(name), sha256) for name, sha256 in _SHA256.items()}


def cache_folder() -> Path:
    """Where downloaded files are kept: `$DETECTRON2_SAM_CACHE`, else `~/.cache/detectron2_sam`, else, for a user
    without a home folder, as containers have them, a private folder for temporary files.

    Raises:
        UserError: there is none of them.
    """
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    with contextlib.suppress(RuntimeError):  # the system does not know the user
        folder = Path.home() / ".cache" / "detectron2_sam"
        there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
        if os.access(there, os.R_OK | os.X_OK if there == folder else os.W_OK | os.X_OK):
            return folder
    return _without_home()


@functools.cache
def _without_home() -> Path:
    """A folder of the user's own for temporary files, the same in every run where nobody else has taken its name."""
    try:
        folder = Path(tempfile.gettempdir(), f"detectron2_sam-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700 or not stat.S_ISDIR(found.st_mode):
            folder = Path(tempfile.mkdtemp(prefix="detectron2_sam-"))
    except OSError as error:
        raise UserError(
            f"no home folder can be written to, nor a temporary one ({error.strerror}); "
            f"set {CACHE_VARIABLE} to a folder"
        ) from error
    logger.warning("no home folder can be written to: files are kept in %s; %s names another", folder, CACHE_VARIABLE)
    return folder


def verified_file(official: OfficialFile, name: str) -> Path:
    """The local, verified copy of a published file, downloaded where the cache does not hold it.

    Args:
        name: what it is called where it is damaged.

    Raises:
        UserError: the download fails, or the file is not the published one.
    """
    path = cache_folder() / official.file_name
    refuse_special_file(path)
    if os.path.isfile(path):
        if not (found := _file_sha256(path)).startswith(official.sha256):
            raise UserError(
                f"{path} is damaged: its SHA-256 is {found}, {name} has {official.sha256}; "
                "delete it to download it again"
            )
        return path
    timeout = socket.getdefaulttimeout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(_TIMEOUT)  # torch.hub gives none, and would wait for a stalled server forever
        torch.hub.download_url_to_file(official.url, str(path), hash_prefix=official.sha256)
    except RuntimeError as error:  # the file is not the one that was published
        raise UserError(f"{official.url} arrived damaged and was deleted: {error}; try again") from error
    except (OSError, HTTPException) as error:
        raise UserError(f"cannot download {official.url} ({error}); fetch it yourself and put it at {path}") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in the format of safetensors, or one of torch's that holds a flat state dict, on the CPU.

    Nothing in the file is executed.

    Raises:
        UserError: the file is missing, damaged, or holds anything but named tensors.
    """
    if not os.path.exists(path):
        raise UserError(f"there is no weight file {path}")
    if format_of(path) == SAFETENSORS:
        try:
            return load_file(path)
        except Exception as error:  # its reader has no one kind of error
            reason = " ".join(str(error).split())
            raise UserError(f"{path} cannot be read as weights: it is damaged ({reason}); get it again") from error
    state = read_torch(path)
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a state dict: it must hold nothing but named tensors")
    check_state(state, str(path))
    return state


def misfits(expected: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Why the state dict `given` does not fit `expected`: "2 missing (a, b); 1 of another shape (c (3,) for (4,))".

    "" where it fits. Extra state may have any form: it is the module's own affair.
    """
    faults = {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of another shape": [
            f"{key} {_shape(given[key])} for {_shape(expected[key])}"
            for key in sorted(expected.keys() & given.keys())
            if not key.endswith("_extra_state") and _shape(given[key]) != _shape(expected[key])
        ],
        "of another type": [
            f"{key} {given[key].dtype} for {expected[key].dtype}"
            for key in sorted(expected.keys() & given.keys())
            if _shape(expected[key]) == _shape(given[key]) is not None and _kind(given[key]) != _kind(expected[key])
        ],
    }
    return "; ".join(f"{len(keys)} {fault} ({some(keys)})" for fault, keys in faults.items() if keys)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _kind(value: Tensor) -> tuple[bool, bool]:
    """Whole numbers in place of fractions would be taken without a word, and so would complex ones."""
    return value.is_floating_point(), value.is_complex()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names (sorted), types, shapes and bytes of a state dict, whatever device it is on."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
