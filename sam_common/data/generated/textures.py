"""Procedural textures: eight kinds of stuff and four patterns of things.

Colours are RGB, float32, 0..255. Every length is relative, so a scene looks the same at any size.
Symbols: H, W pixels of the texture; `rng` the generator every random draw comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]  # float32; OpenCV's stubs promise no type


def smooth_noise(rng: np.random.Generator, size: int, cells_y: float, cells_x: float) -> FloatArray:
    """[size, size] in -1..1: random values on a coarse grid of that many cells, interpolated bicubically."""
    grid = rng.random((round(cells_y) + 1, round(cells_x) + 1), dtype=np.float32) * 2 - 1
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def _coordinates(size: int) -> tuple[FloatArray, FloatArray]:
    """Pixel centres as a column y [size, 1] and a row x [1, size], both in 0..1."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size).astype(np.float32)
    return axis[:, None], axis[None, :]


def _blend(low: Sequence[float], high: Sequence[float], weight: FloatArray) -> FloatArray:
    """[H, W, 3]: `low` where the [H, W] weight is 0 or less, `high` where it is 1 or more."""
    weight = np.clip(weight, 0, 1)
    # Channel by channel: broadcasting over an inner axis of three is several times slower.
    return cv2.merge([start + (end - start) * weight for start, end in zip(low, high, strict=True)])


def _sky(rng: np.random.Generator, size: int) -> FloatArray:
    y, _ = _coordinates(size)
    clouds = smooth_noise(rng, size, 5, 3) + 0.5 * smooth_noise(rng, size, 12, 8)
    return _blend((128, 190, 240), (240, 247, 252), 0.45 * y + 0.7 * np.clip(clouds, 0, 1))


def _grass(rng: np.random.Generator, size: int) -> FloatArray:
    blades = smooth_noise(rng, size, 24, 110) + 0.6 * smooth_noise(rng, size, 50, 128)
    return _blend((58, 112, 40), (142, 188, 84), 0.5 + 0.35 * blades + 0.2 * smooth_noise(rng, size, 4, 4))


def _water(rng: np.random.Generator, size: int) -> FloatArray:
    y, _ = _coordinates(size)
    ripples = np.sin(2 * np.pi * (y * rng.uniform(12, 16) + 0.55 * smooth_noise(rng, size, 12, 5)))
    glints = np.clip(ripples + 0.5 * smooth_noise(rng, size, 40, 12) - 0.55, 0, 1)
    return _blend((26, 118, 138), (172, 226, 226), 0.28 + 0.14 * ripples + 0.7 * glints)


def _sand(rng: np.random.Generator, size: int) -> FloatArray:
    y, x = _coordinates(size)
    dunes = np.sin(2 * np.pi * (y * 7 + x * rng.uniform(-2, 2) + 0.6 * smooth_noise(rng, size, 3, 3)))
    grain = smooth_noise(rng, size, 128, 128)
    return _blend((206, 170, 112), (245, 220, 168), 0.5 + 0.22 * dunes + 0.25 * grain)


def _brick(rng: np.random.Generator, size: int) -> FloatArray:
    rows = rng.uniform(14, 18)
    y, x = _coordinates(size)
    v = y * rows + rng.random()
    row = np.floor(v).astype(int)
    u = x * rows / 2.2 + 0.5 * (row % 2) + rng.random()
    column = np.floor(u).astype(int)
    tone = rng.random((64, 64), dtype=np.float32)[row % 64, column % 64]
    bricks = _blend((140, 70, 52), (188, 108, 82), tone + 0.25 * smooth_noise(rng, size, 64, 64))
    mortar = (v - row < 0.14) | (u - column < 0.07)
    bricks[mortar] = (206, 196, 184)
    return bricks


def _gravel(rng: np.random.Generator, size: int) -> FloatArray:
    """Pebbles: Voronoi cells of random seeds, each with its own tone and dark gaps between them."""
    holes = np.full((size, size), 255, np.uint8)
    seeds = rng.integers(0, size, (650, 2))
    holes[seeds[:, 0], seeds[:, 1]] = 0
    distance, cell = cv2.distanceTransformWithLabels(holes, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_CCOMP)
    tone = rng.random(len(seeds) + 1, dtype=np.float32)[cell % len(seeds)]
    return _blend((62, 62, 66), (196, 194, 188), 0.35 + 0.65 * tone - (distance * (24 / size)) ** 2 * 0.5)


def _wood(rng: np.random.Generator, size: int) -> FloatArray:
    planks = rng.uniform(6, 8)
    y, _ = _coordinates(size)
    v = y * planks + rng.random()
    plank = np.floor(v).astype(int)
    tone = rng.random(16, dtype=np.float32)[plank % 16]
    grain = smooth_noise(rng, size, 110, 4) + 0.6 * smooth_noise(rng, size, 45, 6)
    boards = _blend((112, 72, 38), (192, 140, 86), 0.2 + 0.5 * tone + 0.28 * grain)
    boards[(v - plank < 0.07)[:, 0]] = (64, 40, 22)
    return boards


def _snow(rng: np.random.Generator, size: int) -> FloatArray:
    drifts = smooth_noise(rng, size, 5, 3) + 0.4 * smooth_noise(rng, size, 14, 9)
    sparkle = np.clip(smooth_noise(rng, size, 110, 110) - 0.6, 0, 1)
    return _blend((196, 206, 226), (252, 252, 255), 0.6 + 0.45 * drifts + sparkle)


STUFF_TEXTURES: dict[str, Callable[[np.random.Generator, int], FloatArray]] = {
    "sky": _sky,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "brick": _brick,
    "gravel": _gravel,
    "wood": _wood,
    "snow": _snow,
}
"""Name -> function (rng, size) -> [size, size, 3]."""


def _plain(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.zeros_like(u)


def _striped(u: FloatArray, v: FloatArray) -> FloatArray:
    return _step(np.sin(2 * np.pi * u / 0.5))


def _dotted(u: FloatArray, v: FloatArray) -> FloatArray:
    centred_u, centred_v = (np.mod(w, 0.5) - 0.25 for w in (u, v))
    return _step((0.15 - np.hypot(centred_u, centred_v)) * 12)


def _checkered(u: FloatArray, v: FloatArray) -> FloatArray:
    return _step(4 * np.sin(np.pi * u / 0.38) * np.sin(np.pi * v / 0.38))


def _step(level: FloatArray) -> FloatArray:
    """0 below zero and 1 above, with a soft edge so that patterns do not alias."""
    return np.clip(level * 2.5 + 0.5, 0, 1)


_PATTERN_FUNCTIONS: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
}
_PAINT = {"red": (214, 40, 50), "blue": (44, 74, 206)}
_SECOND_PAINT = {"plain": (0, 0, 0), "striped": (250, 246, 236), "dotted": (255, 214, 70), "checkered": (24, 22, 40)}


def thing_texture(rng: np.random.Generator, pattern: str, colour: str, u: FloatArray, v: FloatArray) -> FloatArray:
    """[H, W, 3]: the paint of one thing.

    Args:
        rng: gives the slight jitter of its paints and the phase of its pattern.
        pattern: one of `PATTERNS`.
        colour: one of `COLOURS`.
        u, v: [H, W], the thing's own turned coordinates in units of its radius.
    """
    paint = (np.array(_PAINT[colour]) + rng.uniform(-16, 16, 3)).tolist()
    second = (np.array(_SECOND_PAINT[pattern]) + rng.uniform(-10, 10, 3)).tolist()
    phase_u, phase_v = rng.uniform(0, 1, 2).tolist()
    return _blend(paint, second, _PATTERN_FUNCTIONS[pattern](u + phase_u, v + phase_v))
