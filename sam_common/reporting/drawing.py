"""Draws a panoptic prediction over its image: tinted masks, contours, and words that can be read at any image size.

Symbols: H and W the height and width of the drawn picture. Pictures are uint8 RGB [H, W, 3], id maps int [H, W], points
(x, y) and boxes (x0, y0, x1, y1) in pixels. `supervision` paints the masks; the words are set here, because they need
a font that scales and places that do not collide.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import supervision as sv
from PIL import Image, ImageDraw, ImageFont

from sam_common.structures import Vocabulary

_SMALL_SIDE = 480  # an image whose longer side is shorter than this is enlarged before it is drawn on
_LARGE_SIDE = 4096  # one whose longer side is longer than this is drawn at this size: it is to be looked at
_GRID_SIDE = 800  # places for words are searched on a map whose longer side is at most this
_GOLDEN = 0.618034  # its multiples modulo 1 spread evenly: successive instances get distant hues

RGB = tuple[int, int, int]
Box = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Label:
    """A word in its box. `anchor` is where its leader line ends; None where the word is at its segment."""

    text: str
    box: Box
    anchor: tuple[int, int] | None


def segment_color(name: str, is_thing: bool, instance: int = 0) -> RGB:
    """The colour of the `instance`-th segment of a class in any picture: vivid for things, muted for stuff."""
    hue = zlib.crc32(name.encode()) / 2**32 + instance * _GOLDEN
    if not is_thing:
        return _oklch(0.70, 0.08, hue)
    return _oklch((0.72, 0.62, 0.80)[instance % 3], 0.17, hue)


def instance_color(index: int) -> RGB:
    """A colour for the `index`-th object of a picture without classes: vivid, far from those just before it."""
    return _oklch((0.72, 0.62, 0.80)[index % 3], 0.17, 0.02 + index * _GOLDEN)


def drawn_size(height: int, width: int) -> tuple[int, int]:
    """The size at which an image is drawn: small ones times a whole number, the longer side of large ones 4096."""
    longer = max(height, width)
    if longer > _LARGE_SIDE:
        return max(1, height * _LARGE_SIDE // longer), max(1, width * _LARGE_SIDE // longer)
    scale = max(1, math.ceil(_SMALL_SIDE / longer))
    return height * scale, width * scale


def draw_panoptic(
    image: np.ndarray,
    panoptic: np.ndarray,
    segments_info: Sequence[Any],
    vocabulary: Vocabulary,
    *,
    letters: float = 1.0,
) -> np.ndarray:
    """The image under its segments and their words.

    Args:
        image: [h, w, 3] uint8 RGB.
        panoptic: [h, w] int, the id of the segment at each pixel; an id that `segments_info` lacks stays undrawn.
        segments_info: dicts with `id` and `category_id`, an index into `vocabulary`.
        vocabulary: gives each segment its word and says whether it is a thing.
        letters: size of the words; 1 reads well where the picture fills a screen, more suits smaller display.

    Returns:
        [H, W, 3] uint8 RGB, (H, W) being (h, w) times a whole number: 1, or more if the image is small; less than 1 if
        its longer side exceeds 4096.
    """
    height, width = drawn_size(*panoptic.shape)
    canvas = image.copy()
    if height > panoptic.shape[0]:
        canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        panoptic = _enlarge(panoptic, height, width)
    elif height < panoptic.shape[0] or width < panoptic.shape[1]:
        canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        panoptic = cv2.resize(panoptic.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST)
    categories = {segment["id"]: vocabulary[segment["category_id"]] for segment in segments_info}
    counts: Counter[str] = Counter()
    colors: dict[int, RGB] = {}
    for segment_id, category in categories.items():
        colors[segment_id] = segment_color(category.name, category.is_thing, counts[category.name])
        counts[category.name] += 1
    # Stuff first, so that the contours of things stay whole.
    for segment_id in sorted(categories, key=lambda segment_id: categories[segment_id].is_thing):
        opacity = 0.5 if categories[segment_id].is_thing else 0.4
        canvas = _paint(canvas, panoptic == segment_id, colors[segment_id], opacity)
    words = {segment_id: category.name for segment_id, category in categories.items()}
    return write_words(canvas, panoptic, words, colors, letters=letters)


def write_words(
    canvas: np.ndarray, ids: np.ndarray, words: dict[int, str], colors: dict[int, RGB], *, letters: float = 1.0
) -> np.ndarray:
    """The picture [H, W, 3] with the word of each id of a map [H, W], placed by `place_labels`."""
    font = _font(ids.shape[0], ids.shape[1], letters)
    return _write(canvas, place_labels(ids, words, font), colors, font)


def place_labels(panoptic: np.ndarray, words: dict[int, str], font: Font | None = None) -> dict[int, Label]:
    """Finds a place for the word of each segment: on the segment where it has room, else just above it.

    Segments choose from the smallest to the largest, because a large one has more places to give up. A place is free if
    the box lies inside the picture and meets no box placed before; only where none is left may boxes overlap.

    Args:
        panoptic: [H, W] id map of the picture that is drawn on.
        words: segment id -> word.
        font: what they will be written in; by default one that suits the picture's size.

    Returns:
        Segment id -> label, for each id that the map holds.
    """
    height, width = panoptic.shape
    font = font or _font(height, width)
    step = math.ceil(max(height, width) / _GRID_SIDE)
    grid = panoptic[::step, ::step]
    ids, areas = np.unique(grid, return_counts=True)
    labels: dict[int, Label] = {}
    taken: list[Box] = []
    for _, segment_id in sorted((area, int(i)) for i, area in zip(ids, areas, strict=True) if int(i) in words):
        text, (box_width, box_height) = _fit(words[segment_id], font, width, height)
        mask = grid == segment_id
        # Rounded up to whole grid cells, a box that is free on the grid is free in the picture.
        cells = (-(-box_width // step), -(-box_height // step))
        x, y = _choose_corner(mask, cells, taken)
        taken.append((x, y, x + cells[0], y + cells[1]))
        left, top = min(x * step, width - box_width), min(y * step, height - box_height)
        anchor = None if _touches(mask, taken[-1]) else _deepest(mask, step)
        labels[segment_id] = Label(text, (left, top, left + box_width, top + box_height), anchor)
    return labels


def _choose_corner(mask: np.ndarray, size: tuple[int, int], taken: Sequence[Box]) -> tuple[int, int]:
    """The top left corner of a box of `size` (width, height) for the segment `mask`, on the grid."""
    height, width = mask.shape
    box_width, box_height = size
    inside = np.zeros(mask.shape, bool)  # corners that keep the box in the picture
    inside[: max(1, height - box_height + 1), : max(1, width - box_width + 1)] = True
    free = inside.copy()
    for x0, y0, x1, y1 in taken:
        free[max(0, y0 - box_height + 1) : y1, max(0, x0 - box_width + 1) : x1] = False
    if not free.any():
        free = inside
    left, top, segment_width, segment_height = cv2.boundingRect(mask.astype(np.uint8))
    ys, xs = np.nonzero(free)
    if segment_height >= 2 * box_height and segment_width >= 0.75 * box_width:  # room on the segment
        # How much of the box would lie on the segment; among equals, the deepest centre.
        sums = cv2.integral(mask.astype(np.uint8))
        ends = np.minimum(ys + box_height, height), np.minimum(xs + box_width, width)
        cover = (sums[ends] - sums[ys, ends[1]] - sums[ends[0], xs] + sums[ys, xs]) / (box_width * box_height)
        depth = _depth(mask)[(ys + ends[0] - 1) // 2, (xs + ends[1] - 1) // 2]
        best = int((cover + 0.5 * depth / depth.max(initial=1.0)).argmax())
    else:
        want_x, want_y = left + (segment_width - box_width) // 2, top - box_height - 1
        best = int(((xs - want_x) ** 2 + (ys - want_y) ** 2).argmin())
    return int(xs[best]), int(ys[best])


def _paint(canvas: np.ndarray, mask: np.ndarray, color: RGB, opacity: float) -> np.ndarray:
    if not mask.any():
        return canvas
    segment = sv.Detections(xyxy=sv.mask_to_xyxy(mask[None]), mask=mask[None])
    swapped = sv.Color(*color[::-1])  # supervision writes BGR, the canvas is RGB
    thickness = max(1, round(0.004 * math.sqrt(mask.size)))
    canvas = sv.MaskAnnotator(swapped, opacity, sv.ColorLookup.INDEX).annotate(canvas, segment)
    return sv.PolygonAnnotator(swapped, thickness, sv.ColorLookup.INDEX).annotate(canvas, segment)


def _write(canvas: np.ndarray, labels: dict[int, Label], colors: dict[int, RGB], font: Font) -> np.ndarray:
    line = max(1, round(0.0025 * math.sqrt(canvas.shape[0] * canvas.shape[1])))
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for segment_id, label in labels.items():  # all leaders first: none may cross a word
        if label.anchor is None:
            continue
        foot = _nearest_in_box(label.box, label.anchor)
        draw.line((foot, label.anchor), fill="black", width=3 * line)
        draw.line((foot, label.anchor), fill=colors[segment_id], width=line)
    for segment_id, label in labels.items():
        x0, y0, x1, y1 = label.box
        radius = (y1 - y0) // 4
        draw.rounded_rectangle(
            (x0, y0, x1 - 1, y1 - 1), radius, fill=(20, 20, 24), outline=colors[segment_id], width=line
        )
        draw.text(((x0 + x1) / 2, (y0 + y1) / 2), label.text, fill="white", font=font, anchor="mm")
    return np.asarray(picture)


def _font(height: int, width: int, letters: float = 1.0) -> Font:
    """Grows with the picture, and is never too small to read."""
    return ImageFont.load_default(size=max(12, round(letters * 0.026 * math.sqrt(height * width))))


def _fit(text: str, font: Font, width: int, height: int) -> tuple[str, tuple[int, int]]:
    """The word, shortened until it fits the picture's width, and the size (width, height) of its box."""
    line_height = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else 12
    padding = line_height // 3
    kept = len(text)
    shown = text
    while kept > 1 and font.getlength(shown) + 2 * padding > width:
        kept -= 1
        shown = text[:kept] + "…"
    box_width = min(width, math.ceil(font.getlength(shown)) + 2 * padding)
    return shown, (box_width, min(height, line_height + padding // 2))


def _enlarge(panoptic: np.ndarray, height: int, width: int) -> np.ndarray:
    """The id map at a larger size, the stairs of its borders smoothed; every pixel keeps one id."""
    large, best = np.zeros((height, width), panoptic.dtype), np.zeros((height, width), np.float32)
    for segment_id in np.unique(panoptic):
        soft = cv2.resize((panoptic == segment_id).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        large[soft > best] = segment_id
        best = np.maximum(best, soft)
    return large


def _depth(mask: np.ndarray) -> np.ndarray:
    """[H, W] distance of each pixel of the segment to its rim; the picture's border is a rim too."""
    return cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]


def _deepest(mask: np.ndarray, step: int) -> tuple[int, int]:
    """The point farthest from the segment's rim, in pixels of the picture whose `step`-th pixels make the mask."""
    depth = _depth(mask)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) * step, int(y) * step


def _touches(mask: np.ndarray, box: Box) -> bool:
    """Whether the box lies on the segment or within a third of the box's height from it."""
    x0, y0, x1, y1 = box
    near = (y1 - y0) // 3 + 1
    return bool(mask[max(0, y0 - near) : y1 + near, max(0, x0 - near) : x1 + near].any())


def _nearest_in_box(box: Box, point: tuple[int, int]) -> tuple[int, int]:
    x0, y0, x1, y1 = box
    return min(max(point[0], x0), x1), min(max(point[1], y0), y1)


def _oklch(lightness: float, chroma: float, hue: float) -> RGB:
    """Oklch to 8-bit sRGB, so that all hues look equally bright (Björn Ottosson, Oklab, 2020); hue in turns."""
    a, b = chroma * math.cos(math.tau * hue), chroma * math.sin(math.tau * hue)
    to_cone = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (to_rgb @ (to_cone @ (lightness, a, b)) ** 3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (int(channel) for channel in np.round(255 * encoded))
    return red, green, blue
