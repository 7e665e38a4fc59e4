"""COCOA and COCOA-cls: what is there, and one JSON of a folder with one for each image."""

from __future__ import annotations

import argparse
import json

from detectron2_sam.commands.prepare.preparation import check_splits
from detectron2_sam.methods import register_datasets
from plug.data.cocoa import merge_files
from sam_common.data import catalog
from sam_common.errors import UserError
from sam_common.io.files import write_text

NAMES = ("cocoa_train", "cocoa_val", "cocoa_cls_train", "cocoa_cls_val")


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    if args.merge is None:
        register_datasets(args.root)
        check_splits([catalog.get(name) for name in NAMES])
        return 0
    if args.output is None:
        raise UserError("--merge needs --output, the JSON to write")
    files = {"json": str(args.merge), "images": str(args.images or args.merge)}
    content = merge_files("--merge", files)
    write_text(args.output, json.dumps(content))
    print(f"{args.output}: {len(content['images'])} images")
    return 0
