"""Prepare a data set: convert its official files, check them, or generate it.

    detectron2-sam prepare generated
    detectron2-sam prepare ade20k --root /data
    detectron2-sam prepare kins --kitti /data/kitti

Files that are there already are kept, so an interrupted command is simply given again. A broken file is named and
skipped, and so is a split that is not there. `detectron2-sam prepare NAME --help` says where to download a data set and
which files are written.

Exit status: 0 success; 1 some files were broken (listed at the end, the others are done); 2 nothing can be prepared, or
a mistake in what was given.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2_sam.commands.cli import ToolParser, add_number, check_at_least, command_line

DATASETS = {
    "generated": (
        "a generated world, for every method; any machine can make it",
        """\
Generate scenes of things over stuff: generated_train_* shows the seen classes, generated_test_* all of them.

They are written to ROOT/generated in COCO's panoptic format and in KINS's amodal one, about 0.1 MB per scene, with
pictures of luminous worms for few-shot models.
""",
    ),
    "coco": (
        "COCO 2017: semantic label maps from the panoptic annotations",
        """\
Make COCO's semantic label maps (133 classes) from its panoptic annotations.

Download the 2017 images and the panoptic annotations from https://cocodataset.org/#download, to
    ROOT/coco/{train,val}2017/*.jpg
    ROOT/coco/annotations/panoptic_{train,val}2017.json
    ROOT/coco/panoptic_{train,val}2017/*.png
The label maps go where Mask2Former's script puts them:
    ROOT/coco/panoptic_semseg_{train,val}2017/*.png    class indices 0..132, 255 where nothing is annotated
""",
    ),
    "ade20k": (
        "ADE20K-150: panoptic, instance and semantic annotations",
        """\
Make the panoptic, instance and semantic annotations of ADE20K-150 from its official files.

Download the scene parsing and the instance annotations from http://sceneparsing.csail.mit.edu/, to
    ROOT/ADEChallengeData2016/images/{training,validation}/*.jpg
    ROOT/ADEChallengeData2016/annotations/{training,validation}/*.png             0, or a class 1..150
    ROOT/ADEChallengeData2016/annotations_instance/{training,validation}/*.png    red: a thing 1..100; green: its number
In the same folder, under the names of Detectron2 and Mask2Former, this writes
    ade20k_panoptic_{train,val}.json, ade20k_panoptic_{train,val}/    COCO panoptic
    ade20k_instance_{train,val}.json                                  COCO instances
    annotations_detectron2/{training,validation}/                     class indices 0..149, 255 for no class
The two annotations overlap a little; things are pasted over stuff, and stuff that they hide completely is left out.
""",
    ),
    "ade20k_full": (
        "ADE20K-847 (A-847): semantic label maps",
        """\
Make the label maps of ADE20K-847 (A-847) from the official files of the full ADE20K.

Download it from https://ade20k.csail.mit.edu/, to
    ROOT/ADE20K_2021_17_01/images/ADE/{training,validation}/
In ROOT/ADE20K_2021_17_01, where Mask2Former and FC-CLIP read them, this writes
    images_detectron2/{training,validation}/*.jpg         the images, their shorter side at most 512 pixels
    annotations_detectron2/{training,validation}/*.tif    16 bits: class indices 0..846, 65535 for no class
MaskFormer introduced this size, and mean IoU is measured at it. The data set's index, a pickle, is not needed.
""",
    ),
    "pascal_context": (
        "PASCAL-Context with 459 and 59 classes (PC-459, PC-59): semantic label maps",
        """\
Make the label maps of PASCAL-Context with 459 and with 59 classes (PC-459, PC-59) from its official files.

Download VOC 2010 from http://host.robots.ox.ac.uk/pascal/VOC/ and the annotations from
https://www.cs.stanford.edu/~roozbeh/pascal-context/, to
    ROOT/VOCdevkit/VOC2010/JPEGImages/*.jpg
    ROOT/VOCdevkit/VOC2010/ImageSets/Main/{train,val}.txt
    ROOT/VOCdevkit/VOC2010/trainval/*.mat
Where FC-CLIP reads them, this writes
    ROOT/pascal_ctx_d2/annotations_ctx459/{training,validation}/*.tif    class indices 0..458, 65535 for no class
    ROOT/pascal_ctx_d2/annotations_ctx59/{training,validation}/*.png     class indices 0..58, 255 for no class
The 59 classes are those of the 459 with the same names; all other pixels have no class. Images stay where they are.
""",
    ),
    "pascal_voc": (
        "PASCAL VOC 2012 with and without background (PAS-21, PAS-20): semantic label maps",
        """\
Make the label maps of PASCAL VOC 2012 with and without the background class (PAS-21, PAS-20).

Download VOC 2012 from http://host.robots.ox.ac.uk/pascal/VOC/, to
    ROOT/VOCdevkit/VOC2012/JPEGImages/*.jpg
    ROOT/VOCdevkit/VOC2012/SegmentationClass/*.png
    ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
Where FC-CLIP reads them, this writes
    ROOT/pascal_voc_d2/annotations_pascal21/{training,validation}/*.png    0 background, 1..20 classes, 255 borders
    ROOT/pascal_voc_d2/annotations_pascal20/{training,validation}/*.png    0..19 classes, 255 background and borders
Images stay where they are.
""",
    ),
    "kins": (
        "KINS, amodal: check its files",
        """\
Check the files of KINS: each split is read and counted, or what is missing is named. Nothing needs converting.

Download the annotations, in either schema, that
https://github.com/qqlu/Amodal-Instance-Segmentation-through-KINS-Dataset links, and KITTI's left color images from
http://www.cvlibs.net/datasets/kitti/eval_object.php?obj_benchmark=2d, to
    ROOT/KINS/update_{train,test}_2020.json, or instances_{train,val}.json
    ROOT/KINS/{training,testing}/image_2/*.png
`detectron2-sam validate-amodal` checks the masks.
""",
    ),
    "cocoa": (
        "COCOA and COCOA-cls, amodal: check their files, or merge a folder of JSON files",
        """\
Check the files of COCOA and COCOA-cls: each split is read and counted, or what is missing is named. Nothing needs
converting.

Download the 2014 images from https://cocodataset.org/#download, and the annotations of COCOA and of COCOA-cls that
https://github.com/Wakeupbuddy/amodalAPI and https://github.com/UARK-AICV/AISFormer link, to
    ROOT/coco/{train,val}2014/*.jpg
    ROOT/cocoa/annotations/COCO_amodal_{train,val}2014.json
    ROOT/cocoa/annotations/COCO_amodal_{train,val}2014_with_classes.json
With --merge FOLDER, a folder with one JSON file for each image (N.json for N.jpg) becomes one file, for a data set of
FORMAT cocoa.
""",
    ),
}
"""Name -> what is prepared, in a line and in full; a module of that name does it."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises UserError where the command line is wrong."""
    parser = command_line("prepare", __doc__)
    root = ToolParser(add_help=False)
    root.add_argument(
        "--root",
        type=lambda path: Path(path).expanduser(),
        default=os.environ.get("DETECTRON2_DATASETS", "datasets"),
        metavar="DIR",
        help="folder of the data sets (default: $DETECTRON2_DATASETS, or ./datasets)",
    )
    threads = ToolParser(add_help=False, parents=[root])
    add_number(threads, "--workers", 2, "threads")
    names = parser.add_subparsers(title="data sets", dest="name", metavar="NAME", required=True)
    of = {
        name: names.add_parser(
            name,
            help=summary,
            description=text,
            epilog=f"example:\n  detectron2-sam prepare {name} --root /data",
            formatter_class=parser.formatter_class,
            parents=[root if name in ("kins", "cocoa") else threads],
        )
        for name, (summary, text) in DATASETS.items()
    }
    add_number(of["generated"], "--train", 2000, "training scenes")
    add_number(of["generated"], "--test", 200, "test scenes")
    add_number(of["generated"], "--seed", 0, "seed of the world")
    add_number(of["generated"], "--size", 256, "side of a picture in pixels")
    of["ade20k"].add_argument(
        "--semantic-only", action="store_true", help="make label maps only; needs no annotations_instance/"
    )
    splits = ("train", "val")
    of["ade20k_full"].add_argument(
        "--splits", nargs="+", choices=splits, default=splits, help="splits to prepare (default: both)"
    )
    of["kins"].add_argument(
        "--kitti",
        type=Path,
        metavar="DIR",
        help="link the images from this folder, which holds training/image_2 and testing/image_2",
    )
    merge = of["cocoa"].add_argument_group("merging JSON files")
    merge.add_argument("--merge", type=Path, metavar="FOLDER", help="the folder of JSON files, one for each image")
    merge.add_argument("--images", type=Path, metavar="DIR", help="the folder of their images (default: FOLDER)")
    merge.add_argument("--output", type=Path, metavar="FILE", help="the JSON file to write")
    args = parser.parse_args(argv)
    check_at_least(args, **({"workers": 1} if "workers" in args else {}))
    return args


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    args = parse(argv)
    return importlib.import_module(f"{__name__}.{args.name}").main(args)
