"""A domain that the tiny SAM never met: luminous worms among specks, soft at their edges, on a dark slide.

One worm in each picture is the object. It fills little of its box, so the box itself is no good answer; the specks have
its light and lie in its box too, so brightness alone is none either. The pictures share no texture, outline or colour
with the scenes of `scene.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from amsam.data.image_masks import image_masks_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.generated.specs import FOLDER, with_command
from sam_common.data.generated.textures import FloatArray, smooth_noise
from sam_common.data.generated.writer import Split
from sam_common.io.files import atomic_path, write_text

_POINTS = 160  # along a worm
_VERSION = 1  # to be raised when the same seed starts to draw other worms
_SPLITS = {"train": (0, 32), "test": (1000, 50)}  # name -> first picture, and how many
_DOMAIN = 7  # keeps its random numbers apart from those of the scenes


def draw_worms(splits: Sequence[Split]) -> None:
    """Writes the pictures of worms beside those splits of the world, with their seed and size."""
    world = splits[0]
    for name, (first_index, count) in _SPLITS.items():
        folder = world.root / f"worms_{name}"
        write_worms(folder, seed=world.seed, first_index=first_index, count=count, size=world.size)


def worm_specs(root: Path) -> list[DatasetSpec]:
    """`generated_worms_train` and `generated_worms_test` under `root`/generated."""
    return [
        with_command(
            image_masks_spec(
                f"generated_worms_{name}",
                images=root / FOLDER / f"worms_{name}" / "images",
                masks=root / FOLDER / f"worms_{name}" / "masks",
            ),
            root,
        )
        for name in _SPLITS
    ]


def generate_worm(seed: int, index: int, *, size: int = 256) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draws picture number `index` of the domain `seed`, a function of its arguments alone.

    Returns:
        The picture, [size, size, 3] uint8 RGB, and the mask of its worm, [size, size] bool.
    """
    rng = np.random.default_rng([seed, index, _DOMAIN])
    hue = rng.uniform(0.25, 0.6)
    glow = np.array([0.55 + 0.4 * hue, 1.0, 0.5 + 0.6 * hue], np.float32)
    slide = 26 + 9 * smooth_noise(rng, size, 3, 3) + 4 * smooth_noise(rng, size, 40, 40)
    outline = _worm(rng, size)
    light = _soft(outline, size, 0.006) * (150 + 40 * smooth_noise(rng, size, 14, 14))
    specks = sum((_soft(_speck(rng, size), size, 0.005) for _ in range(rng.integers(10, 22))), np.zeros_like(slide))
    light += np.clip(specks, 0, 1) * (140 + 45 * smooth_noise(rng, size, 10, 10)) * (outline < 128)
    light = light + 0.35 * cv2.GaussianBlur(light, (0, 0), 0.03 * size)  # scattered in the slide
    grain = rng.standard_normal((size, size)).astype(np.float32) * 5
    channels = [slide + light * tint + grain for tint in glow]
    return np.clip(cv2.merge(channels), 0, 255).astype(np.uint8), outline >= 128


def write_worms(root: Path, *, seed: int, first_index: int, count: int, size: int = 256) -> None:
    """Writes `count` pictures as `root`/images/*.jpg with masks of 0 and 255 as `root`/masks/*.png.

    What is there already, complete and with the same parameters, is kept: `worms.json`, written last, tells.

    Raises:
        UserError: the folder cannot be written to.
    """
    info = json.dumps({"version": _VERSION, "seed": seed, "first_index": first_index, "count": count, "size": size})
    told = root / "worms.json"
    if told.is_file() and told.read_text(encoding="utf-8") == info:
        return
    told.unlink(missing_ok=True)
    for index in range(first_index, first_index + count):
        picture, mask = generate_worm(seed, index, size=size)
        files: list[tuple[Path, NDArray[Any]]] = [
            (root / "images" / f"{index:06d}.jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)),
            (root / "masks" / f"{index:06d}.png", mask.astype(np.uint8) * 255),
        ]
        for path, pixels in files:
            with atomic_path(path) as temporary:
                temporary.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    write_text(told, info)


def _worm(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """Coverage [size, size], 0..255, of a winding body that is thick in its middle."""
    t = np.linspace(0, 1, _POINTS)
    bends = sum(rng.uniform(-1, 1) * np.sin(np.pi * k * t + rng.uniform(0, 2 * np.pi)) * 2.4 / k for k in (1, 2, 3))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(bends) * 4.5 / _POINTS
    path = np.stack((np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading))), axis=1)
    path -= (path.min(0) + path.max(0)) / 2
    path *= rng.uniform(0.26, 0.4) / np.abs(path).max()  # of the side, to its farthest point
    margin = 0.07 + np.abs(path).max(0)
    path += rng.uniform(margin, 1 - margin)
    radius = rng.uniform(0.018, 0.034) * (0.45 + 0.55 * np.sin(np.pi * t))
    radius *= 1 + 0.12 * np.sin(22 * t + rng.uniform(0, 6))
    alpha = np.zeros((size, size), np.uint8)
    for (x, y), r in zip(path, radius, strict=True):
        _disc(alpha, x, y, r)
    return alpha


def _speck(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    alpha = np.zeros((size, size), np.uint8)
    x, y = rng.uniform(0.02, 0.98, 2)
    _disc(alpha, x, y, rng.uniform(0.01, 0.035))
    return alpha


def _disc(alpha: NDArray[np.uint8], x: float, y: float, radius: float) -> None:
    """Draws into coverage [S, S], in place; lengths are in sides."""
    fixed = [round((value * len(alpha) - 0.5) * 16) for value in (x, y)]
    cv2.circle(alpha, (fixed[0], fixed[1]), round(radius * len(alpha) * 16), 255, cv2.FILLED, cv2.LINE_AA, shift=4)


def _soft(alpha: NDArray[np.uint8], size: int, blur: float) -> FloatArray:
    """[size, size] float32 in 0..1."""
    return cv2.GaussianBlur(alpha, (0, 0), blur * size).astype(np.float32) / 255
