"""Reading pictures and id maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sam_common.data.images import read_image, read_segment_ids, write_segment_ids
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
    """Derived by hand: 0x12ff is 0x12; a picture of 32 bits has no known range and is refused."""
    Image.fromarray(np.array([[0, 0x12FF, 0xFFFF]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").tolist() == [[[0, 0x12, 0xFF]]] * 3
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match=r"float\.tif has pixels of 32 bits"):
        read_image(tmp_path / "float.tif")


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
