"""Reproduce tables of the papers: say what that takes, run what can be run, and compare the results with the paper.

    detectron2-sam reproduce --list
    detectron2-sam reproduce --table possam-1 --plan
    detectron2-sam reproduce --table possam-1 --num-gpus 8
    detectron2-sam reproduce --table embedded
    detectron2-sam reproduce --table amsam-2 INPUT.BOXES.SOURCE ultralytics:yolov8n.pt

A table is a shipped one, by its name in --list, or a YAML file of the same form; `embedded` stands for all the papers'
ablations on the generated world. Each run is a `detectron2-sam train` command, which is printed; it starts once its
data sets are here, and downloads official weights itself. Rows that differ only in what testing reads are tests of one
training, across tables too. An interrupted command continues where it stopped when it is given again. If the folder of
a training holds a model_final.pth, from another machine for example, that model is only tested.

Exit status: 0 if the tables are complete, or with --plan or --list; 1 if they are not; 2 for a mistake in the
command.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from detectron2_sam.commands.cli import add_number, add_overrides, check_at_least, command_line, run_later
from sam_common.errors import UserError


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises UserError where a value cannot be."""
    parser = command_line("reproduce", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--table", "--rows", action="append", metavar="NAME", help="a table's name or YAML file; may be repeated"
    )
    what.add_argument("--list", action="store_true", help="list the tables")
    parser.add_argument("--plan", action="store_true", help="say what would be run and what is missing, and stop")
    parser.add_argument(
        "--output", default="output/reproduction", metavar="DIR", help="folder of the runs (default: %(default)s)"
    )
    parser.add_argument(
        "--report", metavar="FILE", help="Markdown file, its pictures in images/ beside it (default: OUTPUT/NAME.md)"
    )
    runs = parser.add_argument_group("runs")
    runs.add_argument("--seeds", type=int, metavar="N", help="seeds, counted from 0 (default: the table's)")
    runs.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs side by side (default: one per core, with one thread each; 1 on a GPU)",
    )
    add_number(runs, "--num-gpus", 1, "processes of each run")
    runs.add_argument("--device", default="auto", help="MODEL.DEVICE of the runs (default: %(default)s)")
    add_overrides(parser, argparse.REMAINDER)
    args = parser.parse_args(argv)
    check_at_least(args, num_gpus=1, **{name: 1 for name in ("seeds", "jobs") if getattr(args, name) is not None})
    if len(args.opts) % 2:
        raise UserError(f"overrides come as KEY VALUE pairs, got {len(args.opts)} words: {' '.join(args.opts)}")
    args.command = shlex.join([*parser.prog.split(), *argv])
    return args


main = run_later(parse, "detectron2_sam.commands.reproduce.run")
