"""Train a model, then evaluate it.

    detectron2-sam train --config possam_B --num-gpus 8
    torchrun --nproc_per_node 8 -m detectron2_sam train --config possam_B --engine fabric

OUTPUT_DIR receives the configuration, log, metrics, checkpoints and evaluation results. A second run there needs
--resume, which continues from the last checkpoint.

Exit status: 0 success; 2 a mistake in what was given, described in one line on stderr; 128 + N stopped by signal N,
after saving a checkpoint.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

from detectron2_sam.commands.cli import ToolParser, add_config, add_number, add_overrides, command_line
from detectron2_sam.interrupt import silent_interrupt
from sam_common.errors import UserError

logger = logging.getLogger("detectron2_sam.commands.train")


def parse(argv: Sequence[str], name: str = "train", description: str | None = __doc__) -> argparse.Namespace:
    """The command line of training or evaluating; `--engine` may stand anywhere, the overrides come last."""
    engine = ToolParser(add_help=False, allow_abbrev=False)
    engine.add_argument(
        "--engine",
        default="auto",
        metavar="auto|fabric|detectron2",
        help="the training loop; auto is Detectron2's where it is installed, else our own on lightning-fabric "
        "(default: %(default)s)",
    )
    known, others = engine.parse_known_args(argv)
    parser = command_line(name, description, parents=[engine])
    add_config(parser, required=True)
    parser.add_argument("--resume", action="store_true", help="use the last checkpoint of OUTPUT_DIR, if there is one")
    if name == "train":
        parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS instead of training")
    processes = parser.add_argument_group("processes and machines")
    each = "processes on each machine, one GPU each; CPU processes with MODEL.DEVICE cpu"
    add_number(processes, "--num-gpus", 1, each)
    add_number(processes, "--num-machines", 1, "machines")
    add_number(processes, "--machine-rank", 0, "number of this machine, from 0")
    processes.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="tcp://HOST:PORT of machine 0; auto is a free port of a single machine (default: %(default)s)",
    )
    add_overrides(parser, argparse.REMAINDER)
    parser.set_defaults(eval_only=name == "evaluate")
    return parser.parse_args(others, known)


def choose_engine(name: str) -> str:
    """`detectron2` or `fabric`; `auto` is Detectron2's where it can be imported.

    Raises:
        UserError: there is no such engine, or Detectron2 is asked for and cannot be used.
    """
    if name not in ("auto", "detectron2", "fabric"):
        raise UserError(f"--engine {name} is unknown; choose auto, fabric or detectron2")
    if name == "fabric":
        return name
    try:
        import detectron2_sam.plugin.launch  # noqa: F401
    except Exception as error:  # built for other versions, it fails in many ways; `auto` must not
        if name == "detectron2":
            raise UserError(f"Detectron2 cannot be used: {' '.join(str(error).split())}") from error
        if importlib.util.find_spec("detectron2"):
            logger.warning("Detectron2 is here but cannot be imported (%s): using --engine fabric", error)
        return "fabric"
    return "detectron2"


def main(argv: Sequence[str], name: str = "train", description: str | None = __doc__) -> dict[str, Any]:
    """Trains and evaluates; data set -> task -> metric -> value (nothing from Detectron2's launch, which returns
    nothing).

    Raises:
        UserError: something that was given cannot be used.
        Interrupted: a signal ended the run, after a checkpoint.
    """
    args = parse(argv, name, description)
    with silent_interrupt():
        engine = choose_engine(args.engine)
        module = "detectron2_sam.plugin.launch" if engine == "detectron2" else "detectron2_sam.commands.train.run"
        command = importlib.import_module(module)
    return command.main(args)
