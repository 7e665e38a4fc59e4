"""Draws the data set of docs/custom_data.md: balls and boxes before a wall, in the forms that it describes.

    python tests/support/draw_shelf.py

writes shelf/ into the current folder: 40 training and 8 validation pictures.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sam_common.masks.rle import encode_mask

SIZE = (256, 192)
CLASSES = {1: ("ball", "red"), 2: ("box", "blue")}
CORNERS = {  # of an outline, as parts of its side; a ball has eight
    1: [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)],
    2: [(0, 0), (1, 0), (1, 1), (0, 1)],
}


def draw_shelf(root: Path, *, train: int, val: int) -> None:
    """Pictures, label maps, the lists of classes, and two JSON files a split, of instances and of whole things."""
    source = random.Random(0)
    for split, count in (("train", train), ("val", val)):
        images, annotations, whole = [], [], []
        for number in range(count):
            picture, labels = Image.new("RGB", SIZE, "tan"), Image.new("L", SIZE, 0)
            for _ in range(3):
                annotation = _draw_thing(source, picture, labels)
                annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0} | annotation)
            whole += _whole_things(annotations[-3:])
            for kind, image, ending in (("images", picture, "jpg"), ("labels", labels, "png")):
                path = root / kind / split / f"{number:03}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
            images.append({"id": number, "file_name": f"{number:03}.jpg", "width": SIZE[0], "height": SIZE[1]})
        categories = [{"id": key, "name": name} for key, (name, _) in CLASSES.items()]
        for name, entries in ((split, annotations), (f"{split}_amodal", whole)):
            content = {"images": images, "annotations": entries, "categories": categories}
            (root / f"{name}.json").write_text(json.dumps(content))
    (root / "classes.txt").write_text("wall:stuff\nball|disc\nbox|carton\n")
    (root / "parts.txt").write_text("ball\nbox\n")


def _draw_thing(source: random.Random, picture: Image.Image, labels: Image.Image) -> dict:
    """Draws one thing over what is there; its entry in `annotations`. What covers it later is not taken off."""
    category, side = source.choice(list(CLASSES)), source.randint(40, 80)
    x, y = source.randint(0, SIZE[0] - side), source.randint(0, SIZE[1] - side)
    outline = [(x + side * right, y + side * down) for right, down in CORNERS[category]]
    ImageDraw.Draw(picture).polygon(outline, fill=CLASSES[category][1])
    ImageDraw.Draw(labels).polygon(outline, fill=category)
    polygon = [value for point in outline for value in point]
    return {"category_id": category, "bbox": [x, y, side, side], "segmentation": [polygon]}


def _whole_things(annotations: list[dict]) -> list[dict]:
    """The things of one picture with two masks, the whole and what later ones leave of it; what is gone is none."""
    masks = []
    for annotation in annotations:
        layer = Image.new("L", SIZE)
        ImageDraw.Draw(layer).polygon(annotation["segmentation"][0], fill=1)
        masks.append(np.array(layer, bool))
    things = []
    for place, annotation in enumerate(annotations):
        covered = np.any(masks[place + 1 :], axis=0) if place + 1 < len(masks) else np.zeros_like(masks[place])
        visible = masks[place] & ~covered
        if visible.any():
            kept = {key: annotation[key] for key in ("id", "image_id", "category_id")}
            things.append(
                kept | {"segmentation": encode_mask(masks[place]), "visible_segmentation": encode_mask(visible)}
            )
    return things


if __name__ == "__main__":
    draw_shelf(Path("shelf"), train=40, val=8)
