"""Files that travel with the project: `configs/` and `weights/`, in a clone or in an installed package."""

from __future__ import annotations

import os
from pathlib import Path

from sam_common.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE.parent, _PACKAGE / "share")  # a clone, an installed wheel


def resource(relative: str) -> Path:
    """Path of a file that ships with the project, e.g. `weights/tiny_sam.safetensors`.

    Raises:
        UserError: no such file ships with it.
    """
    for root in _ROOTS:
        if os.path.isfile(root / relative):
            return root / relative
    raise UserError(f"{relative} does not ship with this installation (looked in {_ROOTS[0]} and {_ROOTS[1]})")


def names_in(folder: str) -> list[str]:
    """The names of the files that ship in a folder, without their endings."""
    folders = [root / folder for root in _ROOTS if os.path.isdir(root / folder)]  # False of a name too long for a disk
    return sorted(path.stem for found in folders for path in found.glob("*.*"))
