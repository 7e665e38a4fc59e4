"""A scene of the generated world: textured things that occlude each other, over wavy bands of stuff.

`generate_scene` is a function of its arguments alone: the same seed and index give the same bytes. A scene keeps what
a picture hides (the whole mask of each thing, the order of the stack), so every annotation format needs only a writer.
Symbols: S the side of the picture in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sam_common.data.generated.textures import STUFF_TEXTURES, FloatArray, smooth_noise, thing_texture
from sam_common.data.generated.vocabulary import world_vocabulary
from sam_common.structures import Vocabulary

BoolArray = NDArray[np.bool_]

_RADIUS = (0.10, 0.21)  # of the side
_THINGS = (2, 6)
_BANDS = (1, 3)
_OCCLUDES = 0.7  # how often a thing is put onto an earlier one: half of all things end up occluded
_MIN_VISIBLE = 0.4  # of its area; what would hide more of an earlier thing is put elsewhere
_MAX_OUTREACH = 1.15  # the point of a shape that is farthest from its centre, in radii
_ATTEMPTS = 12


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing of a scene.

    Attributes:
        category: index into the scene's vocabulary.
        whole: [S, S] bool, the whole thing, hidden parts included.
        visible: [S, S] bool, the part that nothing above it covers.
    """

    category: int
    whole: BoolArray
    visible: BoolArray


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and everything that is known about it.

    Attributes:
        image: [S, S, 3] uint8, RGB.
        things: from the bottom of the stack to its top.
        stuff: [S, S] int64, the stuff everywhere, behind things too: indices into the vocabulary.
        vocabulary: the classes this scene was drawn from.
    """

    image: NDArray[np.uint8]
    things: tuple[Thing, ...]
    stuff: NDArray[np.int64]
    vocabulary: Vocabulary

    def segments(self) -> Iterator[tuple[int, BoolArray]]:
        """Yields (category, visible mask [S, S]) of every thing, then of every stuff region: each pixel is in one."""
        background = np.ones(self.stuff.shape, bool)
        for thing in self.things:
            background &= ~thing.visible
            yield thing.category, thing.visible
        for category in np.unique(self.stuff[background]):
            yield int(category), background & (self.stuff == category)


@dataclass(frozen=True)
class _Pose:
    """Where a shape lies: centre (x, y) and radius in sides of the picture, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


def generate_scene(seed: int, index: int, *, size: int = 256, categories: Vocabulary | None = None) -> Scene:
    """Draws scene number `index` of the world `seed`.

    Args:
        seed: of the world.
        index: of the scene in it.
        size: S, pixels.
        categories: classes of `world_vocabulary()` that may appear, at least one thing and one stuff; default: all.
    """
    vocabulary = world_vocabulary() if categories is None else categories
    rng = np.random.default_rng([seed, index])
    stuff_ids = [i for i, category in enumerate(vocabulary) if not category.is_thing]
    thing_ids = [i for i, category in enumerate(vocabulary) if category.is_thing]

    canvas, stuff = _draw_bands(rng, size, vocabulary, stuff_ids)
    light = rng.uniform(0, 2 * np.pi)
    whole: list[BoolArray] = []
    visible: list[BoolArray] = []
    poses: list[_Pose] = []
    drawn: list[int] = []
    for _ in range(rng.integers(_THINGS[0], _THINGS[1] + 1)):
        category = int(rng.choice(thing_ids))
        pattern, colour, shape = vocabulary[category].name.split()
        placed = _place(rng, size, shape, poses, whole, visible)
        if placed is None:
            continue
        pose, alpha = placed
        _paint(rng, canvas, alpha, pose, shape, (pattern, colour), light)
        mask = alpha >= 128
        visible = [earlier & ~mask for earlier in visible]
        whole, visible = [*whole, mask], [*visible, mask]
        poses.append(pose)
        drawn.append(category)
    things = tuple(Thing(*parts) for parts in zip(drawn, whole, visible, strict=True))
    return Scene(_develop(rng, canvas), things, stuff, vocabulary)


def _draw_bands(
    rng: np.random.Generator, size: int, vocabulary: Vocabulary, stuff_ids: list[int]
) -> tuple[FloatArray, NDArray[np.int64]]:
    """One to three wavy bands, each another stuff: canvas [S, S, 3] and class map [S, S]. Sky is above the others."""
    count = min(int(rng.integers(_BANDS[0], _BANDS[1] + 1)), len(stuff_ids))
    chosen = [int(i) for i in rng.permutation(stuff_ids)[:count]]
    chosen.sort(key=lambda i: vocabulary[i].name != "sky")
    x = (np.arange(size, dtype=np.float32) + 0.5) / size
    y = x[:, None]
    canvas = STUFF_TEXTURES[vocabulary[chosen[0]].name](rng, size)
    stuff = np.full((size, size), chosen[0], np.int64)
    for band, category in enumerate(chosen[1:], start=1):
        level = band / count + rng.uniform(-0.08, 0.08) + rng.uniform(-0.15, 0.15) * (x - 0.5)
        waves = rng.uniform(0.01, 0.035) * np.sin(2 * np.pi * (x * rng.uniform(0.8, 2.5) + rng.random()))
        below = y > level + waves
        cv2.copyTo(STUFF_TEXTURES[vocabulary[category].name](rng, size), below.astype(np.uint8), canvas)
        stuff[below] = category
    return canvas, stuff


def _place(
    rng: np.random.Generator,
    size: int,
    shape: str,
    poses: list[_Pose],
    whole: list[BoolArray],
    visible: list[BoolArray],
) -> tuple[_Pose, NDArray[np.uint8]] | None:
    """A pose inside the picture that leaves every earlier thing `_MIN_VISIBLE`, and its coverage [S, S] 0..255.

    None where `_ATTEMPTS` draws found no such place.
    """
    for _ in range(_ATTEMPTS):
        radius, angle = rng.uniform(*_RADIUS), rng.uniform(0, 2 * np.pi)
        margin = radius * _MAX_OUTREACH + 0.01
        onto = poses and rng.random() < _OCCLUDES
        if onto:
            host = poses[rng.integers(len(poses))]
            direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.85) * (host.radius + radius)
            x, y = host.x + distance * np.cos(direction), host.y + distance * np.sin(direction)
        else:
            x, y = rng.uniform(margin, 1 - margin, 2)
        if not (margin <= x <= 1 - margin and margin <= y <= 1 - margin):
            continue
        pose = _Pose(float(x), float(y), float(radius), float(angle))
        alpha = _rasterise(size, shape, pose)
        clear = alpha < 128
        kept = [_share(now & clear, area) for area, now in zip(whole, visible, strict=True)]
        if all(share >= _MIN_VISIBLE for share in kept) and (onto or _is_apart(pose, poses)):
            return pose, alpha
    return None


def _share(part: BoolArray, whole: BoolArray) -> float:
    return np.count_nonzero(part) / np.count_nonzero(whole)


def _is_apart(pose: _Pose, poses: list[_Pose]) -> bool:
    return all(np.hypot(pose.x - other.x, pose.y - other.y) > 1.05 * (pose.radius + other.radius) for other in poses)


def _regular(corners: int, outer: float, inner: float | None = None) -> FloatArray:
    """[N, 2]: a regular polygon, or a star where the corners alternate between two radii."""
    radii = np.tile([outer] if inner is None else [outer, inner], corners)
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii) - np.pi / 2
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1).astype(np.float32)


def _cross(arm: float, half_width: float) -> FloatArray:
    quarter = np.array([[half_width, -arm], [half_width, -half_width], [arm, -half_width]])
    corners = []
    for turn in range(4):
        cos, sin = np.cos(turn * np.pi / 2), np.sin(turn * np.pi / 2)
        corners.append(quarter @ np.array([[cos, sin], [-sin, cos]]))
    return np.concatenate(corners).astype(np.float32)


# Outlines in units of the radius; a second outline is a hole.
_OUTLINES: dict[str, tuple[FloatArray, ...]] = {
    "circle": (_regular(64, 1.0),),
    "square": (_regular(4, 1.15),),
    "triangle": (_regular(3, 1.15),),
    "star": (_regular(5, 1.15, 0.52),),
    "cross": (_cross(1.05, 0.36),),
    "ring": (_regular(64, 1.0), _regular(64, 0.52)),
}


def _contours(size: int, shape: str, pose: _Pose) -> list[NDArray[np.int32]]:
    """The outlines in OpenCV's fixed point (4 fractional bits), pixel centres at integers."""
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    turn = np.array([[cos, sin], [-sin, cos]]) * pose.radius
    centred = (outline @ turn + (pose.x, pose.y) for outline in _OUTLINES[shape])
    return [np.round((points * size - 0.5) * 16).astype(np.int32) for points in centred]


def _rasterise(size: int, shape: str, pose: _Pose) -> NDArray[np.uint8]:
    """[S, S]: how much of each pixel the shape covers, 0..255."""
    alpha = np.zeros((size, size), np.uint8)
    cv2.fillPoly(alpha, _contours(size, shape, pose), 255, cv2.LINE_AA, shift=4)
    return alpha


def _paint(
    rng: np.random.Generator,
    canvas: FloatArray,
    alpha: NDArray[np.uint8],
    pose: _Pose,
    shape: str,
    texture: tuple[str, str],
    light: float,
) -> None:
    """Draws one thing in place: its soft shadow, its texture lit from one side, and a dark rim."""
    size = len(canvas)
    reach = pose.radius * _MAX_OUTREACH + 0.04
    rows, columns = (
        slice(max(0, int((centre - reach) * size)), int(np.ceil((centre + reach) * size)) + 1)
        for centre in (pose.y, pose.x)
    )
    window = canvas[rows, columns]
    y, x = np.mgrid[rows, columns][:, : window.shape[0], : window.shape[1]].astype(np.float32)
    dx, dy = ((x + 0.5) / size - pose.x) / pose.radius, ((y + 0.5) / size - pose.y) / pose.radius

    fall = 0.014 * size
    drop = np.array([[1, 0, -np.cos(light) * fall], [0, 1, -np.sin(light) * fall]], np.float32)
    cover = alpha[rows, columns]
    shadow = cv2.GaussianBlur(cv2.warpAffine(cover, drop, cover.shape[::-1]), (0, 0), 0.012 * size)
    window *= cv2.merge([1 - shadow * np.float32(0.4 / 255)] * 3)

    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    paint = thing_texture(rng, *texture, dx * cos + dy * sin, dy * cos - dx * sin)
    shade = 1 + 0.16 * (dx * np.float32(np.cos(light)) + dy * np.float32(np.sin(light)))
    rim = np.zeros_like(cover)
    corner = np.array([columns.start, rows.start], np.int32) * 16
    contours = [points - corner for points in _contours(size, shape, pose)]
    cv2.polylines(rim, contours, True, 255, max(1, round(0.008 * size)), cv2.LINE_AA, shift=4)
    paint *= cv2.merge([shade * (1 - rim * np.float32(0.55 / 255))] * 3)

    window += (paint - window) * cv2.merge([cover * np.float32(1 / 255)] * 3)


def _develop(rng: np.random.Generator, canvas: FloatArray) -> NDArray[np.uint8]:
    """Exposure, tint, uneven light and grain: [S, S, 3] uint8."""
    size = len(canvas)
    gains = (rng.uniform(0.88, 1.08) * rng.uniform(0.96, 1.04, 3)).tolist()
    light = 1 + 0.08 * smooth_noise(rng, size, 2, 2)
    grain = rng.standard_normal((size, size), dtype=np.float32) * np.float32(rng.uniform(2, 6))
    channels = [plane * (light * gain) + grain for plane, gain in zip(cv2.split(canvas), gains, strict=True)]
    return np.clip(cv2.merge(channels), 0, 255).astype(np.uint8)
