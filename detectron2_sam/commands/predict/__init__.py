"""Segment pictures and videos: the classes you name, the objects in boxes, or what a few shots have taught.

    detectron2-sam predict --config possam_T --weights output/demo/possam/model_final.pth \\
        --input street.jpg holiday/ "clips/*.mp4" --vocabulary "dog|puppy, cat; sky, grass:stuff" --output out
    detectron2-sam predict --config plug_T --weights output/demo/plug/model_final.pth \\
        --input street.jpg --box 10,20,110,220 --box 40,30,90,80 --output out
    detectron2-sam predict --adapter adapter.safetensors --input slides/ --detector opencv_hog_people --output out

Vocabularies (PosSAM): `;` separates groups, `,` the classes of a group, `|` the synonyms of a class. The suffix :stuff
or :thing applies to a whole group; without one, the group is things. --vocabulary also takes a file in this grammar, or
the name of a shipped list: ade20k, ade20k_full, coco, pascal_context59, pascal_context459, pascal_voc20, pascal_voc21.

Boxes (PLUG, AM-SAM) are around the visible part of each object, x0,y0,x1,y1 in pixels of the upright picture. They
come from --box; from --detector, for videos too: opencv_hog_people, a torchvision model such as
fasterrcnn_resnet50_fpn_v2, transformers:NAME, or ultralytics:FILE.pt (AGPL-3.0); or from --boxes FILE, which is one of
    {"street.jpg": [[x0, y0, x1, y1], …], …}      JSON; a fifth number is the score
    file,x0,y0,x1,y1[,score]                      CSV
    [{"file_name": "street.jpg", "bbox": [x, y, width, height], …}, …]    COCO results

Pictures are JPEG, PNG, TIFF, WebP, AVIF, JPEG 2000, BMP, GIF, PPM, TGA and others; for .heic `pip install pillow-heif`.
What else a folder holds is skipped and counted.

A picture becomes out/street.png, with its segments drawn in, and keeps its path below the folder that the inputs share.
A video becomes out/clip.mp4 and out/clip.jsonl: a line about the video, then one for each frame with its time, in
seconds, and its masks as COCO RLE. Where the frame rate varies, out/clip.mp4 repeats frames. Next to the drawn pictures
there are
    --task panoptic   out/panoptic/street.png with segment ids (R + 256 G + 65536 B), and out/panoptic.json
    --task semantic   out/semantic/street.png with class indices, and out/semantic.json
    --task instance   out/instances.json, COCO results with masks as RLE, and out/images.json, which they refer to
    PLUG              out/amodal_results.json, COCO results of whole objects with their visible and occluded parts, and
                      out/images.json; in the picture, hidden parts are hatched
    AM-SAM            out/labels/street.png with the class of each pixel, 0 for the background; the most confident box
                      tells where to look, or the whole picture without one

Exit status: 0 success; 1 some files could not be predicted (listed at the end, the others are done); 2 a mistake in
what was given, or nowhere to write; 128 + N stopped by signal N, with everything done so far written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2_sam.commands.cli import add_config, add_overrides, command_line, run_later
from sam_common.errors import UserError

VOCABULARIES = (
    *("ade20k", "ade20k_full", "coco"),
    *("pascal_context59", "pascal_context459", "pascal_voc20", "pascal_voc21"),
)
"""Names of the lists in configs/vocabularies."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises UserError where a value cannot be."""
    parser = command_line("predict", __doc__)
    model = parser.add_argument_group("model")
    add_config(model)
    model.add_argument("--adapter", metavar="FILE", help="an adapter from detectron2-sam fewshot, instead of --config")
    model.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="model_final.pth of a training run, or random for an untrained model (default: MODEL.WEIGHTS)",
    )
    files = parser.add_argument_group("input and output")
    files.add_argument("--input", required=True, nargs="+", metavar="PATH", help="pictures, videos, folders or globs")
    files.add_argument("--recursive", action="store_true", help="look into subfolders as well")
    files.add_argument("--output", required=True, metavar="DIR", help="where results go; created if missing")
    files.add_argument("--overwrite", action="store_true", help="replace results of the same name")
    files.add_argument(
        "--confidence-threshold",
        type=float,
        metavar="0..1",
        help="drop what scores less (default: 0.5 for instances and boxes, 0 for panoptic and semantic)",
    )
    words = parser.add_argument_group("words (PosSAM)")
    words.add_argument("--vocabulary", metavar="TEXT", help="the classes to find (default: those of the training)")
    tasks = ("panoptic", "semantic", "instance")
    words.add_argument("--task", choices=tasks, help="what to predict (default: panoptic)")
    boxes = parser.add_argument_group("boxes (PLUG, AM-SAM)")
    boxes.add_argument("--boxes", metavar="FILE", help="boxes of all pictures: JSON, CSV or COCO results")
    boxes.add_argument(
        "--box", action="append", metavar="x0,y0,x1,y1", help="a box of the only picture; repeat it for more objects"
    )
    boxes.add_argument("--detector", metavar="NAME", help="find the boxes with this detector")
    boxes.add_argument(
        "--detector-weights", metavar="FILE", help="weights for the detector instead of its official ones, or random"
    )
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    if args.confidence_threshold is not None and not 0 <= args.confidence_threshold <= 1:
        raise UserError(f"--confidence-threshold is {args.confidence_threshold:g}; it lies between 0 and 1")
    return args


main = run_later(parse, "detectron2_sam.commands.predict.run")
