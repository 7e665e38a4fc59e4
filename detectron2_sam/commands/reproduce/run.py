"""Reproduces a published table: says what that takes and what is missing for it, runs what can be run, and prints the
numbers beside the paper's.

    python tools/reproduce.py --list
    python tools/reproduce.py --table possam-1 --plan            # what would be run, and what is missing
    python tools/reproduce.py --table possam-1 --num-gpus 8      # days
    python tools/reproduce.py --table amsam-2 INPUT.BOXES.SOURCE ultralytics:yolov8n.pt

A table is a file of configs/reproduction/; trailing KEY VALUE override every run. Each run is a `tools/train_net.py`
command that is printed, and is not begun before all its data sets are here; official weights it downloads itself. What
is complete is not run again and what was interrupted goes on, so the same command can be given again; tables share
trainings. Where the folder of a training has a model_final.pth, brought from another machine say, it is only tested.
The comparison is printed and written to OUTPUT/TABLE.md.

Exit status: 0 the table is complete, or only --plan or --list was asked for; 1 it is not; 2 a mistake in what was
given.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2_sam.commands.cli import ToolParser
from detectron2_sam.commands.reproduce.runs import check_pairs
from detectron2_sam.commands.reproduce.table import compare, read_table, table_names
from detectron2_sam.commands.reproduce.work import Run, plan, run_what_can_be
from sam_common.errors import UserError
from sam_common.io.files import write_text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status.

    Raises:
        UserError: something that was given cannot be used.
    """
    args = parse_arguments(argv)
    if args.list:
        print(*(f"{name:<14} {read_table(name).title}" for name in table_names()), sep="\n")
        return 0
    table = read_table(args.table, args.opts)
    seeds, output = args.seeds or table.seeds, Path(args.output)
    flags = ["--num-gpus", str(args.num_gpus)] if args.num_gpus > 1 else []
    planned = plan(table, seeds, output, device=args.device, flags=flags)
    print(f"{table.title}\n({table.source}; seeds: {seeds})\n")
    tell(planned)
    failures = [] if args.plan else run_what_can_be(planned)
    results = {run.cell: run.results() for run in planned}
    text = compare(table, results, seeds)
    print(f"\n{text}")
    if args.plan:
        return 0
    write_text(output / f"{table.name}.md", f"{table.title}\n({table.source}; seeds: {seeds})\n\n{text}\n")
    print(f"\n{output / f'{table.name}.md'}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 0 if all(results.values()) else 1


def tell(planned: Sequence[Run]) -> None:
    """The command of every run, and once each thing that is missing, with where to get it."""
    marks = {run.cell: "done" if run.results() else "lacks" if run.waits() else "run" for run in planned}
    for run in planned:
        print(f"{marks[run.cell]:>5}  {shlex.join(['python', 'tools/train_net.py', *run.arguments()])}")
    counts = [(list(marks.values()).count(mark), what) for mark, what in _COUNTED.items()]
    print(f"\n{len(planned)} runs: {', '.join(f'{count} {what}' for count, what in counts if count)}")
    missing = {finding.name: finding for run in planned if marks[run.cell] != "done" for finding in run.lacks}
    if missing:
        print("missing:", *missing.values(), sep="\n")


_COUNTED = {"done": "are done", "run": "can be run", "lacks": "wait for what is missing"}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", metavar="NAME", help="one of --list, or a YAML file of its kind")
    what.add_argument("--list", action="store_true", help="the tables")
    parser.add_argument("--plan", action="store_true", help="tell what would be run, and what is missing")
    parser.add_argument("--output", default="output/reproduction", metavar="DIR", help="(output/reproduction)")
    parser.add_argument("--seeds", type=int, help="how many, counted from 0 (the table's)")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes of each run (1)")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE of the runs (auto)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override every run")
    args = parser.parse_args(argv)
    for name in ("seeds", "num_gpus"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(args, name)}; give at least 1")
    check_pairs(args.opts)
    return args
