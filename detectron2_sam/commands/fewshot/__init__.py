"""Turn a folder of images and a folder of masks into a segmenter, with its scores and its mistakes, in minutes.

    detectron2-sam fewshot --images photos/images --masks photos/masks --shots 4 --seeds 5 --output out

For each seed, AM-SAM learns from --shots images drawn at random and is tested on all the others. With --pool N, the
shots are drawn from the first N images by name, and the rest are the test set. Masks have the names of their images:
0 is the background, 255 or 1 the object; with --classes FILE, 1 is the class on the first line, 2 that on the second, …

The table of scores and the command that applies the result are printed. The output folder receives

    report.html           Dice, IoU and Dice_64, mean ± standard deviation over the seeds, next to SAM without training
                          and to the bare box; and the ten worst images, which worst/ holds too
    results.json          the same scores
    adapter.safetensors   the model with the best validation score, where half of the shots are the validation set
    seed0/ …              each training run; inference/few_shot_test/dice_per_image.csv has the scores of each image,
                          and seed0.yaml repeats the run by itself

Boxes tell the model where to look. --boxes is full_image for none; ground_truth for the box of the mask, an upper
bound; a FILE.json of COCO results; or a detector: opencv_hog_people, a torchvision model such as
fasterrcnn_resnet50_fpn_v2, transformers:NAME, or ultralytics:FILE.pt.

An interrupted command continues where it stopped when it is given again; with more --seeds, it adds to what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2_sam.commands.cli import add_config, add_number, add_overrides, check_at_least, command_line, run_later


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_line("fewshot", __doc__)
    data = parser.add_argument_group("images and masks")
    data.add_argument("--images", required=True, metavar="DIR", help="the images")
    data.add_argument("--masks", required=True, metavar="DIR", help="their masks, named alike; any image format")
    data.add_argument("--mask-suffix", default="", metavar="TEXT", help="_mask if the mask of a.jpg is a_mask.png")
    data.add_argument(
        "--mask-threshold",
        type=int,
        metavar="1..255",
        help="what is at least so light in a mask is the object: 128 for masks saved as JPEG",
    )
    data.add_argument(
        "--classes",
        metavar="FILE",
        help="class names, one per line; the first is 1 in the masks. With several classes, 255 means unknown",
    )
    data.add_argument(
        "--boxes", default="full_image", metavar="SOURCE", help="where boxes come from (default: %(default)s)"
    )
    trials = parser.add_argument_group("training and testing")
    add_number(trials, "--shots", 4, "labelled images to learn from")
    add_number(trials, "--seeds", 5, "trials, each with other shots")
    trials.add_argument(
        "--pool", type=int, default=0, metavar="N", help="draw shots from the first N images, test on the rest"
    )
    add_config(
        trials, help="a configuration of AM-SAM (default: amsam_B if SAM ViT-B is on this machine, else amsam_T)"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="a new folder, or that of the same command to continue it"
    )
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    check_at_least(args, seeds=1, pool=0)
    return args


main = run_later(parse, "detectron2_sam.commands.fewshot.run")
