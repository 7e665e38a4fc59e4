"""Writes generated scenes as data sets in the official formats.

Per split: `images/{split}/*.jpg`; COCO panoptic as `panoptic_{split}.json` and `panoptic_{split}/*.png` (the format of
https://cocodataset.org/#format-data: a pixel's segment id is R + 256 G + 65536 B); and `scenes_{split}.json`, which
keeps what the panoptic format cannot hold: whole and visible masks of things as COCO RLE, the order of the stack, and
the stuff behind the things.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sam_common.data.generated.scene import Scene, generate_scene
from sam_common.errors import UserError
from sam_common.io.files import write_text
from sam_common.masks.rle import area_and_box, encode_mask
from sam_common.structures import Vocabulary

WORLD_VERSION = 2  # to be raised when the same seed starts to draw other scenes, or its files change


@dataclass(frozen=True)
class Split:
    """One split of a generated data set: scenes first_index, …, first_index + count - 1 of the world `seed`."""

    root: Path
    name: str
    seed: int
    first_index: int
    count: int
    size: int
    categories: Vocabulary

    @property
    def info(self) -> dict[str, Any]:
        """What the JSON says of its origin; equal in two splits only if their scenes are."""
        return {
            "description": "generated scenes: textured things that occlude each other, over stuff",
            "version": WORLD_VERSION,
            "seed": self.seed,
            "first_index": self.first_index,
            "count": self.count,
            "size": self.size,
        }

    def image_path(self, index: int) -> Path:
        return self.root / "images" / self.name / f"{index:08d}.jpg"

    def panoptic_path(self, index: int) -> Path:
        return self.root / f"panoptic_{self.name}" / f"{index:08d}.png"

    @property
    def panoptic_json(self) -> Path:
        return self.root / f"panoptic_{self.name}.json"

    @property
    def scenes_json(self) -> Path:
        return self.root / f"scenes_{self.name}.json"

    @property
    def indices(self) -> range:
        return range(self.first_index, self.first_index + self.count)


def write_split(split: Split, workers: int) -> None:
    """Writes a split unless it is there, complete and with the same parameters.

    The panoptic JSON is written last and atomically: where it is, the scenes are complete.

    Raises:
        UserError: the folder cannot be written to.
    """
    if is_complete(split):
        return
    try:
        _draw_split(split, workers)
    except OSError as error:
        raise UserError(f"cannot write the generated data set to {split.root}: {error.strerror}") from error


def _draw_split(split: Split, workers: int) -> None:
    for path in (split.image_path(0), split.panoptic_path(0)):
        path.parent.mkdir(parents=True, exist_ok=True)
    split.panoptic_json.unlink(missing_ok=True)
    records = list(_write_scenes(split, workers))
    write_json(split.scenes_json, {"info": split.info, "scenes": [scene for _, _, scene in records]})
    categories = [
        {"id": c.id, "name": c.name, "synonyms": list(c.synonyms), "isthing": int(c.is_thing)} for c in split.categories
    ]
    images, annotations = [image for image, _, _ in records], [annotation for _, annotation, _ in records]
    content = {"info": split.info, "images": images, "annotations": annotations, "categories": categories}
    write_json(split.panoptic_json, content)


def read_info(path: Path) -> dict[str, Any] | None:
    """What a JSON of a split says of its origin; None where it cannot be read."""
    try:
        return json.loads(path.read_text()).get("info")
    except (OSError, ValueError):
        return None


def is_complete(split: Split) -> bool:
    """Whether the split was written with these parameters and none of its files is missing."""
    files = (split.scenes_json, *map(split.image_path, split.indices), *map(split.panoptic_path, split.indices))
    return read_info(split.panoptic_json) == split.info and all(file.is_file() for file in files)


def panoptic_annotation(scene: Scene, index: int) -> tuple[NDArray[np.int32], dict[str, Any]]:
    """Segment ids [S, S] and the COCO panoptic annotation of a scene; no pixel is void."""
    ids = np.zeros(scene.stuff.shape, np.int32)
    segments = []
    for place, (category, mask) in enumerate(scene.segments()):
        category_id = scene.vocabulary[category].id
        segment_id = _segment_id(category_id, place)
        ids[mask] = segment_id
        segments.append({"id": segment_id, "category_id": category_id, **area_and_box(mask), "iscrowd": 0})
    return ids, {"image_id": index, "file_name": f"{index:08d}.png", "segments_info": segments}


def _segment_id(category_id: int, place: int) -> int:
    """Unique in the image and never 0; spread over all three bytes, so that the PNG can be looked at."""
    red, green, blue = 37 * category_id % 256, 28 * place, 4 * category_id
    return red + 256 * green + 65536 * blue


def scene_record(scene: Scene, index: int) -> dict[str, Any]:
    """The masks that a picture hides, as COCO RLE; things from the bottom of the stack to its top."""
    things = [
        {
            "category_id": scene.vocabulary[thing.category].id,
            "whole": encode_mask(thing.whole),
            "visible": encode_mask(thing.visible),
        }
        for thing in scene.things
    ]
    stuff = [
        {"category_id": scene.vocabulary[category].id, "whole": encode_mask(scene.stuff == category)}
        for category in np.unique(scene.stuff)
    ]
    return {"image_id": index, "things": things, "stuff": stuff}


def _write_scenes(split: Split, workers: int) -> Iterator[tuple[dict, dict, dict]]:
    """Draws and writes all pictures; yields the entries of each for `images`, `annotations` and `scenes`."""

    def write(index: int) -> tuple[dict, dict, dict]:
        scene = generate_scene(split.seed, index, size=split.size, categories=split.categories)
        ids, annotation = panoptic_annotation(scene, index)
        picture = split.image_path(index)
        picture.write_bytes(_encode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, 95]))
        id_image = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        split.panoptic_path(index).write_bytes(_encode(".png", id_image, []))
        image = {"id": index, "file_name": picture.name, "height": split.size, "width": split.size}
        return image, annotation, scene_record(scene, index)

    with ThreadPoolExecutor(workers) as pool:
        yield from tqdm(pool.map(write, split.indices), f"generated {split.name}", split.count, unit=" scenes")


def _encode(extension: str, rgb: NDArray[np.uint8], options: list[int]) -> bytes:
    return cv2.imencode(extension, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Raises UserError where the folder cannot be written to."""
    write_text(path, json.dumps(content, separators=(",", ":")))
