"""What is in an amodal annotation file, and what is wrong with it."""

from __future__ import annotations

import argparse
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from detectron2_sam.commands.validate_amodal import SHOWN
from plug.crop import cut_off, magnified_window
from plug.data.check import Finding, Notes, check_images, find_objects, is_cocoa
from plug.data.cocoa import read_content
from sam_common.data.coco_json import parse_images
from sam_common.data.json_values import field as required
from sam_common.errors import UserError
from sam_common.masks.rle import decode_segmentation

_SHARES = ("nothing", "up to 25 %", "up to 50 %", "up to 75 %", "more")


@dataclass
class Statistics:
    """Sums over the objects of a file.

    Attributes:
        classes: class -> [objects, those with a hidden pixel, pixels of them all, hidden pixels].
        shares: by how much of an object is hidden, in the steps of `_SHARES`.
        signed: objects whose amodal mask has more pixels than the visible one.
        beyond: pixels of amodal masks outside the crop; cut: objects that lose some; cut_deeply: more than a tenth.
    """

    classes: dict[str, list[int]] = field(default_factory=dict)
    shares: Counter[int] = field(default_factory=Counter)
    signed: int = 0
    beyond: int = 0
    cut: int = 0
    cut_deeply: int = 0

    def add(self, found: Finding) -> None:
        """Counts one object."""
        area, hidden = found.amodal.area, found.amodal.area - found.common
        sums = self.classes.setdefault(found.category, [0, 0, 0, 0])
        self.classes[found.category] = [a + b for a, b in zip(sums, (1, hidden > 0, area, hidden), strict=True)]
        self.shares[math.ceil(4 * hidden / area)] += 1
        self.signed += area > found.visible.area
        lost = beyond_crop(found)
        self.beyond += lost
        self.cut += lost > 0
        self.cut_deeply += lost > area / 10


def beyond_crop(found: Finding) -> int:
    """Pixels of the amodal mask outside the window of twice the visible box, clipped to the image."""
    (x, y, width, height), (left, top, wide, high) = found.visible.box, found.amodal.box
    window = magnified_window(torch.tensor([x, y, x + width, y + height]), found.size)
    if window[0] <= left and window[1] <= top and left + wide <= window[2] and top + high <= window[3]:
        return 0
    return int(cut_off(decode_segmentation(found.amodal.segmentation, *found.size, found.name), window))


def report(statistics: Statistics, notes: Notes, images: int) -> str:
    """The tables that are printed, without the faults."""
    rows = [_row(name, sums) for name, sums in sorted(statistics.classes.items())]
    objects, occluded, area, hidden = (sum(column) for column in zip(*statistics.classes.values(), strict=True))
    rows.append(_row("all", [objects, occluded, area, hidden]))
    shares = ", ".join(f"{name} {statistics.shares[step]}" for step, name in enumerate(_SHARES))
    skipped = "".join(f"; besides, {count} × {reason}" for reason, count in notes.skipped.items())
    return "\n".join(
        (
            f"{images} images, {objects} objects{skipped}",
            tabulate(rows, ["class", "objects", "occluded", "hidden %"], tablefmt="simple", floatfmt=".2f"),
            f"hidden of an object: {shares}",
            f"occluded: {occluded} with a hidden pixel, {statistics.signed} by the signed sum of amodal - visible",
            f"outside the ×2 crop: {_percent(statistics.beyond, area):.2f} % of the amodal area, "
            f"{_percent(statistics.beyond, hidden):.2f} % of what is hidden; {statistics.cut} objects lose some, "
            f"{statistics.cut_deeply} more than a tenth",
        )
    )


def _row(name: str, sums: Sequence[int]) -> list[Any]:
    objects, occluded, area, hidden = sums
    return [name, objects, occluded, _percent(hidden, area)]


def _percent(part: int, whole: int) -> float:
    return 100 * part / max(whole, 1)


def main(args: argparse.Namespace) -> int:
    """Prints the report and returns the exit status."""
    if not os.path.exists(args.file):
        raise UserError(f"there is no file or folder {args.file}")
    images = args.images or (args.file if os.path.isdir(args.file) else "")
    content = read_content(args.file, {"json": args.file, "images": images})
    records, notes, statistics = parse_images(content, args.file, images), Notes(), Statistics()
    if args.images:
        check_images(records, notes)
    total = None if is_cocoa(content) else len(required(content, "annotations", list, args.file))
    for found in tqdm(find_objects(content, args.file, records, notes), "objects", total, disable=None):
        statistics.add(found)
    if statistics.classes:
        print(report(statistics, notes, len(records)))
    else:
        notes.faults["no object that can be used"].append(args.file)
    for kind, names in notes.faults.items():
        shown = names if args.all else names[:SHOWN]
        more = f" … and {len(names) - len(shown)} more: --all" if len(names) > len(shown) else ""
        print(f"{len(names)} × {kind}: {'; '.join(shown)}{more}")
    print(f"{args.file}: {'faults found' if notes.faults else 'no fault found'}")
    return 1 if notes.faults else 0
