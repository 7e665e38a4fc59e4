"""Draws whole objects over their image: the visible part tinted, the hidden part hatched inside a dashed contour.

Symbols: N objects; h and w the size of the image, H and W that of the drawn picture. Pictures are uint8 RGB, masks
bool, boxes XYXY in pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from sam_common.reporting.drawing import RGB, Box, drawn_size, instance_color, write_words

_DARK: RGB = (16, 16, 20)
_TINT = 0.45
_HATCH = 0.85


@dataclass(frozen=True)
class _Shape:
    """One object of the drawn picture, cut to the box (x0, y0, x1, y1) that holds it and its contour."""

    box: Box
    amodal: np.ndarray
    visible: np.ndarray
    color: RGB
    slope: int  # of its hatch, 1 or -1

    def of(self, picture: np.ndarray) -> np.ndarray:
        """The view of the picture [H, W, …] within the box."""
        x0, y0, x1, y1 = self.box
        return picture[y0:y1, x0:x1]


def draw_amodal(
    image: np.ndarray,
    amodal: Iterable[ArrayLike],
    visible: Iterable[ArrayLike],
    boxes: np.ndarray | None = None,
    words: Sequence[str] | None = None,
) -> np.ndarray:
    """The image under its objects, each in a colour of its own.

    What of an amodal mask is not visible is hatched; visible pixels outside the amodal mask are tinted all the same.
    Of each mask only its surroundings are kept, so a generator may make one after the other.

    Args:
        image: [h, w, 3] uint8 RGB.
        amodal: N masks [h, w], the whole objects.
        visible: N masks [h, w], what is seen of them.
        boxes: [N, 4], drawn thin where given.
        words: N words, written beside the objects; "" writes none.

    Returns:
        [H, W, 3] uint8 RGB: a small image enlarged by a whole number, one whose longer side exceeds 4096 at that size.
    """
    height, width = drawn_size(*image.shape[:2])
    line = max(1, round(0.003 * math.sqrt(height * width)))
    shapes = [
        _shape(index, *masks, size=(height, width), margin=4 * line)
        for index, masks in enumerate(zip(amodal, visible, strict=True))
    ]
    grows = height > image.shape[0]
    canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    # All tints, then all hatches, then all contours: what is hidden lies on the objects that hide it.
    for shape in shapes:
        _blend(shape.of(canvas), shape.visible, shape.color, _TINT)
    for shape in shapes:
        _hatch(shape, canvas, line)
    for shape in shapes:
        _outline(shape, canvas, line)
    if boxes is not None:
        corners = np.asarray(boxes, float) * np.tile((width / image.shape[1], height / image.shape[0]), 2)
        for shape, (x0, y0, x1, y1) in zip(shapes, corners.round().astype(int).tolist(), strict=True):
            cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), shape.color, max(1, line // 2), cv2.LINE_AA)
    return canvas if words is None else _write(canvas, shapes, words)


def _shape(index: int, amodal: ArrayLike, visible: ArrayLike, *, size: tuple[int, int], margin: int) -> _Shape:
    """The `index`-th object at the size (height, width) of the picture; neighbours in number are hatched crosswise."""
    both = [_resized(np.asarray(mask, np.uint8), size) for mask in (amodal, visible)]
    x, y, width, height = cv2.boundingRect(both[0] | both[1])
    box = (max(0, x - margin), max(0, y - margin), min(size[1], x + width + margin), min(size[0], y + height + margin))
    cut = [mask[box[1] : box[3], box[0] : box[2]].astype(bool) for mask in both]
    return _Shape(box, cut[0], cut[1], instance_color(index), 1 - 2 * (index % 2))


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask, 0 or 1, at another size, the stairs of an enlarged one smoothed."""
    if mask.shape == size:
        return mask
    return (cv2.resize(255 * mask, size[::-1], interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8)


def _blend(canvas: np.ndarray, mask: np.ndarray, color: RGB, opacity: float) -> None:
    canvas[mask] = ((1 - opacity) * canvas[mask] + opacity * np.array(color)).astype(np.uint8)


def _hatch(shape: _Shape, canvas: np.ndarray, line: int) -> None:
    """Diagonal lines of the object's colour, each with a dark one at its side: seen on any ground."""
    x0, y0, x1, y1 = shape.box
    place = (shape.slope * np.arange(y0, y1)[:, None] + np.arange(x0, x1)[None]) % (6 * line)
    hidden = shape.amodal & ~shape.visible
    _blend(shape.of(canvas), hidden & (place < 2 * line), shape.color, _HATCH)
    _blend(shape.of(canvas), hidden & (place >= 2 * line) & (place < 3 * line), _DARK, _TINT)


def _outline(shape: _Shape, canvas: np.ndarray, line: int) -> None:
    """A solid contour round what is visible, a dashed one round the rest of the object."""
    picture = np.ascontiguousarray(shape.of(canvas))
    whole, seen = _contours(shape.amodal), _contours(shape.visible)
    cv2.polylines(picture, [*whole, *seen], True, _DARK, line + 2, cv2.LINE_AA)
    for contour in whole:
        for dash in _dashes(contour[:, 0].astype(float), 6 * line):
            cv2.polylines(picture, [dash], False, shape.color, line, cv2.LINE_AA)
    cv2.polylines(picture, seen, True, shape.color, line, cv2.LINE_AA)
    shape.of(canvas)[:] = picture


def _contours(mask: np.ndarray) -> list[np.ndarray]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return list(contours)


def _dashes(points: np.ndarray, length: int) -> list[np.ndarray]:
    """Every other stretch of `length` pixels of a closed line [M, 2], as int32 lines."""
    steps = np.linalg.norm(np.diff(points, axis=0, append=points[:1]), axis=1)
    stretch = (np.concatenate(([0], steps.cumsum()[:-1])) // length).astype(int)
    lines = np.split(points, np.flatnonzero(np.diff(stretch)) + 1)
    return [line.round().astype(np.int32) for line in lines[::2]]


def _write(canvas: np.ndarray, shapes: Sequence[_Shape], words: Sequence[str]) -> np.ndarray:
    """Words at the visible parts, the smaller ones on top; at the whole of an object that is hidden altogether."""
    ids = np.zeros(canvas.shape[:2], np.int32)
    shown = [shape.visible if shape.visible.any() else shape.amodal for shape in shapes]
    for index in sorted(range(len(shapes)), key=lambda index: -int(shown[index].sum())):
        shapes[index].of(ids)[shown[index]] = index + 1
    texts = {index + 1: word for index, word in enumerate(words) if word}
    return write_words(canvas, ids, texts, {index + 1: shape.color for index, shape in enumerate(shapes)})
