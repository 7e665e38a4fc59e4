"""Trains and tests the rows of an ablation over several seeds and prints a table of mean ± standard deviation.

    python tools/ablation.py --rows configs/ablations/possam_embedded.yaml --seeds 3 --output output/ablation_possam

The rows, their metrics and the ways to test them are the file's. Every run is a `tools/train_net.py` command that is
printed; `--jobs` of them run side by side, one thread each. Rows that differ only in what testing reads are tests of
one training. What is complete is reused and what was interrupted goes on, so the same command can be given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detectron2_sam.commands.cli import ToolParser
from detectron2_sam.commands.reproduce.rows import read_rows
from detectron2_sam.commands.reproduce.runs import add_run_arguments, carry_out, check_run_arguments, make_plan
from detectron2_sam.commands.reproduce.tables import markdown, summarise
from sam_common.io.files import write_text


def main(argv: Sequence[str] | None = None) -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, metavar="YAML", help="a file of configs/ablations/")
    parser.add_argument("--output", required=True, metavar="DIR")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    check_run_arguments(args)

    rows, output = read_rows(args.rows, args.opts), Path(args.output)
    results = carry_out(make_plan([rows], args.seeds), output, jobs=args.jobs, device=args.device)
    text = markdown(summarise(results, rows, args.seeds), rows.metrics)
    write_text(output / "table.md", text + "\n")
    print(f"\n{text}\n\n{args.seeds} seeds; {output / 'table.md'}")
