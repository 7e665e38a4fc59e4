"""What `detectron2-sam reproduce` does."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from detectron2_sam.commands.reproduce.report import write_report, write_section
from detectron2_sam.commands.reproduce.runs import Runner
from detectron2_sam.commands.reproduce.table import EMBEDDED, read_table, table_names


def main(args: argparse.Namespace) -> int:
    """Returns the exit status of the command.

    Raises:
        UserError: something that was given cannot be used.
    """
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
    stem = Path(names[0]).stem if len(names) == 1 else "reproduction"
    report = Path(args.report or Path(args.output, f"{stem}.md"))
    write_report(report, tables, results, args.command)
    print(f"\n{report}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 0 if all(results.values()) else 1
