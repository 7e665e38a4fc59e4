"""Reading pictures and id maps."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sam_common.data import images
from sam_common.data.images import read_class_indices, read_image, read_item, read_segment_ids, write_segment_ids
from sam_common.errors import UserError


def test_ids_are_three_bytes(tmp_path):
    """Derived by hand: 1 + 2·256 + 3·65536 = 197121 is the pixel (1, 2, 3); the extremes survive the round trip."""
    ids = torch.tensor([[0, 197121], [256, 256**3 - 1]])
    write_segment_ids(tmp_path / "new" / "ids.png", ids)
    assert Image.open(tmp_path / "new" / "ids.png").getpixel((1, 0)) == (1, 2, 3)
    assert torch.equal(read_segment_ids(tmp_path / "new" / "ids.png"), ids.int())


@pytest.mark.parametrize("value", [-1, 256**3])
def test_ids_that_do_not_fit_are_refused(tmp_path, value):
    """Error: an id outside three bytes would come back as another one."""
    with pytest.raises(ValueError, match="must lie in"):
        write_segment_ids(tmp_path / "ids.png", torch.tensor([[value]]))


def test_exif_orientation_is_applied(tmp_path):
    """Derived by hand: orientation 6 turns a 3×2 picture clockwise to 2×3; its left column becomes the top row."""
    image = Image.new("RGB", (3, 2))
    for y in range(2):
        image.putpixel((0, y), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = read_image(tmp_path / "turned.png")
    assert pixels.shape == (3, 3, 2) and pixels.dtype == torch.uint8
    assert pixels[0].tolist() == [[255, 255], [0, 0], [0, 0]]


def test_grey_becomes_rgb(tmp_path):
    """Edge case: one channel is repeated."""
    Image.new("L", (2, 1), 77).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[77, 77]]] * 3


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    """Derived by hand: 0x12ff is 0x12; of 32 bits those that fit in 16 are read, others have no known range."""
    Image.fromarray(np.array([[0, 0x12FF, 0xFFFF]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").tolist() == [[[0, 0x12, 0xFF]]] * 3
    Image.fromarray(np.array([[0, 0x12FF, 0xFFFF]], np.int32)).save(tmp_path / "deep.tif")
    assert torch.equal(read_image(tmp_path / "deep.tif"), read_image(tmp_path / "deep.png"))
    for name, pixels in (("float", np.array([[0.5]], np.float32)), ("negative", np.array([[-1000, 3000]], np.int32))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.tif")
        with pytest.raises(UserError, match=rf"{name}\.tif has pixels of 32 bits"):
            read_image(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_remedies_of_a_picture_on_its_side(tmp_path, suffix):
    """The message's two remedies, done literally: without its tag the picture lies as it is stored, with the square
    where it was annotated; with width and height swapped it stands upright, with the square where that is."""
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("L", (64, 48))
    stored.paste(255, (8, 16, 24, 24))
    stored.save(path, exif=exif)
    record = {"file_name": str(path), "image_id": 1, "height": 48, "width": 64}
    with pytest.raises(UserError, match="is 48×64 upright, .* 64×48; .* leave the pixels; .* swap width and height"):
        read_item(record)
    swapped = read_item(record | {"height": 64, "width": 48})["image"][0]
    assert (swapped[8:24, 24:32] > 200).all() and (swapped > 200).sum() == 16 * 8
    with Image.open(path) as image:
        exif = image.getexif()
        del exif[0x0112]
        image.load()
        image.save(path, exif=exif)
    left = read_item(record)["image"][0]
    assert (left[16:24, 8:24] > 200).all() and (left > 200).sum() == 16 * 8


EIGHT_BITS = np.array([[0, 1, 77], [128, 200, 255]], np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_than_sixteen_bits(tmp_path, bits, channels, suffix):
    """Equality with the same picture in 8 bits, be it grey, coloured or with alpha; the lowest bits are any."""
    deep = (EIGHT_BITS.astype(np.uint16) << (bits - 8)) | ((1 << (bits - 8)) - 1)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.repeat(deep[..., None], channels, -1))
    assert read_image(tmp_path / f"a.{suffix}").tolist() == [EIGHT_BITS.tolist()] * 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [12, 16])
def test_a_tiff_of_one_plane_after_the_other(tmp_path, bits, order):
    """Equality with the same picture in 8 bits, of a file as microscopes write them; Pillow reads each half of a number
    as a pixel."""
    (height, width), values, size = EIGHT_BITS.shape, EIGHT_BITS.astype(f"{order}u2") << (bits - 8), 2 * EIGHT_BITS.size
    planes = b"".join(plane.astype(f"{order}u2").tobytes() for plane in (values, values // 2, values))
    tags = {256: [width], 257: [height], 258: [16] * 3, 259: [1], 262: [2], 273: [8, 8 + size, 8 + 2 * size]}
    tags |= {277: [3], 278: [height], 279: [size] * 3, 284: [2]}
    after = 8 + len(planes) + 2 + 12 * len(tags) + 4  # where numbers stand that do not fit in their entry
    directory, rest = struct.pack(f"{order}H", len(tags)), b""
    for tag, numbers in tags.items():
        packed = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(packed) > 4:
            packed, rest = struct.pack(f"{order}I", after + len(rest)), rest + packed
        directory += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(planes))
    (tmp_path / "a.tif").write_bytes(head + planes + directory + bytes(4) + rest)
    expected = [EIGHT_BITS.tolist(), (values // 2 >> (bits - 8)).tolist(), EIGHT_BITS.tolist()]
    assert read_image(tmp_path / "a.tif").tolist() == expected


def test_fractions_are_no_classes(tmp_path):
    """Error: a mask of 32-bit floats, which is neither coloured nor transparent."""
    Image.fromarray(np.array([[0, 1]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif has fractions \(mode F\)"):
        read_class_indices(tmp_path / "a.tif")


def test_a_dark_picture_whose_depth_is_told(tmp_path):
    """Derived by hand: values end at 900, but the TIFF says they may reach 4095: 12 bits, not 10."""
    pixels = Image.fromarray(np.array([[0, 900]], np.uint16))
    pixels.save(tmp_path / "told.tif", tiffinfo={281: 4095})
    pixels.save(tmp_path / "untold.tif")
    assert read_image(tmp_path / "told.tif")[0].tolist() == [[0, 900 >> 4]]
    assert read_image(tmp_path / "untold.tif")[0].tolist() == [[0, 900 >> 2]]


def test_the_depth_is_said_once(tmp_path, caplog, monkeypatch):
    """A folder of 12 bits is one line; a black picture, and one of all 16 bits, are none."""
    monkeypatch.setattr(images, "_said", set())
    for name, most in (("a", 4095), ("b", 3000), ("black", 0), ("bright", 65535)):
        Image.fromarray(np.array([[0, most]], np.uint16)).save(tmp_path / f"{name}.png")
        read_image(tmp_path / f"{name}.png")
    assert [record.args for record in caplog.records] == [(tmp_path / "a.png", 12)]


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (Image.new("1", (1, 1), 1), "png", (255, 255, 255)),
        (Image.new("LA", (1, 1), (99, 0)), "png", (99, 99, 99)),
        (Image.new("RGBA", (1, 1), (10, 20, 30, 0)), "png", (10, 20, 30)),
        (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "tif", (255, 0, 0)),
    ],
    ids=["black and white", "grey with alpha", "transparent", "CMYK"],
)
def test_modes(tmp_path, image, suffix, expected):
    """Derived by hand: what a viewer shows of each kind of pixel; of a transparent one the colour that it has."""
    image.save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}").flatten().tolist() == list(expected)


def test_colours_that_pillow_does_not_convert(tmp_path):
    """Error: what to do."""
    Image.new("LAB", (2, 2)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif has L\*a\*b\* colours; save it as RGB"):
        read_image(tmp_path / "a.tif")


def test_a_palette_with_transparency(tmp_path, recwarn):
    """Its colours, and no warning of Pillow's."""
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=b"\xff\x00")
    assert read_image(tmp_path / "a.png").flatten().tolist() == [10, 20, 30] and not recwarn


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("kept", [0, 20, 0.5])
def test_truncated_files_are_named(tmp_path, suffix, kept):
    """Error: a file cut to nothing, within its header and half way is one clear line that names it."""
    path = tmp_path / f"cut.{suffix}"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if kept == 0.5 else kept])
    for read in (read_image, read_segment_ids):
        with pytest.raises(UserError, match=rf"cut\.{suffix} cannot be read as an image") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path):
    """Error: no such file; a folder in its place."""
    with pytest.raises(UserError, match=r"nothing\.jpg: there is no such image file"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(UserError, match="is a folder, not an image file"):
        read_image(tmp_path)
