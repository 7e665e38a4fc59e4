"""A benchmark with an annotation for each task: PQ, AP and mIoU from these, whichever engine and evaluators judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from detectron2_sam import register
from detectron2_sam.plugin.compat import has_panopticapi
from detectron2_sam.plugin.evaluation import build_evaluator
from detectron2_sam.plugin.structures import to_instances
from sam_common.data import catalog
from sam_common.data.images import write_segment_ids
from sam_common.engine.build_evaluation import make_evaluators
from sam_common.evaluation.evaluator import Evaluators
from sam_common.structures import Instances
from tests.support.public_trees import draw_public_trees
from tests.support.small_cfg import small_cfg

WIDTH, HEIGHT, NUM_IMAGES = 64, 48, 3
SWITCHES = {f"MODEL__POSSAM__TEST__{name}_ON": True for name in ("PANOPTIC", "INSTANCE", "SEMANTIC_LABELS")}


@pytest.fixture(params=["ade20k_panoptic_val", "coco_2017_val_panoptic"])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A panoptic benchmark in ./datasets whose three annotations tell different things of the same three images.

    Images have other ids in each ("…0002" / 20 / by file). A thing lies at 8 … 32 in the segments, at 8 … 30 in the
    instances, and at 8 … 28 in the label maps; the rest is stuff, or void.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    draw_public_trees(Path("datasets"))
    register()
    spec = catalog.get(request.param)
    vocabulary = spec.load_vocabulary()
    thing, stuff = (next(i for i, c in enumerate(vocabulary) if c.is_thing is kind) for kind in (True, False))
    images, labels = Path(spec.files["images"]), spec.beside.get("semantic")
    panoptic, instances = (json.loads(Path(s.files["json"]).read_bytes()) for s in (spec, spec.beside["instance"]))
    for content in (panoptic, instances):
        content["images"], content["annotations"] = [], []
    Path(images, "000000000001.jpg").unlink()
    if labels is not None:
        Path(labels.files["labels"], "000000000001.png").unlink()
    for n in range(NUM_IMAGES):
        stem, size = f"ADE_val_{n:04d}", {"width": WIDTH, "height": HEIGHT}
        Image.new("RGB", (WIDTH, HEIGHT), "tan").save(images / f"{stem}.jpg")
        ids = torch.full((HEIGHT, WIDTH), 2)
        ids[:, 8:32] = 1
        write_segment_ids(Path(spec.files["panoptic"], f"{stem}.png"), ids)
        segments = [
            {"id": k, "category_id": vocabulary[c].id, "iscrowd": 0, "area": HEIGHT * w, "bbox": [x, 0, w, HEIGHT]}
            for k, c, x, w in ((1, thing, 8, 24), (2, stuff, 0, 40))
        ]
        panoptic["images"].append({"id": stem if labels else n, "file_name": f"{stem}.jpg", **size})
        panoptic["annotations"].append(
            {"image_id": stem if labels else n, "file_name": f"{stem}.png", "segments_info": segments}
        )
        number = 20 - n
        instances["images"].append({"id": number, "file_name": f"{stem}.jpg", **size})
        corners = [8, 0, 30, 0, 30, HEIGHT, 8, HEIGHT]
        entry = {"id": n + 1, "image_id": number, "category_id": vocabulary[thing].id, "iscrowd": 0}
        entry |= {"bbox": [8, 0, 22, HEIGHT], "area": 22 * HEIGHT, "segmentation": [corners]}
        instances["annotations"].append(entry)
        if labels is not None:
            classes = np.full((HEIGHT, WIDTH), stuff, dtype=np.uint8)
            classes[:, 8:28], classes[:4] = thing, 255
            Image.fromarray(classes).save(Path(labels.files["labels"], f"{stem}.png"))
    for s, content in ((spec, panoptic), (spec.beside["instance"], instances)):
        Path(s.files["json"]).write_text(json.dumps(content))
    return request.param


def predictions(name: str) -> list[dict[str, Any]]:
    """Of each image: segments, labels, and instances of several classes, some of them stuff and some elsewhere."""
    vocabulary = catalog.get(name).load_vocabulary()
    things, stuff = ([i for i, c in enumerate(vocabulary) if c.is_thing is kind] for kind in (True, False))
    made = []
    for n in range(NUM_IMAGES):
        ids = torch.full((HEIGHT, WIDTH), 2, dtype=torch.int32)
        ids[:, 8 : 30 + n] = 1
        labels = torch.where(ids == 1, things[0], stuff[0])
        labels[40:] = stuff[n]
        masks = torch.zeros(5, HEIGHT, WIDTH, dtype=torch.bool)
        masks[0, :, 8 : 27 + n] = masks[1, :, 8:32] = masks[2, :, 8:30] = masks[3, :, 40:] = masks[4, :20, 10:20] = True
        boxes = torch.tensor([[8, 0, 27 + n, 48], [8, 0, 32, 48], [8, 0, 30, 48], [40, 0, 64, 48], [10, 0, 20, 20]])
        classes = torch.tensor([things[0], stuff[0], things[5], stuff[1], things[0]])
        scores = torch.tensor(
            [0.9 - 0.2 * n, 0.8, 0.7, 0.6, 0.45]
        )  # no two equal: which is first then depends on the order of images
        segments = [
            {"id": 1, "category_id": things[0], "isthing": True, "score": 0.9},
            {"id": 2, "category_id": stuff[0], "isthing": False, "score": 0.8},
        ]
        found = Instances((HEIGHT, WIDTH), masks, scores, classes, boxes.float())
        made.append({"panoptic_seg": (ids, segments), "sem_seg_labels": labels, "instances": found})
    return made


@pytest.mark.skipif(not has_panopticapi(), reason="panopticapi is not installed")
def test_one_table_whoever_judges(name: str, tmp_path: Path) -> None:
    """Our evaluators under our engine, and `auto` and `detectron2` under Detectron2's: PQ, AP and mIoU to 1e-9. The
    thing of each annotation is another, so that a number tells which one it is of."""
    spec, outputs, switches = catalog.get(name), predictions(name), dict(SWITCHES)
    if "semantic" not in spec.beside:  # Detectron2's evaluator cannot take mIoU's truth from segments
        switches["MODEL__POSSAM__TEST__SEMANTIC_LABELS_ON"] = False
        for output in outputs:
            del output["sem_seg_labels"]
    converted = [{**o, "instances": to_instances(o["instances"])} for o in outputs]
    seen = spec.load_vocabulary()[:2]
    ours = Evaluators(name, make_evaluators(spec, tmp_path / "ours", seen, set(outputs[0])))
    tables = []
    for choice, made in ((None, outputs), ("auto", converted), ("detectron2", converted)):
        cfg = small_cfg(tmp_path, TEST__EVALUATORS=choice or "auto", **switches)
        judge: Any = ours if choice is None else build_evaluator(cfg, name, tmp_path / choice, training_vocabulary=seen)
        judge.reset()
        for record, output in zip(DatasetCatalog.get(name), made, strict=True):
            judge.process([record], [output])
        tables.append(judge.evaluate())
    first, second, theirs = tables
    assert first.keys() == theirs.keys()
    for task, metrics in first.items():
        assert second[task] == pytest.approx(metrics, abs=1e-12, nan_ok=True)
        shared = metrics.keys() & theirs[task].keys()
        assert {"panoptic_seg": "PQ", "sem_seg": "mIoU"}.get(task, "AP") in shared
        expected = {key: metrics[key] for key in shared}
        assert {key: theirs[task][key] for key in shared} == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert 0 < first["segm"]["AP"] < 100 and first["panoptic_seg"].keys() >= {"PQ_seen", "PQ_unseen"} & set(
        theirs["panoptic_seg"]
    )


def test_the_report_names_the_truth(name: str, tmp_path: Path) -> None:
    """Whose annotation a number is of, by the name of its data set; COCO's mIoU is of the segments."""
    evaluators = make_evaluators(catalog.get(name), tmp_path, None)
    told = {evaluator.judges[0]: evaluator.rules.get("truth") for evaluator in evaluators}
    expected = {
        "ade20k_panoptic_val": ("ade20k_instance_val", "ade20k_sem_seg_val"),
        "coco_2017_val_panoptic": ("coco_2017_val", None),
    }
    assert (told["instances"], told["sem_seg"]) == expected[name] and told["panoptic_seg"] is None
