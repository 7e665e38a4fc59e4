"""Checks the files of KINS: nothing needs converting, the published files are read as they are.

    python datasets/prepare_kins.py [--kitti DIR]

ROOT/KINS holds, as datasets/README.md shows it, the annotation in either schema and KITTI's left colour images. With
--kitti the images are linked from where KITTI's data_object_image_2.zip was unpacked. Each split is read once; its
numbers are printed, or what is missing of it. tools/validate_amodal.py looks into the masks.

    annotation  https://github.com/qqlu/Amodal-Instance-Segmentation-through-KINS-Dataset links update_*_2020.json and
                instances_*.json
    images      http://www.cvlibs.net/datasets/kitti/eval_object.php?obj_benchmark=2d, "left color images"
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2_sam.commands.prepare.preparation import check_splits, link_folder
from sam_common.data import catalog


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    parser.add_argument("--root", type=Path, default=Path(root), help="default: $DETECTRON2_DATASETS or ./datasets")
    parser.add_argument("--kitti", type=Path, help="the folder that holds training/image_2 and testing/image_2")
    arguments = parser.parse_args(argv)
    root_folder = arguments.root.expanduser()
    if arguments.kitti is not None:
        for split in ("training", "testing"):
            link_folder(arguments.kitti.expanduser() / split / "image_2", root_folder / "KINS" / split / "image_2")
    catalog.register_builtin(root_folder)
    check_splits([catalog.get(name) for name in ("kins_train", "kins_val")])
    return 0
