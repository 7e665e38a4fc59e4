"""Crop and paste: geometry in whole pixels, there and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plug.crop import crop, cut_off, cut_out, magnified_window, to_crop, uncrop
from plug.structures import put_back


def test_the_window_is_twice_the_box_about_its_centre() -> None:
    """By hand: a 10×20 box at (30, 40) becomes 20×40; a fractional one grows outwards to whole pixels."""
    assert magnified_window(torch.tensor([30.0, 40.0, 40.0, 60.0]), (200, 100)) == (25, 30, 45, 70)
    assert magnified_window(torch.tensor([30.3, 40.0, 40.1, 60.0]), (200, 100)) == (25, 30, 45, 70)


def test_at_the_border_it_is_clipped_or_padded() -> None:
    """Clipped, the window stays inside; padded, it keeps its size and the image is zero beyond its border."""
    box, image = torch.tensor([0.0, 0.0, 8.0, 8.0]), torch.ones(3, 20, 20)
    assert magnified_window(box, (20, 20)) == (0, 0, 12, 12)
    window = magnified_window(box, (20, 20), clip=False)
    assert window == (-4, -4, 12, 12)
    padded = cut_out(image, window)
    assert padded.shape == (3, 16, 16) and padded.sum() == 3 * 12 * 12 and not padded[:, :4].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 63), st.integers(0, 47), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_rectangle_comes_back_unmoved(x0: int, y0: int, width: int, height: int, clip: bool) -> None:
    """Cropping and pasting a box's own rectangle gives it back to the pixel, at any place and size."""
    size = (48, 64)
    x1, y1 = min(x0 + width, 64), min(y0 + height, 48)
    mask = torch.zeros(size)
    mask[y0:y1, x0:x1] = 1
    window = magnified_window(torch.tensor([x0, y0, x1, y1], dtype=torch.float32), size, clip=clip)
    back = put_back(uncrop(crop(mask[None], window, 256), window), window, size)[0]
    assert torch.equal(back > 0.5, mask > 0.5)


def test_boxes_move_with_the_crop() -> None:
    """The corners of the window become the corners of the square; a magnified box lies in its middle half."""
    box = torch.tensor([30.0, 40.0, 40.0, 60.0])
    window = magnified_window(box, (200, 100))
    torch.testing.assert_close(to_crop(torch.tensor(window).float(), window, 512), torch.tensor([0.0, 0, 512, 512]))
    torch.testing.assert_close(to_crop(box, window, 512), torch.tensor([128.0, 128, 384, 384]))


def test_a_window_is_put_back_where_it_was() -> None:
    """Inside, its values; outside, zeros; what a padded window holds beyond the image is cut off."""
    placed = put_back(uncrop(torch.full((1, 16, 16), 9.0), (2, 3, 6, 9)), (2, 3, 6, 9), (12, 12))[0]
    assert (placed != 0).sum() == 4 * 6 and (placed[3:9, 2:6] == 9).all()
    beyond = put_back(torch.arange(16).view(4, 4) + 1, (-2, -2, 2, 2), (3, 3))
    assert beyond.tolist() == [[11, 12, 0], [15, 16, 0], [0, 0, 0]]


@pytest.mark.parametrize(("window", "missed"), [((0, 0, 8, 8), 0), ((0, 0, 4, 8), 6 * 3), ((4, 4, 12, 12), 36 - 9)])
def test_what_no_crop_can_reach_is_counted(window: tuple[int, int, int, int], missed: int) -> None:
    """A 6×6 square at (1, 1)-(7, 7): by hand, the pixels that the window misses."""
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[1:7, 1:7] = True
    assert cut_off(mask, window) == missed
