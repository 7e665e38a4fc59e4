"""Reading pictures and panoptic id maps, with one clear line for every file that cannot be read.

A panoptic PNG is 8-bit RGB and stores the id of each pixel's segment as R + 256 G + 65536 B; id 0 is void
(https://cocodataset.org/#format-data, "Panoptic Segmentation").
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from sam_common.contracts import ImageRecord, ModelInput
from sam_common.errors import UserError
from sam_common.io.files import atomic_path, refuse_special_file
from sam_common.io.pictures import max_pixels, one_line, open_picture, orientation_of, upright
from sam_common.masks.png import decode_ids, encode_ids

logger = logging.getLogger(__name__)

MAX_SEGMENT_ID = 256**3 - 1

_MAX_SAMPLE_VALUES = (281, 341)  # tags of TIFF
_LOWER_BYTES = {  # Pillow's names for colours of 16 bits, of which it takes the upper bytes -> those by which the lower
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX", "R", "G", "B", "A")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def read_image(path: str | os.PathLike) -> Tensor:
    """A picture as uint8 RGB [3, H, W], upright: an EXIF orientation is applied; what is transparent is shown.

    Of 16 bits the upper eight are kept. Where no pixel uses the highest bits, these are the upper eight of 14, 12, 10
    or 8 bits, as most cameras and scanners have; a warning says so, once for each depth. A very dark picture that does
    have 16 bits becomes at least four times as bright.

    Raises:
        UserError: the file is missing, truncated, no image, larger than `max_pixels()`, or has pixels of 32 bits that
            don't fit in 16.
    """
    with open_picture(path) as (image, orientation):
        tiles, brightest = list(image.tile), _brightest(image)
        pixels = _rgb(upright(image, path, orientation), path, brightest)
    if not tiles or not all(_raw_mode(tile) in _LOWER_BYTES for tile in tiles):
        return pixels
    upper = int(pixels.max())  # Pillow has dropped the lower bytes
    if max(upper, brightest >> 8) >= 0x40:
        return pixels
    with open_picture(path) as (image, orientation):
        image.tile = [_of_lower_bytes(tile) for tile in tiles]
        values = 256 * pixels.int() + _rgb(upright(image, path, orientation), path)
    return (values >> (_bits_used(max(int(values.max()), brightest), path) - 8)).byte()


def rgb_pixels(image: Image.Image, name: str | os.PathLike) -> Tensor:
    """A picture that Pillow has opened, as `read_image` gives it.

    Raises:
        UserError: as `read_image`; it calls the picture `name`.
    """
    return _rgb(upright(image, name), name)


def _rgb(image: Image.Image, name: str | os.PathLike, brightest: int = 0) -> Tensor:
    with one_line(name):
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # Pillow's conversion would clip to 255
            values = np.array(image)
            least, most = values.min(), values.max()
            if image.mode == "F" or least < 0 or most > 0xFFFF:
                raise UserError(
                    f"{name} has pixels of 32 bits (mode {image.mode}) from {least:g} to {most:g}, and nothing tells "
                    "which of them is white; scale them to 0 … 255 and save it with 8 bits"
                )
            bits = _bits_used(max(int(most), brightest), name)
            image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # at once to RGB, Pillow warns of palettes with transparency
        if image.mode == "LAB":
            raise UserError(f"{name} has L*a*b* colours; save it as RGB")
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


_said: set[int] = set()


def _bits_used(most: int, name: str | os.PathLike) -> int:
    """The depth of a picture whose values end there, in a file of 16 bits: 8, 10, 12, 14 or 16."""
    bits = next((bits for bits in (8, 10, 12, 14) if 0 < most < 1 << bits), 16)
    if bits < 16 and bits not in _said:
        _said.add(bits)
        logger.warning("%s uses %d of its 16 bits and is scaled by them, as are others of that depth", name, bits)
    return bits


def _brightest(image: Image.Image) -> int:
    """The greatest value that a TIFF says it can have; 0 where it does not, or names all of its 16 bits."""
    tags = getattr(image, "tag_v2", {})
    told = [value for tag in _MAX_SAMPLE_VALUES for value in np.atleast_1d(tags.get(tag, 0)).tolist()]
    return max((value for value in told if isinstance(value, int) and 0 < value < 0xFFFF), default=0)


def _raw_mode(tile: Any) -> str:
    """How the pixels of one of Pillow's tiles (codec, extents, offset, arguments) lie in the file."""
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _of_lower_bytes(tile: Any) -> Any:
    mode = _LOWER_BYTES[_raw_mode(tile)]
    arguments = mode if isinstance(tile[3], str) else (mode, *tile[3][1:])
    return getattr(tile, "_make", tuple)((*tile[:3], arguments))  # a plain tuple before Pillow 11


def upright_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) as `read_image` gives it, of most formats from the header alone.

    Raises:
        UserError: the file is missing, no image, or too large to be read.
    """
    with open_picture(path) as (image, orientation):
        width, height = image.size
        if orientation is None:
            image.load()
            orientation = orientation_of(image)
    return (width, height) if orientation >= 5 else (height, width)


def read_segment_ids(path: str | os.PathLike) -> Tensor:
    """The segment ids of a panoptic PNG, int32 [H, W], 0 where void.

    Raises:
        UserError: the file is missing, truncated, no image or not RGB.
    """
    refuse_special_file(path)
    with contextlib.suppress(OSError):  # Pillow says what is wrong with it
        ids = decode_ids(Path(path).read_bytes(), max_pixels=max_pixels())
        if ids is not None:
            return torch.from_numpy(ids)
    with open_picture(path) as (stored, _):
        image = upright(stored, path, orientation=1)
        if image.mode != "RGB":
            raise UserError(f"{path}: a panoptic PNG is 8-bit RGB (id = R + 256 G + 65536 B), this one is {image.mode}")
        pixels = image.tobytes("raw", "RGBX")  # as Pillow keeps them: R, G, B and a byte that means nothing
    ids = np.frombuffer(pixels, dtype="<i4").reshape(image.height, image.width) & np.int32(MAX_SEGMENT_ID)
    return torch.from_numpy(ids.astype(np.int32, copy=False))


def read_class_indices(path: str | os.PathLike) -> Tensor:
    """The pixels of an image of one channel, 8 or 16 bits, int64 [H, W], upright as `read_image` gives it; of a palette
    image its indices, of an opaque grey one in several channels the first.

    Raises:
        UserError: the file is missing, truncated, no image, or has another kind of pixels.
    """
    with open_picture(path) as (image, orientation):
        pixels = torch.from_numpy(np.array(upright(image, path, orientation)).astype(np.int64))
    if image.mode in ("RGB", "RGBA", "LA"):
        colours, alpha = (pixels, None) if image.mode == "RGB" else (pixels[..., :-1], pixels[..., -1])
        if (colours == colours[..., :1]).all() and (alpha is None or (alpha == 255).all()):
            return colours[..., 0]
    elif image.mode in ("1", "L", "P", "I", "I;16", "I;16B"):
        return pixels
    kind = "has fractions" if image.mode == "F" else "is coloured or transparent"
    raise UserError(
        f"{path} {kind} (mode {image.mode}) but each pixel must be the number of a class; save "
        "these numbers as a grey PNG"
    )


def write_segment_ids(path: str | os.PathLike, ids: Tensor) -> None:
    """Writes an id map [H, W] of any integer type, ids in 0..2²⁴-1, as a panoptic PNG; parents are made.

    Raises:
        UserError: the file cannot be written.
    """
    ids = ids.cpu()
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_SEGMENT_ID:
        raise ValueError(f"segment ids must lie in 0..{MAX_SEGMENT_ID}, got {int(ids.min())}..{int(ids.max())}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_ids(ids.numpy()))


def read_item(record: ImageRecord) -> ModelInput:
    """What every model input starts from: the image at its own size, and what its record says of it.

    Raises:
        UserError: the image cannot be read, or is not of the size that the record says.
    """
    path = record["file_name"]
    image = read_image(path)
    height, width = image.shape[-2:]
    if (height, width) != (record["height"], record["width"]):
        told = f"{path} is {width}×{height} upright, but its annotation says {record['width']}×{record['height']}"
        if (width, height) == (record["height"], record["width"]):
            told += (
                "; if the annotation was made on the picture as it is stored, on its side, remove its EXIF orientation "
                "and leave the pixels; if on the upright picture, swap width and height in the JSON"
            )
        raise UserError(told)
    return {"image": image, "height": height, "width": width, "file_name": path, "image_id": record["image_id"]}


def shortest_edge_size(size: tuple[int, int] | torch.Size, shortest: int, longest: int) -> tuple[int, int]:
    """(height, width) with the shortest side at `shortest`, or less where the longest would exceed `longest`.

    Detectron2's ResizeShortestEdge rule, rounding included; no side falls below 1.
    """
    scale = shortest / min(size)
    if max(size) * scale > longest:
        scale = longest / max(size)
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def fit_size(size: tuple[int, int] | torch.Size, side: float) -> tuple[int, int]:
    """(height, width) of an image scaled to just fit into a square of this side; no side falls below 1."""
    scale = side / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] to another (height, width): bilinear and antialiased, wherever an image is resized."""
    return F.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
