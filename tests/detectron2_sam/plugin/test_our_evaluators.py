"""Our evaluators of semantic and instance segmentation against Detectron2's, and in its place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, SemSegEvaluator
from PIL import Image

from detectron2_sam.plugin.datasets import register_datasets
from detectron2_sam.plugin.evaluation import SegmentationEvaluator
from detectron2_sam.plugin.structures import to_instances
from detectron2_sam.plugin.trainer import Trainer
from possam.data.coco_instance import coco_instance_spec
from sam_common.data import catalog
from sam_common.data.label_maps import label_maps_spec
from sam_common.evaluation.mean_iou import MeanIoUEvaluator
from sam_common.masks.rle import encode_mask
from tests.support.small_cfg import small_cfg
from tests.support.worlds import predict_instances, predict_semantic, rectangle, tight_boxes

NAMES = [f"class{number}" for number in range(9)]
PANOPTIC = "generated_test_panoptic"


@pytest.fixture
def forget() -> Iterator[str]:
    """A name that the catalogs may know for one test."""
    yield "judged"
    catalog._specs.pop("judged", None)
    catalog._origin.pop("judged", None)
    DatasetCatalog.pop("judged", None)
    MetadataCatalog.pop("judged", None)


def test_mean_iou_equals_detectron2_on_random_predictions(tmp_path: Path, forget: str) -> None:
    """All its metrics to 1e-9 and its file, entry by entry; the older mIoU from its own counts. Some classes are in the
    truth only, some in the prediction only, some in neither; a tenth of the pixels is ignored."""
    random = np.random.default_rng(0)
    folders = [tmp_path / name for name in ("images", "labels")]
    for folder in folders:
        folder.mkdir()
    predictions = []
    for number in range(6):
        truth, predicted = random.integers(0, 7, (13, 17)), random.integers(2, 8, (13, 17))
        predicted = np.where(random.random(truth.shape) < 0.5, np.clip(truth, 2, None), predicted)
        truth[random.random(truth.shape) < 0.1] = 255
        Image.new("RGB", (17, 13)).save(folders[0] / f"{number}.jpg")
        Image.fromarray(truth.astype(np.uint8)).save(folders[1] / f"{number}.png")
        predictions.append(predict_semantic(torch.from_numpy(predicted), len(NAMES)))
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    spec = label_maps_spec(forget, images=folders[0], labels=folders[1], classes=tmp_path / "classes.txt")
    catalog.register(spec)
    register_datasets()

    theirs = SemSegEvaluator(forget, output_dir=str(tmp_path / "theirs"))
    ours = MeanIoUEvaluator(spec, output_dir=tmp_path / "ours")
    for evaluator in (theirs, ours):
        evaluator.reset()
        evaluator.process(spec.load(), predictions)
    expected, found = theirs.evaluate()["sem_seg"], ours.evaluate()["sem_seg"]
    shared = {key: value for key, value in expected.items() if "ound" not in key and "min(" not in key}
    assert {key: found.get(key, float("nan")) for key in shared} == pytest.approx(shared, abs=1e-9, nan_ok=True)

    matrix = theirs._conf_matrix[:-1, :-1]  # predictions are rows
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    older = 100 * (matrix.diagonal()[matrix.sum(0) > 0] / union[matrix.sum(0) > 0]).sum() / (union > 0).sum()
    assert found["mIoU_union"] == pytest.approx(older, abs=1e-9) and older < found["mIoU"] - 1

    entries, written = (
        json.loads((tmp_path / name / "sem_seg_predictions.json").read_text()) for name in ("theirs", "ours")
    )
    assert [{key: value for key, value in entry.items() if key != "image_id"} for entry in written] == entries


def test_mean_iou_equals_detectron2_on_many_classes(tmp_path: Path, forget: str) -> None:
    """300 classes, so maps of 16 bits and 65535 where there is none: mIoU, its mean by frequency, and accuracies."""
    random, names = np.random.default_rng(2), [f"class{number}" for number in range(300)]
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    truth = random.integers(0, 300, (40, 50))
    predicted = np.where(random.random(truth.shape) < 0.5, truth, random.integers(0, 300, truth.shape))
    truth[:4] = 65535
    Image.new("RGB", (50, 40)).save(tmp_path / "images" / "0.jpg")
    Image.fromarray(truth.astype(np.uint16)).save(tmp_path / "labels" / "0.png")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    spec = label_maps_spec(
        forget, images=tmp_path / "images", labels=tmp_path / "labels", classes=tmp_path / "classes.txt"
    )
    catalog.register(spec)
    register_datasets()
    results = []
    for evaluator in (SemSegEvaluator(forget), MeanIoUEvaluator(spec, output_dir=tmp_path / "ours")):
        evaluator.reset()
        evaluator.process(spec.load(), [predict_semantic(torch.from_numpy(predicted), len(names))])
        results.append(evaluator.evaluate()["sem_seg"])
    expected, found = results
    for key in ("mIoU", "fwIoU", "mACC", "pACC", "IoU-class299"):
        assert found[key] == pytest.approx(expected[key], abs=1e-9) and 1 < found[key] < 99


@pytest.mark.parametrize("fast", [False, True], ids=["pycocotools", "its own C++"])
def test_mask_ap_equals_detectron2_on_random_predictions(tmp_path: Path, forget: str, fast: bool) -> None:
    """All its metrics to 1e-9, per class too, for boxes and masks, with crowds and an image without instances."""
    random = np.random.default_rng(1)
    annotations, outputs = [], []
    (tmp_path / "images").mkdir()
    for image in range(6):
        Image.new("RGB", (200, 200)).save(tmp_path / "images" / f"{image}.jpg")
        found = []
        for _ in range(5 if image else 0):
            (y, x), (h, w), index = random.integers(0, 80, 2), random.integers(4, 190, 2), int(random.integers(3))
            mask = rectangle(slice(y, y + h), slice(x, x + w), (200, 200))
            x0, y0, x1, y1 = tight_boxes(mask[None])[0].tolist()
            entry = {"image_id": image, "category_id": 10 * index + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            entry |= {"iscrowd": int(random.random() < 0.2), "segmentation": encode_mask(mask), "area": int(mask.sum())}
            annotations.append({"id": len(annotations) + 1, **entry})
            dy, dx = random.integers(0, 12, 2)
            guess = index if random.random() < 0.8 else int(random.integers(3))
            near = rectangle(slice(y + dy, y + dy + h), slice(x, x + w + dx), (200, 200))
            found.append((guess, near, float(random.random())))
        found.append((0, rectangle(slice(0, 9), slice(0, 9), (200, 200)), 0.3))
        outputs.append(predict_instances(found, (200, 200)))
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 200, "width": 200} for i in range(6)],
        "annotations": annotations,
        "categories": [{"id": 10 * i + 1, "name": NAMES[i]} for i in range(3)],
        "info": {},
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    spec = coco_instance_spec(forget, json_file=tmp_path / "truth.json", images=tmp_path / "images")
    catalog.register(spec)
    register_datasets()
    theirs = COCOEvaluator(forget, tasks=("bbox", "segm"), output_dir=str(tmp_path / "theirs"), use_fast_impl=fast)
    ours = SegmentationEvaluator(forget, tmp_path / "ours", outputs={"instances"})
    for evaluator in (theirs, ours):
        evaluator.reset()
        evaluator.process(spec.load(), [{"instances": to_instances(output["instances"])} for output in outputs])
    expected, results = theirs.evaluate(), ours.evaluate()
    for task in ("bbox", "segm"):
        assert {key: results[task][key] for key in expected[task]} == pytest.approx(
            expected[task], abs=1e-9, nan_ok=True
        )
        assert all(1 < results[task][name] < 99 for name in ("AP", "AP50", "APs", "APm", "APl"))


def test_all_that_the_model_makes_is_judged(world: Path, tmp_path: Path) -> None:
    """Through Detectron2's whole evaluation: four tasks of one panoptic data set, and a report that names its rules."""
    switches = {f"MODEL__POSSAM__TEST__{name}_ON": True for name in ("SEMANTIC", "INSTANCE")}
    cfg = small_cfg(tmp_path, **switches)
    model = Trainer.build_model(cfg)
    model.training_vocabulary = catalog.get(PANOPTIC).load_vocabulary()[:20]
    results = Trainer.test(cfg, model, checkpoint="given.pth")
    assert list(results) == ["panoptic_seg", "sem_seg", "segm", "bbox"]

    report = json.loads((tmp_path / "inference" / PANOPTIC / "results.json").read_text())
    assert report["results"].keys() == results.keys()
    assert (report["engine"], report["images"], report["truth"]) == ("detectron2", 2, "panoptic")
    assert report["checkpoint"] == "given.pth" and report["seed"] == cfg.SEED
    assert len(report["classes"]["seen"]) == 20 and len(report["classes"]["unseen"]) == len(report["vocabulary"]) - 20
    assert report["rules"]["sem_seg"].keys() == {"mIoU", "mIoU_union", "crowd"}
    assert "pycocotools" in report["rules"]["instances"]["library"].replace("faster-coco-eval", "pycocotools")


def test_the_report_of_detectron2s_evaluators_names_their_rule(world: Path, tmp_path: Path) -> None:
    """Its version does not tell which of both mIoUs it gives; the report does."""
    cfg = small_cfg(tmp_path, TEST__EVALUATORS="detectron2")
    Trainer.test(cfg, Trainer.build_model(cfg))
    report = json.loads((tmp_path / "inference" / PANOPTIC / "results.json").read_text())
    assert report["images"] == 2 and report["checkpoint"] == str(tmp_path) and report["checkpoint_choice"] == "last"
    assert len(report["rules"]) == 1 and all(rule["library"] for rule in report["rules"].values())
