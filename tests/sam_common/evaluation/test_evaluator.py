"""Gathering over ranks, and several evaluators on one data set."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_segment_ids
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Evaluators
from sam_common.evaluation.mask_ap import MaskAPEvaluator
from sam_common.evaluation.mean_iou import MeanIoUEvaluator
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.evaluation.truth import read_class_map
from sam_common.layers.processes import gather, is_main_process
from tests.support.segments import read_segments
from tests.support.worlds import panoptic_world, predict_instances, predict_panoptic, predict_semantic, semantic_world

ROWS = {1: [[7, 7, 3, 0]], 2: [[8, 8, 9, 9]], 3: [[7, 7, 7, 7]]}
SEGMENTS = {
    1: [{"id": 7, "category_id": 10}, {"id": 3, "category_id": 20}],
    2: [{"id": 8, "category_id": 30, "iscrowd": 1}, {"id": 9, "category_id": 20}],
    3: [{"id": 7, "category_id": 10}],
}
CAT = torch.tensor([[True, True, False, False]])
OUTPUT = {
    **predict_panoptic([[1, 1, 2, 2]], [0, 1]),
    **predict_semantic([[0, 0, 1, 1]]),
    **predict_instances([(0, CAT, 0.9), (2, ~CAT, 0.8)], (1, 4)),
}

_RANK = """
import json, sys
from pathlib import Path
from torch import distributed
from sam_common.layers.processes import gather, is_main_process
from tests.sam_common.evaluation.test_evaluator import OUTPUT, ROWS, SEGMENTS, judge, panoptic_world
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
world = panoptic_world(folder / f"data{rank}", ROWS, SEGMENTS)
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
print(gather([rank] * rank), is_main_process())
evaluators = judge(world, folder / "out")
evaluators.reset()
for image in ([1, 2], [3], [])[rank]:
    evaluators.process([{"image_id": image}], [OUTPUT])
print(json.dumps([evaluators.evaluate(), evaluators.facts()["images"]]))
distributed.destroy_process_group()
"""


def judge(spec: DatasetSpec, folder: Path) -> Evaluators:
    """All that a panoptic truth can judge."""
    kinds = (PanopticQualityEvaluator, MeanIoUEvaluator, MaskAPEvaluator)
    return Evaluators(spec.name, [kind(spec, output_dir=folder) for kind in kinds])


def test_alone():
    """Edge case: without distributed training there is one value, and this process writes."""
    assert gather("value") == ["value"] and is_main_process()


def test_three_ranks_judge_as_one(tmp_path):
    """Invariant: ranks with two, one and no image give what one process gives, each of them, and the same files.

    `gather` gives all ranks the values of all, in their order, of any length; rank 0 alone writes.
    """
    commands = [[sys.executable, "-c", _RANK, str(rank), str(tmp_path)] for rank in range(3)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate(timeout=100)[0].strip().splitlines() for process in processes]
    assert [lines[0] for lines in outputs] == [f"[[], [1], [2, 2]] {main}" for main in (True, False, False)]

    spec = panoptic_world(tmp_path / "alone", ROWS, SEGMENTS)
    alone = judge(spec, tmp_path / "alone" / "out")
    alone.process([{"image_id": image} for image in ROWS], [OUTPUT] * 3)
    expected = json.dumps([alone.evaluate(), 3])
    assert [lines[1] for lines in outputs] == [expected] * 3
    assert json.loads(expected)[0].keys() == {"panoptic_seg", "sem_seg", "segm", "bbox"}

    def names(folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))

    assert names(tmp_path / "out") == names(tmp_path / "alone" / "out")
    truth = json.loads((tmp_path / "out" / "coco_instances_truth.json").read_text())
    assert len({entry["id"] for entry in truth["annotations"]}) == 3


@pytest.mark.parametrize(
    ("made", "tasks"),
    [
        (("panoptic_seg",), ["panoptic_seg"]),
        (("sem_seg", "instances"), ["sem_seg", "segm", "bbox"]),
        (("panoptic_seg", "other"), ["panoptic_seg"]),
    ],
)
def test_what_the_model_makes_is_judged(made, tasks, tmp_path):
    """A panoptic truth judges each output it can, by name; the rest is left alone, and `reset` forgets the choice."""
    evaluators = judge(panoptic_world(tmp_path, ROWS, SEGMENTS), tmp_path / "out")
    evaluators.process([{"image_id": 1}], [OUTPUT])
    evaluators.reset()
    evaluators.process([{"image_id": 1}], [{name: OUTPUT.get(name) for name in made}])
    assert list(evaluators.evaluate()) == tasks
    facts = evaluators.facts()
    assert facts["images"] == 1 and list(facts["rules"]) == [name for name in made if name != "other"]


def test_a_truth_that_serves_nothing_is_one_line(tmp_path):
    """Error at the first batch: the data set, what it could judge, what the model makes, and what to do."""
    spec = semantic_world(tmp_path, [torch.zeros(1, 4)])
    evaluators = Evaluators(spec.name, [MeanIoUEvaluator(spec, output_dir=tmp_path / "out")])
    with pytest.raises(UserError) as error:
        evaluators.process([{"image_id": "0"}], [predict_panoptic([[1, 1, 1, 1]], [0])])
    assert str(error.value) == (
        "data set tiny has truth for sem_seg but the model makes panoptic_seg: switch one of the former on in its "
        "configuration, or name another data set in DATASETS.TEST"
    )


class Recorder:
    """An evaluator that notes what it is given, once it may."""

    rules: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str, complaint: str = "") -> None:
        self.judges, self.complaint, self.may, self.busy = (name,), complaint, threading.Event(), threading.Lock()
        self.seen: list[int] = []

    def reset(self) -> None:
        self.seen = []

    def process(self, inputs, outputs) -> None:
        assert self.busy.acquire(blocking=False), "two batches at once"
        try:
            assert self.may.wait(100)
            self.seen += [item["image_id"] for item in inputs]
            if self.complaint:
                raise UserError(f"{self.complaint} of image {inputs[0]['image_id']}")
        finally:
            self.busy.release()

    def evaluate(self):
        return {self.judges[0]: {"n": float(len(self.seen))}}


def both(first: Recorder, second: Recorder) -> Evaluators:
    return Evaluators("recorded", [first, second])


MADE = [{"a": 1, "b": 2}]


def test_a_batch_is_judged_beside_the_next_one():
    """`process` comes back while evaluators are busy; each gets the batches in their order, one at a time."""
    slow, fast = Recorder("a"), Recorder("b")
    fast.may.set()
    evaluators = both(slow, fast)
    evaluators.process([{"image_id": 0}], MADE)
    assert slow.seen == []
    slow.may.set()
    for image in range(1, 50):
        evaluators.process([{"image_id": image}], MADE)
        assert slow.seen[:image] == fast.seen[:image] == list(range(image))  # all before this one are judged
    assert evaluators.evaluate() == {"a": {"n": 50.0}, "b": {"n": 50.0}}
    assert slow.seen == fast.seen == list(range(50))


def test_what_an_evaluator_complains_of_is_raised():
    """Error: with the next batch or at the end, the first evaluator's of several; `reset` forgets it."""
    first, second = Recorder("a", "the mask"), Recorder("b", "the box")
    first.may.set()
    second.may.set()
    evaluators = both(first, second)
    evaluators.process([{"image_id": 7}], MADE)
    with pytest.raises(UserError, match="^the mask of image 7$"):
        evaluators.process([{"image_id": 8}], MADE)
    evaluators.process([{"image_id": 9}], [{"b": 2}])
    with pytest.raises(UserError, match="^the box of image 9$"):
        evaluators.evaluate()
    evaluators.process([{"image_id": 10}], MADE)
    evaluators.reset()
    assert first.seen == second.seen == [] and evaluators.evaluate() == {}


def test_truth_against_itself_on_real_images(samples, tmp_path):
    """Invariant: the annotation of two real COCO images, crowds included, predicted in each form, is perfect by all."""
    folder = samples / "coco_panoptic"
    spec = coco_panoptic_spec(
        "real", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "panoptic"
    )
    vocabulary, evaluators = spec.load_vocabulary(), judge(spec, tmp_path)
    for record in spec.load():
        classes, masks, _ = read_segments(record)
        found = [(c, m, 0.5) for c, m in zip(classes.tolist(), masks, strict=True) if vocabulary[c].is_thing]
        output = {
            "panoptic_seg": (read_segment_ids(record["pan_seg_file_name"]), record["segments_info"]),
            "sem_seg_labels": read_class_map(record).clamp(min=0),
            **predict_instances(found, (record["height"], record["width"])),
        }
        evaluators.process([record], [output])
    results = evaluators.evaluate()
    perfect = {"panoptic_seg": ("PQ", "SQ", "RQ"), "sem_seg": ("mIoU", "mIoU_union", "fwIoU", "mACC", "pACC")}
    perfect |= dict.fromkeys(("segm", "bbox"), ("AP", "AP50", "AP75"))
    for task, names in perfect.items():
        assert [results[task][name] for name in names] == pytest.approx([100] * len(names)), task
