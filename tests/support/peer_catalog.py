"""What a project's own registrations mean here: `python -m tests.support.peer_catalog PACKAGE MODULE NAME OUTPUT`.

A program of its own, since such a module registers when it is imported, and catalogs are global. PACKAGE is the folder
that holds it, whose `__init__` is not run; told.json goes to the folder OUTPUT.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path

import detectron2_sam
from detectron2_sam.plugin.datasets import spec_of
from detectron2_sam.plugin.stock_evaluation import stock_evaluators
from sam_common.evaluation.truth import records_to_judge


def main(folder: str, module: str, name: str, output: str) -> None:
    package = types.ModuleType("peer")
    package.__path__ = [folder]
    sys.modules["peer"] = package
    importlib.import_module(f"peer.{module}")
    detectron2_sam.register()
    spec = spec_of(name)
    evaluators = stock_evaluators(name, Path(output), {"instances", "sem_seg_labels"}, None)
    told = {
        "vocabulary": [(category.id, category.is_thing, category.synonyms) for category in spec.load_vocabulary()],
        "records": spec.load(),
        "judged": {kind: list(records_to_judge(spec, kind).values()) for kind in spec.beside},
        "theirs": [type(evaluator).__name__ for evaluator in evaluators],
    }
    Path(output, "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
