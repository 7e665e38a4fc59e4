"""The crop around an object, and what is said of it put back: PLUG looks at one object at a time.

The visible box is magnified ×2 about its centre, cut out of the image and resized to a square, aspect not kept. What an
object hides outside that window no crop can show; `cut_off` measures it.

Boxes are XYXY in pixels, continuous coordinates; a window is such a box with whole numbers, one that cuts no pixel.
[ours] The window is clipped to the image (`clip`); the alternative pads it with zeros.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from plug.structures import Window


def magnified_window(box: Tensor, image_size: tuple[int, int], *, scale: float = 2.0, clip: bool = True) -> Window:
    """The window of whole pixels that holds `box` magnified about its centre.

    Args:
        box: [4], of positive area, at least partly inside the image.
        image_size: (height, width).
        clip: keep the window inside the image.
    """
    x0, y0, x1, y1 = box.double().tolist()
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    half_width, half_height = scale * (x1 - x0) / 2, scale * (y1 - y0) / 2
    left, top = math.floor(centre_x - half_width), math.floor(centre_y - half_height)
    right, bottom = math.ceil(centre_x + half_width), math.ceil(centre_y + half_height)
    if not clip:
        return left, top, right, bottom
    return max(left, 0), max(top, 0), min(right, image_size[1]), min(bottom, image_size[0])


def cut_out(image: Tensor, window: Window) -> Tensor:
    """[..., H, W] -> the window of it [..., h, w], zero where the window reaches beyond the image."""
    left, top, right, bottom = window
    height, width = image.shape[-2:]
    inside = image[..., max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    beyond = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
    return F.pad(inside, beyond) if any(beyond) else inside


def crop(image: Tensor, window: Window, size: int) -> Tensor:
    """A window of an image as a square, bilinear: [C, H, W] float -> [C, size, size]."""
    return F.interpolate(cut_out(image, window)[None], (size, size), mode="bilinear", antialias=True)[0]


def to_crop(boxes: Tensor, window: Window, size: int) -> Tensor:
    """Boxes [..., 4] of the image in the coordinates of the crop, pixels of its square."""
    left, top, right, bottom = window
    origin = boxes.new_tensor([left, top, left, top])
    extent = boxes.new_tensor([right - left, bottom - top, right - left, bottom - top])
    return (boxes - origin) / extent * size


def uncrop(values: Tensor, window: Window) -> Tensor:
    """What was said of a crop, at the size of its window in the image: [..., size, size] -> [..., h, w], bilinear."""
    left, top, right, bottom = window
    return F.interpolate(values[None], (bottom - top, right - left), mode="bilinear")[0]


def cut_off(mask: Tensor, window: Window) -> Tensor:
    """How many pixels of a mask [H, W] lie outside the window: what no prediction from this crop can reach."""
    return mask.sum() - cut_out(mask, window).sum()
