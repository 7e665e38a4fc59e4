"""The judge of whole objects: by hand on 6×6 masks, against a plain loop and against pycocotools used directly."""

from __future__ import annotations

import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from plug.data.annotations import read_amodal
from plug.data.cocoa import cocoa_spec
from plug.evaluation.evaluator import AmodalEvaluator
from plug.structures import AmodalInstances
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.evaluation.evaluator import Results
from sam_common.masks.rle import encode_mask
from tests.support.worlds import PETS, amodal_world, answered, asked, rectangle

SIZE = (6, 6)
ALL = slice(None)


_RANK = """
import json, sys
from pathlib import Path
from torch import distributed
from tests.plug.evaluation.test_evaluator import AmodalEvaluator, random_world
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
spec, _, inputs, outputs = random_world()
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
evaluator = AmodalEvaluator(spec, output_dir=folder / "both")
for image in (range(3), range(3, 5))[rank]:
    evaluator.process([inputs[image]], [outputs[image]])
print(json.dumps(evaluator.evaluate()))
distributed.destroy_process_group()
"""


def columns(left: int, right: int) -> Tensor:
    """Columns left … right - 1 of a 6×6 mask."""
    return rectangle(ALL, slice(left, right), SIZE)


def judge(
    spec: DatasetSpec, folder: Path, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> tuple[Results, list[dict[str, Any]]]:
    evaluator = AmodalEvaluator(spec, output_dir=folder)
    for item, output in zip(inputs, outputs, strict=True):
        evaluator.process([item], [output])
    return evaluator.evaluate(), json.loads((folder / "amodal_results.json").read_text())


def test_every_number_by_hand(tmp_path: Path) -> None:
    """Two objects: G columns 0-3, V 0-1, predicted A 1-2, V' 0; and one that nothing hides, found exactly.

    First: full 2/4, merged (0-2) 3/4; the hidden columns are 2 and 3, A has 2: occluded 1/2, merged too; visible 1/2;
    the true visible mask as the answer 2/4. Second: 1 everywhere, not among the occluded.
    """
    spec = amodal_world([[(0, columns(0, 4), columns(0, 2)), (1, columns(4, 6), columns(4, 6))]])
    output = answered([columns(1, 3), columns(4, 6)], [columns(0, 1), columns(4, 6)])
    results, _ = judge(spec, tmp_path, [asked(0, [(1, 0), (2, 1)])], [output])
    amodal, merged, baseline = results["amodal"], results["amodal_merged"], results["visible_as_amodal"]
    assert (amodal["mIoU_full"], amodal["mIoU_occ_strict"], amodal["mIoU_occ_compat"]) == (75, 50, 50)
    assert (merged["mIoU_full"], merged["mIoU_occ_strict"]) == (87.5, 50)
    assert (baseline["mIoU_full"], baseline["mIoU_occ_strict"]) == (75, 0)
    assert results["visible"]["mIoU"] == 75
    assert (amodal["n"], amodal["n_occ_strict"], amodal["n_missed"], amodal["beyond_crop"]) == (2, 1, 0, 0)
    assert amodal["AP50"] == pytest.approx(100) and amodal["AP75"] == pytest.approx(50)  # IoU 0.5 and 1
    assert results["visible"]["AP50"] == pytest.approx(100) and amodal["AP-dog"] == pytest.approx(100)


def test_readings_part_where_the_visible_mask_sticks_out(tmp_path: Path) -> None:
    """G columns 0-1, V 1-2: as many pixels hidden as stick out, so only `strict` counts the object."""
    spec = amodal_world([[(0, columns(0, 2), columns(1, 3))]])
    (results, _) = judge(spec, tmp_path, [asked(0, [(1, 0)])], [answered([columns(0, 2)])])
    amodal = results["amodal"]
    assert amodal["mIoU_occ_strict"] == 100 and amodal["n_occ_strict"] == 1
    assert math.isnan(amodal["mIoU_occ_compat"]) and amodal["n_occ_compat"] == 0


def test_what_no_window_shows_is_counted(tmp_path: Path) -> None:
    """Of 24 true pixels the window of columns 0-2 shows 18; of another image's 6, one that reaches outside shows all.

    6 of 30 pixels are beyond: 20%. The masks come back into the frame of the image.
    """
    spec = amodal_world([[(0, columns(0, 4), columns(0, 1))], [(0, columns(0, 1), columns(0, 1))]])
    outputs = [
        answered([columns(0, 3)], windows=[(0, 0, 3, 6)]),
        {
            "amodal": AmodalInstances(
                SIZE, torch.zeros(1, 4), torch.ones(1), [(-2, -1, 4, 7)], [torch.ones(8, 6) > 0], None
            )
        },
    ]
    results, entries = judge(spec, tmp_path, [asked(0, [(1, 0)]), asked(1, [(2, 0)])], outputs)
    assert results["amodal"]["beyond_crop"] == pytest.approx(20)
    assert [codec.area(entry["segmentation"]) for entry in entries] == [18, 24]
    assert [entry["bbox"] for entry in entries] == [[0, 0, 3, 6], [0, 0, 4, 6]]


def test_missed_objects_and_boxes_of_nothing(tmp_path: Path) -> None:
    """Of three objects one has a box, and one box is of nothing: means over the one; AP counts both faults.

    The false box scores 0.9 · 1.0, the true one 1.0 · 0.5: first false, then true at recall 1/3, precision 1/2; that
    holds at 34 of COCO's 101 recalls. Boxes without classes are one class.
    """
    objects = [(0, columns(0, 2), columns(0, 1)), (1, columns(2, 4), columns(2, 4)), (0, columns(4, 6), columns(4, 6))]
    spec = amodal_world([objects])
    item = asked(0, [(1, 0), (None, None)], [1.0, 0.9])
    output = answered([columns(0, 2), columns(1, 6)], scores=[0.5, 1.0])
    results, entries = judge(spec, tmp_path, [item], [output])
    amodal = results["amodal"]
    assert (amodal["mIoU_full"], amodal["n"], amodal["n_missed"]) == (100, 1, 2)
    assert amodal["AP"] == pytest.approx(100 * 0.5 * 34 / 101) and "AP-any" in amodal
    assert entries[1]["annotation_id"] is None and "iou" not in entries[1] and entries[1]["score"] == 0.9
    assert entries[0]["category_id"] == 10 and entries[1]["category_id"] is None


def test_a_model_without_visible_masks(tmp_path: Path) -> None:
    """Nothing is said of visible or merged masks, nothing about them is written; the baseline needs no model."""
    spec = amodal_world([[(0, columns(0, 4), columns(0, 2))]])
    results, entries = judge(spec, tmp_path, [asked(0, [(1, 0)])], [answered([columns(0, 4)])])
    assert set(results) == {"amodal", "visible_as_amodal"} and results["visible_as_amodal"]["mIoU_full"] == 50
    assert "visible_segmentation" not in entries[0] and set(entries[0]["iou"]) == {
        "full",
        "occluded",
        "visible_as_amodal",
    }


@pytest.mark.parametrize("objects", [[], [(0, columns(0, 4), columns(0, 2))]], ids=["no truth", "all missed"])
def test_without_predictions_there_are_no_means(objects: list, tmp_path: Path) -> None:
    """Edge cases: no box in the whole data set. What is missed is counted, AP is 0 where there is something to find."""
    results, entries = judge(amodal_world([objects]), tmp_path, [asked(0, [])], [answered([], [])])
    amodal = results["amodal"]
    assert entries == [] and math.isnan(amodal["mIoU_full"]) and math.isnan(amodal["beyond_crop"])
    assert (amodal["n"], amodal["n_missed"]) == (0, len(objects))
    assert amodal["AP"] == 0 if objects else math.isnan(amodal["AP"])


def test_empty_masks_score_nothing(tmp_path: Path) -> None:
    """Edge case: the answer "nothing" is an answer: IoU 0, and a box of zeros."""
    spec = amodal_world([[(0, columns(0, 4), columns(0, 2))]])
    empty = columns(0, 0)
    results, entries = judge(spec, tmp_path, [asked(0, [(1, 0)])], [answered([empty], [empty])])
    assert results["amodal"]["mIoU_full"] == results["visible"]["mIoU"] == results["amodal"]["mIoU_occ_strict"] == 0
    assert entries[0]["bbox"] == [0, 0, 0, 0]


def random_world(seed: int = 0) -> tuple[DatasetSpec, list, list[dict[str, Any]], list[dict[str, Any]]]:
    """Five images of up to four objects at 40×50 pixels, predictions that are off a little, one image without any."""
    random = np.random.default_rng(seed)
    size = (40, 50)

    def box(mask_of: tuple[int, int, int, int]) -> Tensor:
        x, y, w, h = mask_of
        return rectangle(slice(y, y + h), slice(x, x + w), size)

    truth, inputs, outputs, number = [], [], [], 0
    for image in range(5):
        objects, amodal, visible, of = [], [], [], []
        for _ in range(image):
            x, y = (int(v) for v in random.integers(0, 25, 2))
            w, h = (int(v) for v in random.integers(4, 15, 2))
            seen = int(random.integers(1, w + 1))
            objects.append((int(random.integers(0, 2)), box((x, y, w, h)), box((x, y, seen, h))))
            number += 1
            of.append((number, objects[-1][0]))
            shift = int(random.integers(0, 4))
            amodal.append(box((x + shift, y, w, h)))
            visible.append(box((x, y + shift, seen, h)))
        truth.append(objects)
        inputs.append(asked(image, of))
        outputs.append(answered(amodal, visible, scores=random.random(len(of)).tolist(), size=size if of else SIZE))
    return amodal_world(truth), truth, inputs, outputs


def test_equals_a_plain_loop_over_pixels(tmp_path: Path) -> None:
    """Equality with the definitions written as sums over sets of pixels, instance by instance."""
    spec, truth, inputs, outputs = random_world()
    results, _ = judge(spec, tmp_path, inputs, outputs)

    def pixels(mask: Tensor) -> set[tuple[int, int]]:
        return {(y, x) for y, row in enumerate(mask.tolist()) for x, value in enumerate(row) if value}

    def iou(first: set, second: set) -> float:
        return len(first & second) / len(first | second) if first | second else 0.0

    full, occluded, merged, visible_ious = [], [], [], []
    for objects, output in zip(truth, outputs, strict=True):
        for index, (_, amodal, visible) in enumerate(objects):
            found, seen = pixels(output["amodal"].amodal_mask(index)), pixels(output["amodal"].visible_mask(index))
            whole, shown = pixels(amodal), pixels(visible)
            full.append(iou(found, whole))
            merged.append(iou(found | seen, whole))
            visible_ious.append(iou(seen, shown))
            if whole - shown:
                occluded.append(iou(found - shown, whole - shown))
    assert results["amodal"]["mIoU_full"] == pytest.approx(100 * sum(full) / len(full))
    assert results["amodal"]["mIoU_occ_strict"] == pytest.approx(100 * sum(occluded) / len(occluded))
    assert results["amodal_merged"]["mIoU_full"] == pytest.approx(100 * sum(merged) / len(merged))
    assert results["visible"]["mIoU"] == pytest.approx(100 * sum(visible_ious) / len(visible_ious))


@pytest.mark.parametrize("task", ["amodal", "visible"])
def test_ap_equals_pycocotools_used_directly(task: str, tmp_path: Path) -> None:
    """Equality with COCO's own tools on COCO files of the truth and of the predictions, as anyone would use them."""
    spec, truth, inputs, outputs = random_world()
    results, entries = judge(spec, tmp_path, inputs, outputs)
    annotations = []
    for image, objects in enumerate(truth):
        for category, *masks in objects:
            rle = encode_mask(masks[task == "visible"])
            shape = {"segmentation": rle, "area": int(codec.area(rle)), "bbox": codec.toBbox(rle).tolist()}
            known = {"id": len(annotations) + 1, "image_id": image + 100, "iscrowd": 0}
            annotations.append(known | {"category_id": PETS[category].id} | shape)
    images = [{"id": image + 100, "height": 40, "width": 50} for image in range(5)]
    content = {"images": images, "categories": [{"id": c.id, "name": c.name} for c in PETS]}
    (tmp_path / "truth.json").write_text(json.dumps(content | {"annotations": annotations}))
    key = "segmentation" if task == "amodal" else "visible_segmentation"
    found = [
        {"image_id": e["image_id"] + 100, "category_id": e["category_id"], "score": e["score"], "segmentation": e[key]}
        for e in entries
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "truth.json")
        official = COCOeval(coco, coco.loadRes(found), "segm")
        official.evaluate()
        official.accumulate()
        official.summarize()
    expected = [100 * value if value >= 0 else math.nan for value in official.stats[:6]]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    assert [results[task][name] for name in names] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert 0 < results[task]["AP"] < 100


def test_the_file_holds_the_masks(tmp_path: Path) -> None:
    """Round trip: amodal, visible and occluded masks decode to what was predicted; ids and boxes are those asked."""
    spec, _, inputs, outputs = random_world()
    _, entries = judge(spec, tmp_path, inputs, outputs)
    left = iter(entries)
    for item, output in zip(inputs, outputs, strict=True):
        found = output["amodal"]
        for index, annotation_id in enumerate(item["annotation_ids"]):
            entry = next(left)
            assert (entry["image_id"], entry["annotation_id"]) == (item["image_id"], annotation_id)
            amodal, visible = found.amodal_mask(index).numpy(), found.visible_mask(index).numpy()
            assert (codec.decode(entry["segmentation"]).astype(bool) == amodal).all()
            assert (codec.decode(entry["visible_segmentation"]).astype(bool) == visible).all()
            assert (codec.decode(entry["occluded_segmentation"]).astype(bool) == (amodal & ~visible)).all()
            x, y, width, height = entry["prompt_bbox"]
            assert [x, y, x + width, y + height] == found.pred_boxes[index].tolist()
    assert not list(left)


def test_two_ranks_judge_as_one(tmp_path: Path) -> None:
    """Invariant: images 0-2 on one rank and 3-4 on the other give both what one process gives, and one whole file."""
    spec, _, inputs, outputs = random_world()
    alone, _ = judge(spec, tmp_path / "alone", inputs, outputs)
    commands = [[sys.executable, "-c", _RANK, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        results = json.loads(process.communicate()[0])
        assert process.returncode == 0 and set(results) == set(alone)
        for task, metrics in alone.items():
            assert results[task] == pytest.approx(metrics, nan_ok=True), task
    assert len(json.loads((tmp_path / "both" / "amodal_results.json").read_text())) == 10


def test_real_truth_is_perfect(samples: Path, tmp_path: Path) -> None:
    """Real COCOA images, the truth as the answer: 100 in every reading, and the baseline is below."""
    folder = samples / "cocoa"
    spec = cocoa_spec("cocoa_sample", json_file=folder, images=folder)
    evaluator, hidden = AmodalEvaluator(spec, output_dir=tmp_path), 0
    for record in spec.load():
        amodal, visible = read_amodal(record)
        hidden += int((amodal & ~visible).flatten(1).any(1).sum())
        size = record["height"], record["width"]
        item = asked(record["image_id"], [(entry["id"], entry["category_id"]) for entry in record["annotations"]])
        evaluator.process([item], [answered(list(amodal), list(visible), size=size)])
    results = evaluator.evaluate()
    assert results["amodal"]["mIoU_full"] == pytest.approx(100)
    for task in ("amodal", "amodal_merged"):  # merged, what sticks out of an amodal mask counts against the whole only
        assert results[task]["mIoU_occ_strict"] == pytest.approx(100) and results[task]["n_occ_strict"] == hidden > 5
    assert results["visible"]["mIoU"] == pytest.approx(100) and results["amodal"]["AP"] > 95
    assert 50 < results["visible_as_amodal"]["mIoU_full"] < 100 and results["visible_as_amodal"]["mIoU_occ_strict"] == 0


def test_reset_forgets(tmp_path: Path) -> None:
    """An evaluator is used again after every few thousand iterations."""
    spec = amodal_world([[(0, columns(0, 4), columns(0, 2))]])
    evaluator = AmodalEvaluator(spec, output_dir=tmp_path)
    for _ in range(2):
        evaluator.reset()
        evaluator.process([asked(0, [(1, 0)])], [answered([columns(0, 4)])])
        assert evaluator.evaluate()["amodal"]["n"] == 1


def test_objects_of_another_size_are_a_bug(tmp_path: Path) -> None:
    """Error: masks of another size would match nothing; they are named instead."""
    evaluator = AmodalEvaluator(amodal_world([[]]), output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"objects of 0\.jpg"):
        evaluator.process([asked(0, [])], [answered([], size=(5, 5))])
