"""The short way of reading and writing panoptic PNGs: what Pillow reads, or nothing at all."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from sam_common.data.images import read_segment_ids
from sam_common.errors import UserError
from sam_common.io.native import KERNELS_VARIABLE
from sam_common.masks import kernels
from sam_common.masks.png import _chunks, decode_ids, encode_ids


@pytest.fixture(scope="module")
def compiled(_own_cache):
    if (used := kernels.kernel_in_use()) != "c++":
        pytest.skip(f"the short way is NOT tested: {used}")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, width, *, form=(8, 2, 0, 0, 0), between=b"", pieces=1):
    """A file of filtered rows of bytes, uint8 [H, 1 + 3 W]."""
    packed = zlib.compress(rows.tobytes())
    cuts = np.linspace(0, len(packed), pieces + 1).astype(int)
    data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(cuts))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), *form))
    return b"\x89PNG\r\n\x1a\n" + header + between + data + chunk(b"IEND", b"")


def pillow(content):
    pixels = np.array(Image.open(io.BytesIO(content))).astype(np.int32)
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]


@pytest.mark.usefixtures("compiled")
@settings(deadline=None, max_examples=100)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(2, 256), st.integers(0, 2**32 - 1))
def test_every_filter_is_undone_as_pillow_does(height, width, pieces, values, seed):
    """Equality: rows of random bytes under random filters are a picture too; few values make ties likely."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, values, (height, 1 + 3 * width)).astype(np.uint8)
    rows[:, 0] = random.integers(0, 5, height)
    content = png(rows, width, pieces=pieces)
    np.testing.assert_array_equal(decode_ids(content, max_pixels=100), pillow(content))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_what_is_written_is_what_pillow_reads(height, width, seed):
    """Round trip of any ids of three bytes."""
    ids = np.random.default_rng(seed).integers(0, 2**24, (height, width)).astype(np.uint32)
    content = encode_ids(ids)
    np.testing.assert_array_equal(pillow(content), ids)
    if kernels.kernel_in_use() == "c++":
        np.testing.assert_array_equal(decode_ids(content, max_pixels=100), ids)


def test_anything_else_is_left_alone():
    """Edge: other pixels, extras, too much or too little data, a filter that is none, more pixels than wanted."""
    rows = np.zeros((2, 7), np.uint8)
    whole = png(rows, 2)
    wrong = rows.copy()
    wrong[1, 0] = 5
    others = {
        "sixteen bits": png(rows, 2, form=(16, 2, 0, 0, 0)),
        "grey": png(rows, 2, form=(8, 0, 0, 0, 0)),
        "palette": png(rows, 2, form=(8, 3, 0, 0, 0)),
        "with transparency": png(rows, 2, form=(8, 6, 0, 0, 0)),
        "interlaced": png(rows, 2, form=(8, 2, 0, 0, 1)),
        "animated": png(rows, 2, between=chunk(b"acTL", bytes(8))),
        "a row too many": png(rows, 2)[:16] + struct.pack(">II", 2, 1) + png(rows, 2)[24:],
        "rows missing": png(rows[:1], 3),
        "filter 5": png(wrong, 2),
        "more behind the end": whole + b"x",
        "no end": whole[:-12],
        "nothing": b"",
        "no PNG": b"GIF89a",
        "damaged": whole[:-14] + bytes([whole[-14] ^ 1]) + whole[-13:],
        "empty header": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"") + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "no stream": whole[:33] + chunk(b"IDAT", b"nothing inflated") + chunk(b"IEND", b""),
    }
    assert {name for name, content in others.items() if decode_ids(content, max_pixels=100) is not None} == set()
    assert decode_ids(whole, max_pixels=3) is None
    if kernels.kernel_in_use() == "c++":
        assert decode_ids(whole, max_pixels=4).tolist() == [[0, 0], [0, 0]]


def test_both_ways_agree_on_every_file(tmp_path, monkeypatch):
    """Invariant: of any file the same ids, or the same line, with nothing compiled: extras, other kinds, cut ones.

    Nothing is inflated in vain then.
    """
    image = Image.effect_noise((9, 7), 90).convert("RGB")
    about = PngImagePlugin.PngInfo()
    about.add_text("Title", "ids")
    for name, picture, options in (
        ("plain", image, {}),
        ("text", image, {"pnginfo": about}),
        ("clear", image, {"transparency": (1, 2, 3)}),
        ("optimal", image, {"optimize": True}),
        ("grey", image.convert("L"), {}),
        ("palette", image.convert("P"), {}),
        ("alpha", image.convert("RGBA"), {}),
        ("deep", Image.fromarray(np.full((3, 3), 999, np.uint16)), {}),
    ):
        picture.save(tmp_path / f"{name}.png", **options)
    content = (tmp_path / "plain.png").read_bytes()
    for kept in range(0, len(content), 7):
        (tmp_path / f"cut{kept}.png").write_bytes(content[:kept])
    for flipped in range(0, len(content), 11):
        damaged = bytearray(content)
        damaged[flipped] ^= 4
        (tmp_path / f"flipped{flipped}.png").write_bytes(damaged)

    def read(path):
        try:
            return read_segment_ids(path).tolist()
        except UserError as error:
            return str(error)

    short = {path.name: read(path) for path in tmp_path.iterdir()}
    monkeypatch.setenv(KERNELS_VARIABLE, "pytorch")
    monkeypatch.setattr("sam_common.masks.png.inflater", None)
    assert {path.name: read(path) for path in tmp_path.iterdir()} == short
    assert "is L" in short["grey.png"] and "is RGBA" in short["alpha.png"] and short["text.png"] == short["plain.png"]


@pytest.mark.usefixtures("compiled")
def test_a_stream_that_never_ends_is_not_inflated(monkeypatch):
    """Error: a small file that promises four pixels and inflates to gigabytes is stopped at its promise."""
    inflated = []

    class Inflate:
        eof, unused_data = False, b""

        def decompress(self, data, most):
            inflated.append(most)
            return bytes(most)

    class Library:
        error = zlib.error
        decompressobj = Inflate

    monkeypatch.setattr("sam_common.masks.png.inflater", lambda: Library)
    assert decode_ids(png(np.zeros((2, 7), np.uint8), 2), max_pixels=100) is None
    assert inflated == [15]


def test_chunks_end_where_a_length_lies():
    """Edge: a length that points behind the end of the file."""
    assert list(_chunks(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IDATxxxx")) == [(b"", b"")]
