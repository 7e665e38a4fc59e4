"""Opening pictures: which formats, how large, which way up; with one clear line for every file that cannot be read."""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import threading
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageFile, TiffImagePlugin

from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file

FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA"),
    *("TIFF", "WEBP"),
)
"""What Pillow may open, by its own names. It knows forty more, some of which start other programs on a file."""

MAX_PIXELS = 150_000_000
"""Images with more pixels are refused before they are decoded: 12,000 × 12,000 still is read, at about 2 GB."""

MAX_PIXELS_VARIABLE = "DETECTRON2_SAM_MAX_PIXELS"
"""The environment variable that sets another cap."""

MAX_SIDE = 1_000_000
"""Of the longer side, pixels."""

_ORIENTATION = 0x0112
_IMAGE_WIDTH, _IMAGE_LENGTH, _BITS_PER_SAMPLE = 256, 257, 258  # tags of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
REMEDIES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "pip install pillow-heif"),
    ".avif": "pip install --upgrade pillow",
}
"""Suffix of pictures that Pillow may lack the decoder of -> what brings it."""

_PLANES = ("R", "G", "B", "A")
"""Pillow's names for one colour of 8 bits."""

_PILLOWS_CAP = threading.Lock()


def max_pixels() -> int:
    """`$DETECTRON2_SAM_MAX_PIXELS`, or else `MAX_PIXELS`."""
    text = os.environ.get(MAX_PIXELS_VARIABLE) or str(MAX_PIXELS)
    if not text.isdecimal():
        raise UserError(f"{MAX_PIXELS_VARIABLE} is {text!r}; give a number of pixels, such as {MAX_PIXELS}")
    return int(text)


@functools.cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that can be read on this machine."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """The suffixes of these formats, lower case, with the dot."""
    known = formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in (*known, "MPO"))


@contextlib.contextmanager
def open_picture(path: str | os.PathLike) -> Iterator[tuple[ImageFile.ImageFile, int | None]]:
    """Opens a file, reads its header and closes it in the end.

    Yields:
        The picture as it is stored, not decoded yet, and its orientation, 1 … 8 as EXIF numbers them; None for a PNG
        that may tell it after its pixels, where Pillow meets it as it decodes them.

    Raises:
        UserError: the file is missing or special, no picture, damaged, or larger than `max_pixels()` or `MAX_SIDE`;
            also for whatever the block raises.
    """
    refuse_special_file(path)
    with one_line(path):
        with _without_pillows_cap():
            image = Image.open(path, formats=formats())
        with image:
            _refuse_large(image, path)
            late = image.format == "PNG" and _tells_after_pixels(path)
            orientation = None if late else orientation_of(image)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                _keep_as_stored(image)
                _read_whole_samples(image)
            yield image, orientation


def upright(image: Image.Image, name: str | os.PathLike, orientation: int | None = None) -> Image.Image:
    """Decodes a picture and turns it as its orientation says; None: which its EXIF tells.

    Raises:
        UserError: it is larger than `max_pixels()` or `MAX_SIDE`, or damaged; it is called `name`.
    """
    _refuse_large(image, name)
    with one_line(name):
        image.load()
        turn = _TURNS.get(orientation_of(image) if orientation is None else orientation)
        return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    """1 … 8; 1 where the picture's EXIF cannot be read: that says nothing of its pixels."""
    try:
        value = Image.Image.getexif(image).get(_ORIENTATION)  # that of PNGs decodes them first
    except Exception:  # Pillow's parser raises anything at damaged blocks
        return 1
    return value if type(value) is int and value in _TURNS else 1


@contextlib.contextmanager
def one_line(name: str | os.PathLike) -> Iterator[None]:
    """Makes a UserError that names the picture of whatever is raised: decoders raise anything at damaged files."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such image file") from None
    except IsADirectoryError:
        raise UserError(f"{name} is a folder, not an image file; name the images in it") from None
    except Exception as error:
        raise UserError(f"{name} cannot be read as an image{_reason(name, error)}") from error


def _refuse_large(image: Image.Image, name: str | os.PathLike) -> None:
    width, height = image.size
    if width * height > max_pixels():
        raise UserError(
            f"{name} has {width} × {height} = {width * height:,} pixels, more than the cap of {max_pixels():,}; "
            f"make it smaller, or raise the cap with the environment variable {MAX_PIXELS_VARIABLE}"
        )
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{name} is {width} × {height} pixels; no side may have more than {MAX_SIDE:,}, cut it up")


def _reason(name: str | os.PathLike, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        remedy = REMEDIES.get(_brand(name))
        if remedy is not None:
            return f": Pillow lacks its decoder; {remedy}, or convert it to PNG"
        return f": it is damaged, or none of {', '.join(formats())}"
    if isinstance(error, MemoryError):
        return ": there is not enough memory for its pixels, or it is damaged"
    if isinstance(error, OSError) and error.strerror:  # of the system: the file was not read at all
        return f": {error.strerror}"
    text = " ".join(str(error).split())
    return f", it may be truncated: {text or type(error).__name__}"


def _brand(path: str | os.PathLike) -> str:
    """.heic or .avif where a file calls itself that, whatever its name; else ""."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return ""
    if head[4:8] != b"ftyp":
        return ""
    return {b"hei": ".heic", b"hev": ".heic", b"mif": ".heic", b"msf": ".heic", b"avi": ".avif"}.get(head[8:11], "")


def _tells_after_pixels(path: str | os.PathLike) -> bool:
    """Whether a PNG has EXIF, or text that may hold it, after its pixels."""
    with open(path, "rb") as file:
        file.seek(8)
        after = False
        while len(header := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", header)
            after = after or kind == b"IDAT"
            if after and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(size + 4, os.SEEK_CUR)
    return False


def _keep_as_stored(image: TiffImagePlugin.TiffImageFile) -> None:
    """Pillow turns TIFFs itself as it decodes them, and Pillow 13 scrambles those that are not compressed."""
    exif = image.getexif()
    if _ORIENTATION in exif:
        del exif[_ORIENTATION]
    image._size = (image.tag_v2[_IMAGE_WIDTH], image.tag_v2[_IMAGE_LENGTH])


def _read_whole_samples(image: TiffImagePlugin.TiffImageFile) -> None:
    """Pillow takes planes of 16 bits that are neither interleaved nor compressed for planes of 8."""
    if set(image.tag_v2.get(_BITS_PER_SAMPLE, ())) == {16}:
        order = "B" if image.tag_v2.prefix == b"MM" else "L"
        image.tile = [_of_sixteen_bits(tile, order) for tile in image.tile]


def _of_sixteen_bits(tile: Any, order: str) -> Any:
    codec, extents, offset, arguments = tile
    if codec != "raw" or arguments[0] not in _PLANES:
        return tile
    return getattr(tile, "_make", tuple)((codec, extents, offset, (f"{arguments[0]};16{order}", *arguments[1:])))


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
