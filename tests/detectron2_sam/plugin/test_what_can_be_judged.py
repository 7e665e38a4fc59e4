"""What was asked for and cannot be judged is told before the inference, under both engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import possam.possam
from detectron2_sam import register
from detectron2_sam.commands import train as train_net
from detectron2_sam.plugin.compat import has_panopticapi
from sam_common.data import catalog
from sam_common.errors import UserError
from tests.support.public_trees import draw_public_trees
from tests.support.small_cfg import command

ADE20K, COCO = "ade20k_panoptic_val", "coco_2017_val_panoptic"
TEST = "MODEL.POSSAM.TEST"
INSTANCES = {f"{TEST}.PANOPTIC_ON": False, f"{TEST}.INSTANCE_ON": True}


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Public data sets in miniature in ./datasets, where Detectron2's own entries look too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    draw_public_trees(Path("datasets"))
    register()
    return Path("datasets")


@pytest.fixture
def evaluate(trees: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(engine, data set, keys) -> evaluates an untrained model that never gets as far as an image."""
    monkeypatch.setattr(possam.possam.PosSAM, "forward", lambda *_: pytest.fail("the inference began"))

    def run(engine: str, name: str, options: dict[str, Any]) -> None:
        pairs = {"DATASETS.TEST": f"('{name}',)", "MODEL.WEIGHTS": "random", **options}
        more = [word for pair in pairs.items() for word in pair]
        train_net.main(command(engine, trees / "run", *more, flags=("--eval-only",)))

    return run


engines = pytest.mark.parametrize("engine", ["fabric", "detectron2"])


@engines
@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("coco_2017_val", {f"{TEST}.INSTANCE_ON": True}, "panoptic_seg, of which coco_2017_val"),
        ("coco_2017_val", {}, "coco_2017_val has truth for instances but the model makes panoptic_seg"),
        ("coco_2017_val", {**INSTANCES, f"{TEST}.SEMANTIC_LABELS_ON": True}, "sem_seg_labels, of which coco_2017_val"),
        ("ade20k_sem_seg_val", {**INSTANCES, f"{TEST}.SEMANTIC_ON": True}, "instances, of which ade20k_sem_seg_val"),
    ],
)
def test_an_output_without_truth(engine: str, name: str, options: dict[str, Any], told: str, evaluate: Any) -> None:
    """Each kind of output that was asked for beside one that the data set has truth for, or alone."""
    with pytest.raises(UserError, match=told):
        evaluate(engine, name, options)


@engines
@pytest.mark.parametrize(
    ("output", "role", "key"), [("instances", "json", "INSTANCE_ON"), ("sem_seg", "labels", "SEMANTIC_ON")]
)
def test_a_truth_that_is_not_there(engine: str, output: str, role: str, key: str, trees: Path, evaluate: Any) -> None:
    """ADE20K's instances and label maps are files of their own: the line names file and output."""
    kind = {"json": "instance", "labels": "semantic"}[role]
    path = Path(catalog.get(ADE20K).beside[kind].files[role])
    path.rename(trees / "elsewhere")
    with pytest.raises(UserError, match=f"there is no annotation {path}.*do not ask for {output} of {ADE20K}"):
        evaluate(engine, ADE20K, {f"{TEST}.{key}": True})


@engines
def test_a_data_set_that_is_not_there(engine: str, evaluate: Any) -> None:
    """The second of two, before the first is judged; and that of the panoptic truth itself."""
    path = Path(catalog.get(COCO).files["panoptic"])
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(UserError, match=f"there is no annotation {path}"):
        evaluate(engine, ADE20K, {"DATASETS.TEST": f"('{ADE20K}', '{COCO}')"})


@engines
def test_a_truth_of_other_images(engine: str, trees: Path, evaluate: Any) -> None:
    """The instances of another split are not those of these images."""
    path = Path(catalog.get(ADE20K).beside["instance"].files["json"])
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "other.jpg"
    images = Path(catalog.get(ADE20K).files["images"])
    (images / "other.jpg").write_bytes((images / "000000000001.jpg").read_bytes())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"ade20k_instance_val lacks 1 images of ade20k_panoptic_val.*000000000001"):
        evaluate(engine, ADE20K, {f"{TEST}.INSTANCE_ON": True})


@pytest.mark.parametrize("key", ["area", "iscrowd", "bbox"])
@pytest.mark.parametrize("name", [COCO, "coco_2017_val"])
def test_instances_that_detectron2_cannot_judge(name: str, key: str, trees: Path, evaluate: Any) -> None:
    """Its evaluator reads keys that ours does without, when the inference is over."""
    path = trees / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    del content["annotations"][0][key]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{path}, entry 1: no {key}, .*choose auto"):
        evaluate("detectron2", name, {**INSTANCES, "TEST.EVALUATORS": "detectron2"})


@pytest.mark.skipif(not has_panopticapi(), reason="panopticapi is not installed")
def test_segments_that_detectron2_cannot_judge(trees: Path, evaluate: Any) -> None:
    """panopticapi asks each segment whether it is a crowd."""
    path = Path(catalog.get(COCO).files["json"])
    content = json.loads(path.read_text())
    del content["annotations"][0]["segments_info"][1]["iscrowd"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{path}, entry 2: no iscrowd"):
        evaluate("detectron2", COCO, {"TEST.EVALUATORS": "detectron2"})
