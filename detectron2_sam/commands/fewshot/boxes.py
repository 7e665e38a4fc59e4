"""Boxes of all images, found once: every seed, and SAM beside them, is told the same ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from amsam.structures import MaskRecord, name_of
from sam_common.boxes.boxes import xywh
from sam_common.boxes.detectors import ResultsFile, build_detector
from sam_common.config import CfgNode, resolve_device
from sam_common.data.images import read_image
from sam_common.io.files import write_text

_NEEDS_NO_SEARCH = ("ground_truth", "full_image")


def box_source(name: str, cfg: CfgNode, records: Sequence[MaskRecord], output: Path) -> str:
    """What `INPUT.BOXES.SOURCE` is to be: `name`, or the file of what the detector of that name finds.

    Raises:
        UserError: there is no such detector, an image cannot be read, or a file of boxes is none for these images.
    """
    if name in _NEEDS_NO_SEARCH:
        return name
    threshold, ids = cfg.INPUT.BOXES.SCORE_THRESHOLD, {name_of(record) for record in records}
    path = Path(name) if name.lower().endswith(".json") else output / "boxes.json"
    if path != Path(name) and not path.is_file():
        device = resolve_device(cfg.MODEL.DEVICE)
        detect = build_detector(name, score_threshold=threshold, device=device)
        entries = []
        for record in tqdm(records, "boxes", leave=False, disable=None):
            seen = detect(read_image(record["file_name"]))
            for index, box in enumerate(seen.boxes.tolist()):
                entry: dict[str, Any] = {"image_id": name_of(record), "file_name": record["file_name"]}
                entry |= {"bbox": xywh(box), "score": seen.scores[index].item()}
                entries.append(entry | ({"category_id": seen.categories[index]} if seen.categories else {}))
        write_text(path, json.dumps(entries))
    boxes = ResultsFile(str(path), threshold)
    boxes.check("--images", ids)
    boxed = [key for key, known in boxes.found.items() if key in ids and max(known.scores) >= threshold]
    print(f"{name} has a box for {len(boxed)} of {len(ids)} images; of the others the whole image is the box")
    return str(path)
