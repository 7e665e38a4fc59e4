"""Counts a model's parameters without building it in memory: one JSON line, trainable, frozen and total.

python tools/count_parameters.py --config-file configs/possam_H.yaml [--parts] [KEY VALUE …]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from detectron2_sam.commands.cli import ToolParser
from detectron2_sam.methods import full_cfg, methods
from sam_common.method import build_model


def count_parameters(module: nn.Module) -> dict[str, int]:
    """Numbers of parameters that train, that are frozen, and of both."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.parameters())
    return {"trainable": trainable, "frozen": total - trainable, "total": total}


def main(argv: Sequence[str] | None = None) -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--parts", action="store_true", help="one more line for each part of the model")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(argv)

    methods()
    cfg = full_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.MODEL.SAM.WEIGHTS = cfg.MODEL.CLIP.WEIGHTS = "random"  # nothing is read to be counted
    with torch.device("meta"):
        model = build_model(cfg)
    print(json.dumps(count_parameters(model)))
    if args.parts:
        for name, part in parts(model):
            print(json.dumps({name: count_parameters(part)}))


def parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model that hold parameters, and the parts of those that train, by dotted name."""
    for name, part in model.named_children():
        counts = count_parameters(part)
        if counts["total"]:
            yield name, part
        if counts["trainable"]:
            yield from ((f"{name}.{inner}", module) for inner, module in part.named_children())
