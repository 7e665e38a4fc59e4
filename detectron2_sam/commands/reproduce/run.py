"""What `detectron2-sam reproduce` does."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from detectron2_sam.commands.reproduce.report import write_report, write_section
from detectron2_sam.commands.reproduce.runs import Runner
from detectron2_sam.commands.reproduce.table import EMBEDDED, read_table, table_names


def main(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Returns the exit status of the command; `argv`, as it was given, is told in the report."""
    if args.list:
        print(f"{'embedded':<24} all of embedded-*: the papers' ablations on the embedded world")
        print(*(f"{name:<24} {read_table(name).title}" for name in table_names()), sep="\n")
        return 0
    names = [name for given in args.table for name in (EMBEDDED if given == "embedded" else [given])]
    tables = [read_table(name, args.opts) for name in names]
    tables = [replace(table, seeds=args.seeds or table.seeds) for table in tables]
    on_gpu = args.device.startswith("cuda") or (args.device == "auto" and torch.cuda.is_available())
    jobs = args.jobs or (1 if on_gpu else os.cpu_count() or 1)
    processes = ["--num-gpus", str(args.num_gpus)] if args.num_gpus > 1 else []
    runner = Runner(tables, Path(args.output), [*processes, "MODEL.DEVICE", args.device])
    print(runner.describe(jobs))
    failures = [] if args.plan else runner.carry_out(jobs, threads=None if on_gpu else 1)
    results = runner.results()
    for table in tables:
        print(f"\n{write_section(table, results)}")
    if args.plan:
        return 0
<<<<<<< HEAD
    stem = Path(args.table[0]).stem if len(args.table) == 1 else "reproduction"
    report = Path(args.report or Path(args.output, f"{stem}.md"))
    command = shlex.join(["detectron2-sam", "reproduce", *argv])
=======
    report = Path(args.report or Path(args.output, f"{Path(names[0]).stem if len(names) == 1 else 'reproduction'}.md"))
    command = shlex.join(["detectron2-sam", "reproduce", *(sys.argv[1:] if argv is None else argv)])
>>>>>>> 66fe844 (Read what runs left behind where they are run; test the three launchers)
    write_report(report, tables, results, command)
    print(f"\n{report}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 0 if all(results.values()) else 1
<<<<<<< HEAD
=======


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", "--rows", action="append", metavar="NAME", help="of --list, or YAML; may be repeated")
    what.add_argument("--list", action="store_true", help="the tables")
    parser.add_argument("--plan", action="store_true", help="tell what would be run, and what is missing")
    parser.add_argument("--output", default="output/reproduction", metavar="DIR", help="the runs (output/reproduction)")
    parser.add_argument("--report", metavar="FILE", help="Markdown, pictures beside it (in DIR, named as the table)")
    parser.add_argument("--seeds", type=int, help="how many, counted from 0 (the table's)")
    parser.add_argument("--jobs", type=int, help="side by side, on a CPU one thread each (one a core, 1 on a GPU)")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes of each run (1)")
    parser.add_argument("--device", default="auto", help="MODEL.DEVICE of the runs (auto)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override every row")
    args = parser.parse_args(argv)
    for name in ("seeds", "jobs", "num_gpus"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(args, name)}; give at least 1")
    if len(args.opts) % 2:
        raise UserError(f"overrides come as KEY VALUE pairs, got {len(args.opts)} words: {' '.join(args.opts)}")
    return args
>>>>>>> 66fe844 (Read what runs left behind where they are run; test the three launchers)
