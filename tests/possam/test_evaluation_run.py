"""The three kinds of truth through the real tool: one model, three data sets made of the same annotation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.prepare.generated import prepare
from sam_common.data import catalog
from sam_common.errors import UserError
from sam_common.evaluation.truth import read_class_map, read_instances
from tests.possam.test_run import arguments

PANOPTIC = "generated_test_panoptic"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A YAML that registers the drawn test scenes as COCO instances and as label maps, with the same words."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    prepare(tmp_path, train=1, test=3, size=64)
    catalog.register_builtin(tmp_path)
    spec = catalog.get(PANOPTIC)
    vocabulary, records = spec.load_vocabulary(), spec.load()
    (tmp_path / "labels").mkdir()
    annotations = [entry for record in records for entry in read_instances(record, vocabulary)]
    for record in records:
        labels = read_class_map(record)
        name = Path(record["file_name"]).stem
        Image.fromarray(labels.where(labels >= 0, 255).byte().numpy()).save(tmp_path / "labels" / f"{name}.png")
    content = {
        "images": [
            {"id": r["image_id"], "file_name": Path(r["file_name"]).name} | {k: r[k] for k in ("height", "width")}
            for r in records
        ],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
        "categories": [{"id": c.id, "name": c.name, "synonyms": c.synonyms} for c in vocabulary if c.is_thing],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    words = [f"{c.name} = {'|'.join(c.synonyms)}:{'thing' if c.is_thing else 'stuff'}" for c in vocabulary]
    (tmp_path / "classes.txt").write_text("\n".join(words))
    images = spec.files["images"]
    (tmp_path / "three.yaml").write_text(f"""_BASE_: possam_T.yaml
DATASETS:
  REGISTER:
    - {{NAME: instances, FORMAT: coco_instance, JSON: {tmp_path}/instances.json, IMAGES: {images}}}
    - {{NAME: labels, FORMAT: label_maps, IMAGES: {images}, LABELS: {tmp_path}/labels, CLASSES: {tmp_path}/classes.txt}}
  TEST: [{PANOPTIC}, instances, labels]
MODEL: {{POSSAM: {{TEST: {{SEMANTIC_ON: True, INSTANCE_ON: True}}}}}}
DATALOADER: {{NUM_WORKERS: 0}}
""")
    return str(tmp_path / "three.yaml")


def test_each_truth_judges_what_it_can(config: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Equality: label maps with the panoptic set's words give its mIoU to the last digit; the log names the rules."""
    command = arguments(tmp_path / "out", "MODEL.WEIGHTS", "random", flags=("--eval-only",))
    command[1] = config
    results = train_net.main(command)
    assert {name: list(tasks) for name, tasks in results.items()} == {
        PANOPTIC: ["panoptic_seg", "sem_seg", "segm", "bbox"],
        "instances": ["segm", "bbox"],
        "labels": ["sem_seg"],
    }
    assert results["labels"]["sem_seg"] == results[PANOPTIC]["sem_seg"]
    assert results["labels"]["sem_seg"]["pACC"] > 0

    log = capsys.readouterr().out
    assert "labels (semantic truth): images 3, engine fabric, checkpoint untrained (none)" in log
    assert f"56 classes of {tmp_path}/classes.txt" in log and "sem_seg mIoU_union: over the classes that" in log
    report = json.loads((tmp_path / "out" / "inference" / "instances" / "results.json").read_text())
    assert report["rules"]["instances"]["library"].split()[0] in ("pycocotools", "faster-coco-eval")


def test_a_test_set_that_serves_nothing_ends_the_run_at_once(config: str, tmp_path: Path) -> None:
    """Error before the first iteration, not after the last: label maps, and a model that makes no semantic output."""
    command = arguments(tmp_path / "out", "DATASETS.TEST", "('labels',)", "MODEL.POSSAM.TEST.SEMANTIC_ON", "False")
    command[1] = config
    with pytest.raises(
        UserError, match="data set labels has truth for sem_seg but the model makes instances, panoptic"
    ):
        train_net.main(command)
    assert not list((tmp_path / "out").glob("model_*"))
