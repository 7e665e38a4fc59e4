"""Small configurations and command lines for the plug-in's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

import detectron2_sam

SMALL = {
    "MODEL.DEVICE": "cpu",
    "INPUT.IMAGE_SIZE": 64,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 64,
    "MODEL.POSSAM.LOSS.NUM_POINTS": 64,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.CHECKPOINT_PERIOD": 2,
}
"""possam_T for four iterations of two images, 64 pixels wide."""


def small_cfg(output: Path, **options: Any) -> CfgNode:
    """A Detectron2 cfg of `configs/possam_T.yaml` with `SMALL`; options are keys with `__` for the dots."""
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(detectron2_sam.get_config_file("possam_T"), allow_unsafe=False)
    changed = {**SMALL, "OUTPUT_DIR": str(output), **{k.replace("__", "."): v for k, v in options.items()}}
    cfg.merge_from_list([word for pair in changed.items() for word in pair])
    return cfg


def command(engine: str, output: Path, *more: object, flags: tuple[str, ...] = ()) -> list[str]:
    """A command line of `detectron2-sam train` for the same."""
    pairs = [str(word) for pair in {**SMALL, "OUTPUT_DIR": output}.items() for word in pair]
    return ["--config-file", "configs/possam_T.yaml", "--engine", engine, *flags, *pairs, *map(str, more)]
