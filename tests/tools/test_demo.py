"""The demo's own part: what is run, what is reused and what is written. Training is played by ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_common.data import catalog
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.generated import seen_vocabulary
from sam_common.errors import UserError
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from tools import demo


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A small world, and in place of tools/train_net.py something that predicts the truth and notes its options."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setattr(demo, "NUM_TRAIN", 1)
    monkeypatch.setattr(demo, "NUM_TEST", 3)
    noted: list[str] = []

    def train_net(asked: demo.Demo, output: Path, mode: str, *options: object) -> None:
        noted.append(f"{output.name} {mode}")
        spec = catalog.get(demo.TEST)
        folder = demo.quality_file(output).parent
        evaluator = PanopticQualityEvaluator(spec, output_dir=folder, training_vocabulary=seen_vocabulary())
        for record in spec.load():
            truth = [{**s, "id": i, "score": 1.0} for i, s in enumerate(record["segments_info"], start=1)]
            evaluator.process([record], [{"panoptic_seg": (read_ground_truth(record), truth)}])
        evaluator.evaluate()
        (output / "model_final.pth").touch()
        entry = {"iteration": 0, "total_loss": 1.0, "loss_class": 1.0}
        (output / "metrics.json").write_text(json.dumps(entry) + "\n")

    monkeypatch.setattr(demo, "train_net", train_net)
    return noted


def test_demo_writes_its_report_and_reuses_its_runs(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One training, one evaluation per other ensemble, a table, a page, a picture; nothing is run twice."""
    output = tmp_path / "demo"
    assert demo.main(["--output", str(output)]) == 0
    assert runs == ["possam --resume", "geometric --eval-only", "ldp --eval-only", "clip --eval-only"]
    first = capsys.readouterr().out
    assert "unseen" in first and "100.0" in first
    page = (output / "report.html").read_text()
    assert "Panoptic quality" in page and "3 pictures" in page and page.count("<img") == 9
    assert (output / "picture.jpg").stat().st_size

    assert demo.main(["--output", str(output)]) == 0
    assert len(runs) == 4
    assert "trained and tested already" in capsys.readouterr().out


def test_interrupted_evaluation_is_made_up_for(runs: list[str], tmp_path: Path) -> None:
    """Resuming: of the ensembles only the missing one is tested again."""
    output = tmp_path / "demo"
    demo.main(["--output", str(output)])
    demo.quality_file(output / "ensembles" / "ldp").unlink()
    demo.main(["--output", str(output)])
    assert runs[4:] == ["ldp --eval-only"]


def test_other_options_need_another_folder(runs: list[str], tmp_path: Path) -> None:
    """Error: a folder with another seed's demo, or with something else, is left as it is."""
    demo.main(["--output", str(tmp_path / "demo")])
    with pytest.raises(UserError, match="seed 0, not 1"):
        demo.main(["--output", str(tmp_path / "demo"), "--seed", "1"])
    with pytest.raises(UserError, match="holds no demo"):
        demo.main(["--output", str(tmp_path)])


def test_durations_are_readable() -> None:
    """Derived by hand."""
    assert [demo.duration(seconds) for seconds in (0.4, 59.6, 501)] == ["0 s", "1 min 0 s", "8 min 21 s"]
