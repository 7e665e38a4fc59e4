"""Check an amodal annotation file, and summarize what is in it.

    detectron2-sam validate-amodal shelf/train.json --images shelf/images/train

FILE is in COCO's format with an amodal and a visible mask for each object (KINS, COCOA-cls, or your own), or in that of
the original COCOA: one JSON, or a folder with one for each image. The summary has the objects of each class, how much
of them is hidden, and how much of that lies beyond a crop of twice the visible box. Every fault is listed with the ids
it affects.

Exit status: 0 no faults; 1 faults; 2 the file cannot be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2_sam.commands.cli import command_line, run_later

SHOWN = 20


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_line("validate-amodal", __doc__)
    parser.add_argument("file", metavar="FILE", help="the JSON file, or the folder of JSON files")
    parser.add_argument("--images", metavar="DIR", help="also check that the images are there and have the right size")
    parser.add_argument("--all", action="store_true", help=f"list every fault, not just the first {SHOWN} of each kind")
    return parser.parse_args(argv)


main = run_later(parse, "detectron2_sam.commands.validate_amodal.run")
