"""The demo's own part: what is run, what is reused and what is written. Training is played by ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from amsam.config import build_amsam
from amsam.data.image_masks import read_labels
from amsam.evaluation import DiceEvaluator
from detectron2_sam.commands import demo
from detectron2_sam.commands.demo import amsam, plug, possam, run
from detectron2_sam.methods import full_cfg
from plug.data.annotations import read_amodal
from plug.data.mapper import AmodalMapper
from plug.evaluation.evaluator import AmodalEvaluator
from plug.structures import AmodalInstances
from sam_common.data import catalog
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.generated.vocabulary import seen_vocabulary
from sam_common.engine.checkpoint import frozen_sha256, trained_state
from sam_common.engine.evaluation import write_report
from sam_common.errors import UserError
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A small world, and in place of detectron2-sam train something that predicts the truth and notes its options."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setattr(run, "NUM_TRAIN", 1)
    monkeypatch.setattr(run, "NUM_TEST", 3)
    monkeypatch.setattr(amsam, "PICTURES", 2)
    noted: list[str] = []

    def train_net(asked: run.Demo, config: str, output: Path, mode: str, *options: object, **more: object) -> None:
        noted.append(f"{output.name} {mode}")
        if config == possam.CONFIG:
            judge_truth(output)
        elif config == plug.CONFIG:
            judge_amodal_truth(output, "VanillaSAM" not in options)
        else:
            judge_few_shot_truth(output)
        (output / "model_final.pth").touch()
        entry = {"iteration": 0, "total_loss": 1.0, "loss_class": 1.0}
        (output / "metrics.json").write_text(json.dumps(entry) + "\n")

    monkeypatch.setattr(run, "train_net", train_net)
    return noted


def judge_truth(output: Path) -> None:
    """What an evaluation of a perfect PosSAM leaves."""
    spec, folder = catalog.get(possam.TEST), possam.quality_file(output).parent
    evaluator = PanopticQualityEvaluator(spec, output_dir=folder, training_vocabulary=seen_vocabulary())
    for record in spec.load():
        truth = [{**s, "id": i, "score": 1.0} for i, s in enumerate(record["segments_info"], start=1)]
        evaluator.process([record], [{"panoptic_seg": (read_ground_truth(record), truth)}])
    evaluator.evaluate()


def judge_amodal_truth(output: Path, makes_visible: bool) -> None:
    """What an evaluation of a perfect PLUG, or of a perfect SAM, leaves."""
    spec, file = catalog.get(plug.TEST), run.results_file(output, plug.TEST)
    evaluator = AmodalEvaluator(spec, output_dir=file.parent)
    for record in spec.load():
        item = AmodalMapper(training=False)(record)
        amodal, visible = (list(masks) for masks in read_amodal(record))
        size, windows = (record["height"], record["width"]), [(0, 0, record["width"], record["height"])] * len(amodal)
        shown = visible if makes_visible else None
        found = AmodalInstances(size, item["boxes"], torch.ones(len(amodal)), windows, amodal, shown)
        evaluator.process([item], [{"amodal": found}])
    write_report(file, evaluator.evaluate(), {})


def judge_few_shot_truth(output: Path) -> None:
    """What an evaluation of a perfect AM-SAM leaves, and weights that were never trained."""
    spec, file = catalog.get(amsam.TEST), run.results_file(output, amsam.TEST)
    evaluator = DiceEvaluator(spec, output_dir=file.parent)
    for record in spec.load():
        labels = read_labels(record)
        evaluator.process(
            [{**record, "box_found": True}], [{"few_shot": torch.stack((labels == 0, labels == 1)).float()}]
        )
    write_report(file, evaluator.evaluate(), {})
    cfg = full_cfg()
    cfg.merge_from_file(amsam.CONFIG)
    model = build_amsam(cfg)
    torch.save({"model": trained_state(model), "frozen_sha256": frozen_sha256(model)}, output / "model_best.pth")


ALL_RUNS = [
    *("possam --resume", "geometric --eval-only", "ldp --eval-only", "clip --eval-only"),
    *("plug --resume", "sam_amodal_box --eval-only"),
    *("amsam --resume", "PromptedSAM --eval-only", "BoxRectangle --eval-only"),
]


def test_demo_writes_its_report_and_reuses_its_runs(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training for each method, the other answers tested, tables, a page, a picture; nothing is run twice."""
    output = tmp_path / "demo"
    assert demo.main(["--output", str(output)]) == 0
    assert runs == ALL_RUNS
    first = capsys.readouterr().out
    assert "unseen" in first and "hidden, strict" in first and "100.0" in first
    page = (output / "report.html").read_text()
    assert "Panoptic quality" in page and "told the amodal box" in page and "Dice of the box itself" in page
    assert "PosSAM, PLUG and AM-SAM" in page
    assert page.count("3 pictures") == 2 and page.count("2 pictures") == 1 and page.count("<img") == 24
    assert (output / "picture.jpg").stat().st_size

    assert demo.main(["--output", str(output)]) == 0
    assert len(runs) == len(ALL_RUNS)
    assert capsys.readouterr().out.count("trained and tested already") == 3


def test_interrupted_evaluation_is_made_up_for(runs: list[str], tmp_path: Path) -> None:
    """Resuming: only what is missing is tested again."""
    output = tmp_path / "demo"
    demo.main(["--output", str(output)])
    possam.quality_file(output / "ensembles" / "ldp").unlink()
    run.results_file(output / "sam_amodal_box", plug.TEST).unlink()
    demo.main(["--output", str(output)])
    assert runs[len(ALL_RUNS) :] == ["ldp --eval-only", "sam_amodal_box --eval-only"]


def test_one_method_alone(runs: list[str], tmp_path: Path) -> None:
    """Whoever works on one method shows that one."""
    demo.main(["--output", str(tmp_path / "demo"), "--methods", "plug"])
    assert runs == ALL_RUNS[4:6]
    assert "PosSAM" not in (tmp_path / "demo" / "report.html").read_text()


def test_other_options_need_another_folder(runs: list[str], tmp_path: Path) -> None:
    """Error: a folder with another seed's demo, or with something else, is left as it is."""
    demo.main(["--output", str(tmp_path / "demo")])
    with pytest.raises(UserError, match="seed 0, not 1"):
        demo.main(["--output", str(tmp_path / "demo"), "--seed", "1"])
    with pytest.raises(UserError, match=r"fraction 1\.0, not 0\.5"):
        demo.main(["--output", str(tmp_path / "demo"), "--fraction", "0.5"])
    with pytest.raises(UserError, match="--fraction is 0"):
        demo.main(["--output", str(tmp_path / "demo"), "--fraction", "0"])
    with pytest.raises(UserError, match="holds no demo"):
        demo.main(["--output", str(tmp_path)])


def test_durations_are_readable() -> None:
    """Derived by hand."""
    assert [run.duration(seconds) for seconds in (0.4, 59.6, 501)] == ["0 s", "1 min 0 s", "8 min 21 s"]
