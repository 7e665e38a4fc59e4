"""docs/training.md claims nothing that no test shows."""

from __future__ import annotations

import re

from detectron2_sam.commands.train import parse
from detectron2_sam.methods import full_cfg
from tests.support.documented import ROOT, shell_commands


def test_every_test_that_the_page_names_exists() -> None:
    """Each `file.py::test` is found, in tests/, tests/sam_common/ or from the root; each row of the table has one."""
    page = (ROOT / "docs" / "training.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    for path, test in named:
        files = [ROOT / folder / path for folder in ("", "tests", "tests/sam_common")]
        assert any(f"def {test}(" in file.read_text() for file in files if file.is_file()), f"{path}::{test}"
    rows = page.split("## What `--resume` restores")[1].split("|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(rows) == 16 and all("::test_" in row or row.endswith("| the same |") for row in rows)


def test_every_recipe_for_one_gpu_trains_what_its_configuration_says() -> None:
    """Each model of real size has a command. It reads, its parts divide the batch, and all else but memory stays."""
    page = (ROOT / "docs" / "training.md").read_text().split("## On one GPU")[1].split("\n## ")[0]
    models = set()
    for command in shell_commands(page):
        args = parse(command.arguments[1:])
        own, recipe = full_cfg(), full_cfg()
        own.merge_from_file(args.config_file)
        recipe.merge_from_file(args.config_file)
        recipe.merge_from_list(args.opts)
        models.add(own.MODEL.dump())
        assert args.engine == "fabric" and args.num_gpus == 1
        assert recipe.SOLVER.IMS_PER_BATCH % recipe.SOLVER.ACCUMULATE == 0
        for cfg in (own, recipe):
            cfg.SOLVER.ACCUMULATE = 1
            cfg.MODEL.POSSAM.ACTIVATION_CHECKPOINTING = cfg.MODEL.PLUG.ACTIVATION_CHECKPOINTING = False
        assert recipe == own
    for path in ROOT.glob("configs/*_[BLH]*.yaml"):
        cfg = full_cfg()
        cfg.merge_from_file(path)
        assert cfg.MODEL.dump() in models, path.name
