"""The program `detectron2-sam`: finds the command and runs it. Nothing heavy is imported before that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from detectron2_sam import __version__
from detectron2_sam.interrupt import silent_interrupt

_PACKAGE = "detectron2_sam.commands"
COMMANDS = {
    "train": (f"{_PACKAGE}.train", "train a model and evaluate it"),
    "evaluate": (f"{_PACKAGE}.evaluate", "evaluate a trained model"),
    "predict": (f"{_PACKAGE}.predict", "segment your own pictures and videos"),
    "fewshot": (f"{_PACKAGE}.fewshot", "turn a few labelled images into a segmenter"),
    "prepare": (f"{_PACKAGE}.prepare", "prepare a data set: COCO, ADE20K, KINS, a generated one, and others"),
    "demo": (f"{_PACKAGE}.demo", "train and test every method on a generated world, in about 15 minutes"),
    "reproduce": (f"{_PACKAGE}.reproduce", "reproduce a table of the papers, at their size or on the generated world"),
    "doctor": (f"{_PACKAGE}.doctor", "check this machine and say how to get what is missing"),
    "count-parameters": (f"{_PACKAGE}.count_parameters", "count a model's parameters"),
    "validate-amodal": (f"{_PACKAGE}.validate_amodal", "check an amodal annotation file"),
    "convert-boxes": (f"{_PACKAGE}.convert_boxes", "convert a pickled file of boxes to JSON, safely"),
}
"""Command -> its module, which has `main(argv)`, and what it does."""

USAGE = """\
usage: detectron2-sam COMMAND [arguments]

Open-vocabulary (PosSAM), amodal (PLUG) and few-shot (AM-SAM) segmentation on Segment Anything.

commands:
{commands}

options:
  -h, --help            show this message and exit
  --version             show the version and exit

`detectron2-sam COMMAND --help` explains a command. For example:
  detectron2-sam demo --output output/demo
  detectron2-sam train --config possam_B --num-gpus 8
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    with silent_interrupt():
        from detectron2_sam.commands.cli import run_tool
    return run_tool(lambda: run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> Any:
    """Runs the command that is named first, and returns what its `main` does.

    Raises:
        UserError: there is no such command.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        commands = "\n".join(f"  {name:<22}{summary}" for name, (_, summary) in COMMANDS.items())
        print(USAGE.format(commands=commands), end="")
        return 0
    if name == "--version":
        print(f"detectron2-sam {__version__}")
        return 0
    if name not in COMMANDS:
        from sam_common.errors import UserError
        from sam_common.text import nearest

        raise UserError(f"there is no command {name!r}{nearest(name, COMMANDS)}; see detectron2-sam --help")
    with silent_interrupt():
        module = importlib.import_module(COMMANDS[name][0])
    return module.main(rest)
