"""Which files keep the values of their pixels: by content, whatever they are called."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from sam_common.errors import UserError
from sam_common.io.lossy import lossy_format

ALPHA = Image.new("RGBA", (8, 8), (1, 2, 3, 4))
CASES: dict[str, tuple[Image.Image, str, dict[str, Any], str]] = {
    "PNG": (Image.new("L", (8, 8)), "PNG", {}, ""),
    "BMP": (Image.new("L", (8, 8)), "BMP", {}, ""),
    "GIF": (Image.new("P", (8, 8)), "GIF", {}, ""),
    "TIFF": (Image.new("I;16", (8, 8)), "TIFF", {"compression": "tiff_deflate"}, ""),
    "TIFF of JPEGs": (Image.new("L", (8, 8)), "TIFF", {"compression": "jpeg"}, "TIFF with lossy compression"),
    "JPEG": (Image.new("L", (8, 8)), "JPEG", {}, "JPEG"),
    "JPEG 2000": (Image.new("L", (8, 8)), "JPEG2000", {}, "JPEG 2000"),
    "WebP": (Image.new("RGB", (8, 8)), "WEBP", {"quality": 90}, "lossy WebP"),
    "WebP with alpha": (ALPHA, "WEBP", {"quality": 90}, "lossy WebP"),
    "WebP with metadata": (Image.new("RGB", (8, 8)), "WEBP", {"exif": b"Exif\0\0" + bytes(9)}, "lossy WebP"),
    "moving WebP": (ALPHA, "WEBP", {"save_all": True, "append_images": [Image.new("RGBA", (8, 8))]}, "lossy WebP"),
    "lossless WebP": (Image.new("RGB", (8, 8)), "WEBP", {"lossless": True}, ""),
    "lossless WebP with alpha": (ALPHA, "WEBP", {"lossless": True, "exif": b"Exif\0\0" + bytes(9)}, ""),
}


@pytest.mark.parametrize(("image", "kind", "options", "lossy"), CASES.values(), ids=CASES)
def test_formats(tmp_path: Path, image: Image.Image, kind: str, options: dict[str, Any], lossy: str) -> None:
    """Case table: what Pillow writes, under a name that says otherwise."""
    needed = {"WEBP": "webp", "JPEG2000": "jpg_2000"}.get(kind)
    if needed and not features.check(needed):
        pytest.skip(f"Pillow without {needed}")
    content = io.BytesIO()
    image.save(content, kind, **options)
    (tmp_path / "a.png").write_bytes(content.getvalue())
    assert lossy_format(tmp_path / "a.png") == lossy


@pytest.mark.parametrize("case", CASES)
def test_damaged_files(tmp_path: Path, case: str) -> None:
    """Edge case: a file cut at any of its first bytes, or of noise behind them, is no error: its reader will tell."""
    image, kind, options, _ = CASES[case]
    content = io.BytesIO()
    image.save(content, kind, **options)
    noise = np.random.default_rng(0)
    for length in range(64):
        tail = noise.bytes(40) if length % 2 else b""
        (tmp_path / "a").write_bytes(content.getvalue()[:length] + tail)
        lossy_format(tmp_path / "a")


def test_no_file(tmp_path: Path) -> None:
    """Error: one line with the path."""
    with pytest.raises(UserError, match="nowhere"):
        lossy_format(tmp_path / "nowhere")
