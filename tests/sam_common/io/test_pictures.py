"""Opening pictures: formats, orientation, caps, and every way in which a file can be broken."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from sam_common.data.images import read_class_indices, read_image, read_segment_ids, upright_size
from sam_common.errors import UserError
from sam_common.io import pictures
from sam_common.io.pictures import picture_suffixes

READERS = (read_image, read_class_indices, read_segment_ids, upright_size)
CORNER = np.array([[255, 0, 0], [0, 0, 0]], np.uint8)
"""2×3, its first pixel white."""
TURNED = [
    ([2, 3], (0, 0)),
    ([2, 3], (0, 2)),
    ([2, 3], (1, 2)),
    ([2, 3], (1, 0)),
    ([3, 2], (0, 0)),
    ([3, 2], (0, 1)),
    ([3, 2], (2, 1)),
    ([3, 2], (2, 0)),
]
"""Orientation 1 … 8 -> the upright size of `CORNER`, and where its white pixel is then."""


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}], ids=["plain", "lzw"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation(tmp_path: Path, suffix: str, value: int, options: dict[str, str]) -> None:
    """Derived by hand, of all readers: where the white corner goes. Pillow 13 scrambles plain TIFFs that lie on their
    side."""
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(CORNER).save(path, exif=orientation(value), **(options if suffix == "tif" else {}))
    size, place = TURNED[value - 1]
    assert list(upright_size(path)) == size
    for pixels in (read_image(path)[0], read_class_indices(path)):
        assert list(pixels.shape) == size and pixels.sum() == 255 == pixels[place]


def test_a_png_that_tells_after_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equality with one that tells before, of which the size is read without decoding it."""
    path = tmp_path / "a.png"
    Image.fromarray(CORNER).save(path, exif=orientation(6))
    with monkeypatch.context() as patch:
        patch.setattr(PngImagePlugin.PngImageFile, "load", lambda image: pytest.fail("decoded"))
        assert upright_size(path) == (3, 2)
    before, content = read_image(path), path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    assert torch.equal(read_image(path), before) and upright_size(path) == (3, 2)


def exif_block(*entries: bytes) -> bytes:
    """EXIF bytes of these entries of 12 bytes."""
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory


BROKEN_EXIF = {
    "no TIFF header": b"Exif\0\0garbage",
    "cut": b"Exif\0\0II*\0\x08\0\0\0\xff",
    "orientation as text": exif_block(struct.pack("<HHI4s", 0x0112, 2, 2, b"6\0")),
    "orientation 60,000": exif_block(struct.pack("<HHIHH", 0x0112, 3, 1, 60_000, 0)),
    "orientation as a fraction": exif_block(struct.pack("<HHII", 0x0112, 5, 1, 8)),
    "a resolution that is text": exif_block(
        struct.pack("<HHIHH", 0x0112, 3, 1, 1, 0), struct.pack("<HHI4s", 0x011A, 3, 1, b"abcd")
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged blocks
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("block", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
def test_a_broken_exif_block_says_nothing(tmp_path: Path, block: bytes, suffix: str) -> None:
    """Equality with the same picture without EXIF, in pixels and size."""
    image = Image.effect_noise((12, 8), 50)
    for name, options in (("plain", {}), ("broken", {"exif": block})):
        image.save(tmp_path / f"{name}.{suffix}", **options)
    plain, broken = tmp_path / f"plain.{suffix}", tmp_path / f"broken.{suffix}"
    assert torch.equal(read_image(plain), read_image(broken)) and upright_size(plain) == upright_size(broken) == (8, 12)


def test_no_interpreter_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: PostScript, whatever it is called, is no picture; Pillow would give it to Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: pytest.fail("started"))
    for name in ("x.png", "x.eps"):
        (tmp_path / name).write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
        )
        for read in READERS:
            with pytest.raises(UserError, match=rf"{name} cannot be read as an image"):
                read(tmp_path / name)
    assert {"EPS", "WMF", "FITS", "HDF5"}.isdisjoint(pictures.formats())


def test_pictures_are_opened_in_one_place() -> None:
    """Else the list of formats would be one of several."""
    root = Path(pictures.__file__).parents[2]
    packages = ("amsam", "detectron2_sam", "plug", "possam", "sam_common", "weights")
    opening = [path for name in packages for path in (root / name).rglob("*.py") if "Image.open(" in path.read_text()]
    assert opening == [Path(pictures.__file__)]


def test_suffixes_are_those_of_the_formats() -> None:
    """What is opened is listed, in a folder too: no suffix of a program's own or a video's."""
    assert {".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".tif", ".webp", ".gif", ".bmp", ".pgm", ".tga"} <= (
        picture_suffixes()
    )
    assert {".eps", ".ps", ".wmf", ".mpg", ".mpeg", ".psd", ".h5", ".pdf"}.isdisjoint(picture_suffixes())


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG of these sizes, whose pixels are missing or wrong."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "message"),
    [((149_999_999, 1), "no side may have more than"), ((1, 900_000), "cannot be read as an image")],
)
def test_absurdly_long_pictures(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    """Error: below the cap of pixels, but Pillow runs out of memory or of file."""
    (tmp_path / "a.png").write_bytes(png(*size))
    for read in (read_image, read_segment_ids):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("error", [MemoryError(), struct.error("x"), TypeError("x"), RecursionError(), KeyError("x")])
def test_whatever_a_decoder_raises(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: one line that names the file. Ctrl-C stays what it is."""
    Image.new("L", (2, 2)).save(tmp_path / "a.png")

    def load(image: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image") as caught:
        read_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        read_image(tmp_path / "a.png")


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    """Error: a reader of a pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "a.png")
    for read in READERS:
        with pytest.raises(UserError, match=r"a\.png is a named pipe"):
            read(tmp_path / "a.png")


def test_heic_names_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: what is missing is told from the file's own brand; where the package is, its opener is used."""
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    pictures.formats.cache_clear()
    with pytest.raises(UserError, match=r"a\.heic .*pip install pillow-heif"):
        read_image(tmp_path / "a.heic")

    def register() -> None:
        monkeypatch.setitem(Image.OPEN, "HEIF", (lambda file, name: Image.new("RGB", (5, 4)), lambda head: True))
        monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    for cached in (pictures.formats, pictures.picture_suffixes):
        cached.cache_clear()
    try:
        assert ".heic" in picture_suffixes() and upright_size(tmp_path / "a.heic") == (4, 5)
    finally:
        monkeypatch.undo()
        for cached in (pictures.formats, pictures.picture_suffixes):
            cached.cache_clear()


def test_what_the_system_refuses_is_not_called_truncated(tmp_path: Path) -> None:
    """Error of all readers: a link to itself; the line ends in the system's reason."""
    (tmp_path / "a.png").symlink_to("a.png")
    for read in READERS:
        with pytest.raises(UserError, match=r"a\.png cannot be read as an image: Too many levels"):
            read(tmp_path / "a.png")
