"""Reading pictures and panoptic id maps, with one clear line for every file that cannot be read.

A panoptic PNG is 8-bit RGB and stores the id of each pixel's segment as R + 256 G + 65536 B; id 0 is void
(https://cocodataset.org/#format-data, "Panoptic Segmentation").
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from sam_common.contracts import ImageRecord, ModelInput
from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.masks.png import decode_ids, encode_ids

MAX_SEGMENT_ID = 256**3 - 1

_EXIF_ORIENTATION = 0x0112

_PILLOWS_CAP = threading.Lock()

_BROKEN = (OSError, SyntaxError, ValueError, EOFError)  # what Pillow raises for damaged files

MAX_PIXELS = 150_000_000
"""Images with more pixels are refused before they are decoded: 12,000 × 12,000 still is read, at about 2 GB."""

MAX_PIXELS_VARIABLE = "DETECTRON2_SAM_MAX_PIXELS"
"""The environment variable that sets another cap."""


def max_pixels() -> int:
    """`$DETECTRON2_SAM_MAX_PIXELS`, or else `MAX_PIXELS`."""
    text = os.environ.get(MAX_PIXELS_VARIABLE) or str(MAX_PIXELS)
    if not text.isdecimal():
        raise UserError(f"{MAX_PIXELS_VARIABLE} is {text!r}; give a number of pixels, such as {MAX_PIXELS}")
    return int(text)


def read_image(path: str | os.PathLike) -> Tensor:
    """A picture as uint8 RGB [3, H, W], upright: an EXIF orientation is applied. Of 16 bits the upper eight are kept.

    Raises:
        UserError: the file is missing, truncated, no image, larger than `max_pixels()`, or has pixels of 32 bits,
            whose range nothing tells.
    """
    with _open(path) as image:
        return rgb_pixels(image, path)


def rgb_pixels(image: Image.Image, name: str | os.PathLike) -> Tensor:
    """A picture that Pillow has opened, as `read_image` gives it.

    Raises:
        UserError: as `read_image`; it calls the picture `name`.
    """
    _decode(image, name)
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F"):
        raise UserError(f"{name} has pixels of 32 bits (mode {upright.mode}); save it with 8 bits")
    if upright.mode.startswith("I;16"):  # Pillow's conversion would clip: all but the darkest pixels white
        upright = Image.fromarray((np.array(upright) >> 8).astype(np.uint8))
    return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1)


def read_segment_ids(path: str | os.PathLike) -> Tensor:
    """The segment ids of a panoptic PNG, int32 [H, W], 0 where void.

    Raises:
        UserError: the file is missing, truncated, no image or not RGB.
    """
    with contextlib.suppress(OSError):  # Pillow says what is wrong with it
        ids = decode_ids(Path(path).read_bytes(), max_pixels=max_pixels())
        if ids is not None:
            return torch.from_numpy(ids)
    with _open(path) as image:
        if image.mode != "RGB":
            raise UserError(f"{path}: a panoptic PNG is 8-bit RGB (id = R + 256 G + 65536 B), this one is {image.mode}")
        pixels = image.tobytes("raw", "RGBX")  # as Pillow keeps them: R, G, B and a byte that means nothing
    ids = np.frombuffer(pixels, dtype="<i4").reshape(image.height, image.width) & np.int32(MAX_SEGMENT_ID)
    return torch.from_numpy(ids.astype(np.int32, copy=False))


def read_class_indices(path: str | os.PathLike) -> Tensor:
    """The pixels of an image of one channel, 8 or 16 bits, int64 [H, W], upright as `read_image` gives it; of a palette
    image its indices.

    Raises:
        UserError: the file is missing, truncated, no image, or has another kind of pixels.
    """
    with _open(path) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise UserError(f"{path}: a label map has one channel of class indices, this one is {image.mode}")
        return torch.from_numpy(np.array(ImageOps.exif_transpose(image)).astype(np.int64))


def upright_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) as `read_image` will give it, from the header.

    Raises:
        UserError: the file is missing or no image.
    """
    try:
        with _without_pillows_cap(), Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except _BROKEN as error:
        raise UserError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error
    return (width, height) if turned else (height, width)


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


def _open(path: str | os.PathLike) -> Image.Image:
    """Opens and decodes, so that every way in which a file can be broken shows here."""
    try:
        with _without_pillows_cap():
            image = Image.open(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such image file") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not an image file; name the images in it") from None
    except _BROKEN as error:
        raise _broken(path, error) from error
    _decode(image, path)
    return image


def _decode(image: Image.Image, name: str | os.PathLike) -> None:
    width, height = image.size
    if width * height > max_pixels():
        raise UserError(
            f"{name} has {width} × {height} = {width * height:,} pixels, more than the cap of {max_pixels():,}; "
            f"make it smaller, or raise the cap with the environment variable {MAX_PIXELS_VARIABLE}"
        )
    try:
        image.load()
    except _BROKEN as error:
        raise _broken(name, error) from error


def _broken(name: str | os.PathLike, error: Exception) -> UserError:
    return UserError(f"{name} cannot be read as an image, it may be truncated: {' '.join(str(error).split())}")


@contextlib.contextmanager
def _without_pillows_cap() -> Iterator[None]:
    """Ours is stated and can be raised; Pillow's warns at half of its own and refuses without saying how to go on.

    One thread at a time: Pillow's cap is one for all of them.
    """
    with _PILLOWS_CAP:
        cap, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = cap


def read_item(record: ImageRecord) -> ModelInput:
    """What every model input starts from: the image at its own size, and what its record says of it.

    Raises:
        UserError: the image cannot be read, or is not of the size that the record says.
    """
    path = record["file_name"]
    image = read_image(path)
    height, width = image.shape[-2:]
    if (height, width) != (record["height"], record["width"]):
        raise UserError(
            f"{path} is {width}×{height} (upright, by its EXIF orientation) but its annotation says "
            f"{record['width']}×{record['height']}"
        )
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
