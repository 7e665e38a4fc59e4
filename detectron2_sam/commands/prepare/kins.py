"""KINS: what is there, and links to KITTI's images."""

from __future__ import annotations

import argparse

from detectron2_sam.commands.prepare.preparation import check_splits, link_folder
from detectron2_sam.methods import register_datasets
from sam_common.data import catalog


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    if args.kitti is not None:
        for split in ("training", "testing"):
            link_folder(args.kitti.expanduser() / split / "image_2", args.root / "KINS" / split / "image_2")
    register_datasets(args.root)
    check_splits([catalog.get(name) for name in ("kins_train", "kins_val")])
    return 0
