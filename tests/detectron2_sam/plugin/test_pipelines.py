"""The pipelines of docs/detectron2.md: every row of its table, in the project's own program, on a COCO in miniature."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

import detectron2_sam
from benchmarks.side_by_side import PEERS_VARIABLE
from detectron2_sam.methods import leaves
from tests.support.coco_tree import draw_coco
from tests.support.documented import ROOT, code_blocks

PAGE = (ROOT / "docs" / "detectron2.md").read_text(encoding="utf-8")
LAZY = "tools/lazyconfig_train_net.py"

FAST = """
    MODEL.DEVICE cpu MODEL.WEIGHTS '' SOLVER.MAX_ITER 2 SOLVER.IMS_PER_BATCH 2 SOLVER.AMP.ENABLED False
    INPUT.IMAGE_SIZE 128 INPUT.CROP.SIZE (64,64)
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MAX_SIZE_TRAIN 96 INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96
    DATALOADER.NUM_WORKERS 0 TEST.EVAL_PERIOD 0 TEST.DETECTIONS_PER_IMAGE 4 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0
    DATASETS.TRAIN "('coco_2017_train',)" DATASETS.TEST "('coco_2017_val',)"
"""
FAST_LAZY = """
    train.device=cpu train.max_iter=2 train.amp.enabled=False dataloader.train.total_batch_size=2
    dataloader.train.num_workers=0 dataloader.test.num_workers=0
"""
UNTRAINED = {
    "MODEL.SAM.WEIGHTS": "random",
    "MODEL.AMODAL_DETECTOR.PLUG_CONFIG": "plug_T",
    "MODEL.AMODAL_DETECTOR.PLUG_WEIGHTS": "random",
}
"""What takes the place of weights that the page names."""

POSSAM_LINES = {
    "tools/train_net.py": {"def setup(args):": "from detectron2_sam import Trainer\n\n\ndef setup(args):"},
    "tools/plain_train_net.py": {
        "build_detection_train_loader(cfg)": "build_detection_train_loader(cfg, mapper=SegmentationMapper(cfg, True))",
        "evaluator = get_evaluator(\n            cfg, ": "evaluator = SegmentationEvaluator(\n            ",
        "logger = ": "from detectron2_sam import SegmentationEvaluator, SegmentationMapper\nlogger = ",
    },
}
"""Mapper and evaluator, in programs that have Detectron2's."""


class Row(NamedTuple):
    """A row of the table: the folder of the clone, its program, the file, what is added, and further keys."""

    project: str
    program: str
    config: str
    adds: str
    keys: str


def rows() -> list[Row]:
    table = PAGE.split("## Pipelines that were tried")[1].split("\n\n")[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [Row(*(cell.replace("`", "") for cell in line)) for line in cells[2:]]


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def added_keys(title: str) -> list[str]:
    """The keys of the file that a section shows, as words of a command."""
    block = yaml.safe_load(code_blocks(section(title), "yaml")[0])
    keys = {key: UNTRAINED.get(key, value) for key, value in leaves(block) if key != "_BASE_"}
    return [word for key, value in keys.items() for word in (key, str(value))]


def two_lines() -> str:
    """The first two of the page, indented as after `cfg = get_cfg()`."""
    lines = code_blocks(section("Two lines"), "python")[0].split("cfg = get_cfg()\n")[1]
    return "".join(f"    {line}\n" for line in lines.splitlines())


def patched(text: str, row: Row) -> str:
    """The program with the page's lines in it."""
    changes = {"    cfg = get_cfg()\n": f"    cfg = get_cfg()\n{two_lines()}"}
    if row.adds == "PosSAM":
        changes |= POSSAM_LINES.get(row.program, {})
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def lazy_config(row: Row, clone: Path, folder: Path) -> Path:
    """The page's LazyConfig beside a copy of the project's own."""
    configs = shutil.copytree(clone / "configs", folder / "configs")
    original = folder / row.config
    text = code_blocks(section("SAM's backbone"), "py")[0].replace(".mask_rcnn_R_50_FPN_1x", f".{original.stem}")
    file = original.with_name("on_sam.py")
    resize = "mapper.augmentations[0].update(short_edge_length=64, max_size=96)"
    small = f"dataloader.train.{resize}\ndataloader.test.{resize}\n"
    file.write_text(text.replace('"sam_vit_b"', '"random"') + small)
    assert configs in file.parents
    return file


@pytest.mark.parametrize("row", rows(), ids=lambda row: "-".join([row.adds, row.project, Path(row.config).stem]))
def test_a_pipeline_trains_and_is_judged(row: Row, tmp_path: Path) -> None:
    """With the page's lines and keys: two iterations and the project's own evaluation, which prints its table."""
    clone = Path(os.environ.get(PEERS_VARIABLE, "")) / row.project
    if PEERS_VARIABLE not in os.environ or not clone.is_dir():
        pytest.skip(f"${PEERS_VARIABLE} has no clone of {row.project}")
    draw_coco(tmp_path / "datasets", COCO_CATEGORIES)
    program = tmp_path / "program.py"
    text = (clone / row.program).read_text(encoding="utf-8")
    if row.program == LAZY:
        program.write_text(text)
        config: str | Path = lazy_config(row, clone, tmp_path)
        words = [*shlex.split(FAST_LAZY), *shlex.split(row.keys), f"train.output_dir={tmp_path / 'output'}"]
    else:
        program.write_text(patched(text, row))
        config = clone / row.config if "/" in row.config else detectron2_sam.get_config_file(row.config)
        adds = [] if row.adds == "PosSAM" else added_keys(row.adds)
        words = [*shlex.split(FAST), *adds, *shlex.split(row.keys), "OUTPUT_DIR", str(tmp_path / "output")]
        if "Panoptic-DeepLab" in row.program:
            words += ["MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY", "64"]
    (tmp_path / "MultiScaleDeformableAttention.py").touch()  # compiled where the project is at home
    paths = [ROOT, tmp_path, (clone / row.program).parent, *sys.path, clone]
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(tmp_path / "datasets"),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, program, "--config-file", config, "--num-gpus", "0", *words]
    run = subprocess.run(list(map(str, command)), cwd=clone, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    assert "copypaste" in run.stdout + run.stderr
