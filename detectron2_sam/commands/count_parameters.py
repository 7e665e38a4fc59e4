"""Count the parameters of a model without allocating them.

    detectron2-sam count-parameters --config possam_H
    detectron2-sam count-parameters --config plug_H_kins --parts MODEL.PLUG.LORA_RANK 8

Prints one line of JSON with the numbers of trainable, frozen and all parameters.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from detectron2_sam.commands.cli import add_config, add_overrides, command_line

if TYPE_CHECKING:
    from torch import nn


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_line("count-parameters", __doc__)
    add_config(parser, required=True)
    parser.add_argument("--parts", action="store_true", help="print a line for each part of the model as well")
    add_overrides(parser, argparse.REMAINDER)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Prints the numbers."""
    args = parse(argv)
    import torch

    from detectron2_sam.methods import full_cfg
    from sam_common.method import build_model

    cfg = full_cfg(args.config_file, args.opts)
    cfg.MODEL.SAM.WEIGHTS = cfg.MODEL.CLIP.WEIGHTS = "random"  # nothing is read to be counted
    with torch.device("meta"):
        model = build_model(cfg)
    print(json.dumps(count_parameters(model)))
    if args.parts:
        for name, part in parts(model):
            print(json.dumps({name: count_parameters(part)}))


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Numbers of parameters that train, that are frozen, and of both."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.parameters())
    return {"trainable": trainable, "frozen": total - trainable, "total": total}


def parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model that hold parameters, and the parts of those that train, by dotted name."""
    for name, part in model.named_children():
        counts = count_parameters(part)
        if counts["total"]:
            yield name, part
        if counts["trainable"]:
            yield from ((f"{name}.{inner}", module) for inner, module in part.named_children())
