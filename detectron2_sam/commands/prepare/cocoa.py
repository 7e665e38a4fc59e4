"""Checks the files of COCOA and COCOA-cls, and makes one JSON of a folder with one for each image.

    python datasets/prepare_cocoa.py
    python datasets/prepare_cocoa.py --merge FOLDER [--images DIR] --output FILE

Nothing needs converting: ROOT/cocoa/annotations and the images in ROOT/coco, as datasets/README.md shows them, are read
as they were published. Each split is read once; its numbers are printed, or what is missing of it. With --merge, N.json
of FOLDER belongs to N.jpg in DIR (FOLDER); the result is a data set of FORMAT cocoa.

    COCOA       https://github.com/Wakeupbuddy/amodalAPI links COCO_amodal_{train,val}2014.json
    COCOA-cls   https://github.com/UARK-AICV/AISFormer links COCO_amodal_{train,val}2014_with_classes.json
    images      https://cocodataset.org/#download, 2014 train and val images
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2_sam.commands.prepare.preparation import check_splits
from plug.data.cocoa import merge_files
from sam_common.data import catalog
from sam_common.errors import UserError
from sam_common.io.files import write_text

NAMES = ("cocoa_train", "cocoa_val", "cocoa_cls_train", "cocoa_cls_val")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    parser.add_argument("--root", type=Path, default=Path(root), help="default: $DETECTRON2_DATASETS or ./datasets")
    parser.add_argument("--merge", type=Path, metavar="FOLDER", help="of JSON files, one for each image")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where their images are (FOLDER)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the JSON to write")
    arguments = parser.parse_args(argv)
    if arguments.merge is None:
        catalog.register_builtin(arguments.root.expanduser())
        check_splits([catalog.get(name) for name in NAMES])
        return 0
    if arguments.output is None:
        raise UserError("--merge needs --output, the JSON to write")
    files = {"json": str(arguments.merge), "images": str(arguments.images or arguments.merge)}
    content = merge_files("--merge", files)
    write_text(arguments.output, json.dumps(content))
    print(f"{arguments.output}: {len(content['images'])} images")
    return 0
