"""Runs every ablation of the three papers on the embedded world and writes the report.

    python datasets/prepare_generated.py
    python tools/ablations.py --output output/ablations --report docs/reproduction.md

PosSAM's Tables 4 to 7, PLUG's Tables 2 and 3, AM-SAM's Table 4 and Figures 5 and 6, with three seeds. What tables share
is trained once. `--jobs` runs go side by side, one thread each; what is complete is reused and what was interrupted
goes on, so the same command can be given again. `--plan` tells what is to be done and runs nothing.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2_sam.commands.cli import ToolParser
from detectron2_sam.commands.reproduce.results import read_results
from detectron2_sam.commands.reproduce.runs import Plan, add_run_arguments, carry_out, check_run_arguments, make_plan
from detectron2_sam.commands.reproduce.verdicts import read_table, write_report

TABLES = (
    *(f"configs/ablations/embedded_possam_table{number}.yaml" for number in (4, 5, 6, 7)),
    *(f"configs/ablations/embedded_plug_table{number}.yaml" for number in (2, 3)),
    "configs/ablations/embedded_amsam_table4.yaml",
    *(f"configs/ablations/embedded_amsam_figure{number}.yaml" for number in (5, 6)),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="the runs")
    parser.add_argument("--report", metavar="FILE", help="DIR/reproduction.md")
    parser.add_argument("--table", action="append", metavar="YAML", help="this instead of all; may be repeated")
    parser.add_argument("--plan", action="store_true", help="tell what would be run")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    check_run_arguments(args)

    tables = [read_table(path, args.opts) for path in args.table or TABLES]
    plan, output = make_plan([table.rows for table in tables], args.seeds), Path(args.output)
    if args.plan:
        print(describe({cell: m for cell, m in plan.items() if not read_results(output / cell.folder)}, args.jobs))
        return
    results = carry_out(plan, output, jobs=args.jobs, device=args.device)
    report = Path(args.report) if args.report else output / "reproduction.md"
    command = shlex.join(["python", "tools/ablations.py", *(sys.argv[1:] if argv is None else argv)])
    write_report(report, tables, results, args.seeds, command)
    print(f"\n{report}")


def describe(plan: Plan, jobs: int) -> str:
    """A line for each run with its minutes, and the sum."""
    lines = [f"{minutes:5.1f} minutes  {cell.folder}" for cell, minutes in plan.items()]
    return "\n".join(
        [*lines, f"{len(plan)} runs, about {sum(plan.values()) / jobs:.0f} minutes with {jobs} side by side"]
    )
