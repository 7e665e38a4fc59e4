"""The program `detectron2-sam`: finds the command and runs it. Nothing heavy is imported before that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from detectron2_sam.commands.cli import run_tool

COMMANDS = {
    "train": "detectron2_sam.commands.train",
    "predict": "detectron2_sam.commands.predict.run",
    "fewshot": "detectron2_sam.commands.fewshot.run",
    "doctor": "detectron2_sam.commands.doctor",
    "demo": "detectron2_sam.commands.demo.page",
    "reproduce": "detectron2_sam.commands.reproduce.run",
    "ablation": "detectron2_sam.commands.reproduce.ablation",
    "ablations": "detectron2_sam.commands.reproduce.ablations",
    "count-parameters": "detectron2_sam.commands.count_parameters",
    "validate-amodal": "detectron2_sam.commands.validate_amodal",
    "convert-boxes": "detectron2_sam.commands.convert_boxes",
    "prepare": "detectron2_sam.commands.prepare",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    command, *rest = sys.argv[1:] if argv is None else argv
    name = COMMANDS[command]
    if command == "prepare":
        dataset, *rest = rest
        name = f"{name}.{dataset}"
    return run_tool(lambda: importlib.import_module(name).main(rest))
