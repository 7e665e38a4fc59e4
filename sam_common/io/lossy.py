"""Which pictures do not keep the values that were saved in them, by what their files hold, not by their names.

Photographs bear it; a pixel that is the number of a class becomes another class.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}
_BYTE_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
_COMPRESSION = 259
_LOSSY_COMPRESSIONS = (6, 7, 33003, 33005, 34712, 34892, 50001)  # of JPEG, JPEG 2000 and WebP


def lossy_format(path: str | os.PathLike) -> str:
    """ "JPEG", "lossy WebP", …; "" where the values are kept, and of what is no picture.

    Raises:
        UserError: the file cannot be read.
    """
    refuse_special_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            for start, name in _STARTS.items():
                if head.startswith(start):
                    return name
            if head[4:8] == b"ftyp":
                return "AVIF or HEIF"
            if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
                return "lossy WebP" if _webp_is_lossy(file) else ""
            if head[:4] in _BYTE_ORDERS and _compression(file, _BYTE_ORDERS[head[:4]]) in _LOSSY_COMPRESSIONS:
                return "TIFF with lossy compression"
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return ""


def _webp_is_lossy(file: BinaryIO) -> bool:
    """By the first chunk that holds pixels; others, or the head of a frame, may stand before it."""
    file.seek(12)
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name in (b"VP8 ", b"VP8L"):
            return bool(name == b"VP8 ")
        file.seek(16 if name == b"ANMF" else size + size % 2, os.SEEK_CUR)
    return False


def _compression(file: BinaryIO, order: str) -> int:
    """The number of a TIFF's compression; 0 where it has none or is damaged."""
    file.seek(4)
    try:
        file.seek(*struct.unpack(f"{order}I", file.read(4)))
        (count,) = struct.unpack(f"{order}H", file.read(2))
        entries = list(struct.iter_unpack(f"{order}HHIH2x", file.read(12 * count)))
    except struct.error:
        return 0
    return next((value for tag, _, _, value in entries if tag == _COMPRESSION), 0)
