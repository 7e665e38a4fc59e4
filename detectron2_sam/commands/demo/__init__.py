"""Go from nothing to a report: generate a world, train the smallest model of each method on it, and test it.

    detectron2-sam demo --output output/demo

It needs no downloads, no GPU, and about 15 minutes on two CPU cores. OUTPUT/report.html opens in any browser, and
OUTPUT/picture.jpg shows some of its pictures. An interrupted demo continues where it stopped when the command is given
again. The generated world is kept in $DETECTRON2_DATASETS or ./datasets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detectron2_sam.commands.cli import add_number, check_at_least, command_line, run_later
from sam_common.errors import UserError

METHODS = ("possam", "plug", "amsam")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Raises UserError where a value cannot be."""
    parser = command_line("demo", __doc__)
    parser.add_argument(
        "--output", default="output/demo", metavar="DIR", help="where everything goes (default: %(default)s)"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="methods to show (default: all)")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--seed", type=int, default=0, help="seed of the trainings; the world stays the same (default: %(default)s)"
    )
    training.add_argument(
        "--fraction",
        type=float,
        default=1.0,
        help="share of the configured iterations to train for (default: %(default)s)",
    )
    add_number(training, "--processes", 1, "processes that train together on a CPU")
    args = parser.parse_args(argv)
    if not 0 < args.fraction < float("inf"):
        raise UserError(f"--fraction is {args.fraction}; give a number above 0")
    check_at_least(args, processes=1)
    return args


main = run_later(parse, "detectron2_sam.commands.demo.page")
