"""Draws the data set of docs/custom_data.md: balls and boxes before a wall, as COCO instances and as label maps.

    python tests/datasets/draw_shelf.py

writes shelf/ into the current folder: 40 training and 8 validation pictures.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = (256, 192)
CLASSES = {1: ("ball", "red"), 2: ("box", "blue")}
CORNERS = {  # of an outline, as parts of its side; a ball has eight
    1: [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)],
    2: [(0, 0), (1, 0), (1, 1), (0, 1)],
}


def draw_shelf(root: Path, *, train: int, val: int) -> None:
    """Pictures, label maps, the two JSON files and the list of classes."""
    source = random.Random(0)
    for split, count in (("train", train), ("val", val)):
        images, annotations = [], []
        for number in range(count):
            picture, labels = Image.new("RGB", SIZE, "tan"), Image.new("L", SIZE, 0)
            for _ in range(3):
                annotation = _draw_thing(source, picture, labels)
                annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0} | annotation)
            for kind, image, ending in (("images", picture, "jpg"), ("labels", labels, "png")):
                path = root / kind / split / f"{number:03}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
            images.append({"id": number, "file_name": f"{number:03}.jpg", "width": SIZE[0], "height": SIZE[1]})
        categories = [{"id": key, "name": name} for key, (name, _) in CLASSES.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    (root / "classes.txt").write_text("wall:stuff\nball|disc\nbox|carton\n")


def _draw_thing(source: random.Random, picture: Image.Image, labels: Image.Image) -> dict:
    """Draws one thing over what is there; its entry in `annotations`. What covers it later is not taken off."""
    category, side = source.choice(list(CLASSES)), source.randint(40, 80)
    x, y = source.randint(0, SIZE[0] - side), source.randint(0, SIZE[1] - side)
    outline = [(x + side * right, y + side * down) for right, down in CORNERS[category]]
    ImageDraw.Draw(picture).polygon(outline, fill=CLASSES[category][1])
    ImageDraw.Draw(labels).polygon(outline, fill=category)
    polygon = [value for point in outline for value in point]
    return {"category_id": category, "bbox": [x, y, side, side], "segmentation": [polygon]}


if __name__ == "__main__":
    draw_shelf(Path("shelf"), train=40, val=8)
