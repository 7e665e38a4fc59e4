"""detectron2-sam doctor: what it finds, what it says to do, and that nothing makes it fall over."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detectron2_sam.commands import doctor
from sam_common.io.weights import OFFICIAL

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "doctor.py"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets and the hub's cache lie in an empty folder."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.delenv("DETECTRON2_SAM_SAMPLES", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def by_name(*arguments: str) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(*arguments)}


def test_what_runs_the_tests_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    """The packages that import here are found with their versions, and nothing that is needed is missing: exit 0."""
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "What is needed is here." in printed and "!!" not in printed
    assert f"ok torch                      {importlib.import_module('torch').__version__.split('+')[0]}" in printed
    assert all(package in printed for package in doctor.PACKAGES)


def test_every_missing_thing_comes_with_its_fix() -> None:
    """Invariant: nothing is reported missing without a command or a file; what is here needs none."""
    for finding in doctor.examine():
        assert bool(finding.fix) != finding.found, finding
        assert "\n" not in finding.detail + finding.fix


def test_data_sets_and_weights_are_looked_for_where_they_belong(tmp_path: Path) -> None:
    """Derived by hand: the missing file is named with its path; official weights with address and place."""
    found = by_name()
    coco = found["coco_2017_val_panoptic"]
    assert not coco.found and str(tmp_path / "coco" / "annotations" / "panoptic_val2017.json") in coco.detail
    assert found["generated_train_panoptic"].fix == "detectron2-sam prepare generated"
    assert OFFICIAL["sam_vit_h"].url in found["sam_vit_h"].fix and "sam_vit_h_4b8939.pth" in found["sam_vit_h"].fix
    assert "https://huggingface.co/laion/" in found["laion2b_s29b_b131k_ft_soup"].fix


def test_the_kernel_of_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case table: one that was not tried on a GPU says so; PyTorch's comes with what makes it faster."""
    used = "possam.deformable_attention.operator.kernel_in_use"
    monkeypatch.setattr(used, lambda device: "triton (no CUDA build)")
    finding = doctor._kernel(torch.device("cuda"))
    assert finding.found and finding.detail.startswith("triton (no CUDA build); not yet run on a GPU")
    monkeypatch.setattr(used, lambda device: "pytorch (Triton is not installed)")
    finding = doctor._kernel(torch.device("cuda"))
    assert not finding.found and not finding.needed and "triton>=3.3" in finding.fix


def test_a_configuration_makes_its_parts_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Derived by hand: possam_B trains on COCO with official weights; possam_T needs the generated world only."""
    needed = {name for name, finding in by_name("configs/possam_B.yaml").items() if finding.needed}
    assert {"sam_vit_b", "laion2b_s29b_b131k_ft_soup", "coco_2017_train_panoptic", "ade20k_panoptic_val"} <= needed
    assert "coco_2017_train" not in needed
    assert {n for n, f in by_name("configs/plug_B_kins.yaml").items() if f.needed and not f.found} == {
        *("sam_vit_b", "kins_train", "kins_val")  # and no CLIP
    }
    assert doctor.main(["--config-file", "configs/possam_B.yaml"]) == 1
    assert "!! sam_vit_b" in capsys.readouterr().out
    missing = [f.name for f in doctor.examine("configs/possam_T.yaml") if f.needed and not f.found]
    assert missing == ["generated_test_panoptic", "generated_train_panoptic"]


@pytest.mark.parametrize(
    ("config_file", "opts", "message"),
    [
        ("nowhere.yaml", (), "there is no configuration file nowhere.yaml"),
        ("configs/possam_T.yaml", ("MODEL.DEVICE", "tpu"), "MODEL.DEVICE is 'tpu'"),
        ("configs/possam_T.yaml", ("DATASETS.TRAIN", "('mine',)"), "unknown data set 'mine'"),
        ("configs/possam_T.yaml", ("MODEL.WEIGHTS", "gone.pth"), "not here"),
    ],
)
def test_a_wrong_configuration_is_a_finding(config_file: str, opts: tuple[str, ...], message: str) -> None:
    """Error: a missing file, an unknown device, data set and weight file are findings that are needed."""
    assert any(message in finding.detail and finding.needed for finding in doctor.examine(config_file, opts))


def test_the_json_is_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Equality: the JSON holds the findings, field by field."""
    assert doctor.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["name"]: entry["found"] for entry in found} == {n: f.found for n, f in by_name().items()}
    assert found[0].keys() == {"section", "name", "found", "detail", "fix", "needed", "downloads"}


def test_without_any_package_it_still_reports() -> None:
    """Edge case: a Python without site-packages gets a pip command for each package, exit status 1, no traceback."""
    run = subprocess.run([sys.executable, "-I", "-S", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "Traceback" not in run.stdout + run.stderr
    for package in doctor.PACKAGES:
        assert f'pip install "{package}' in run.stdout


def test_a_package_that_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: OpenCV without its system library raises at import; the line says so."""
    real = importlib.import_module

    def broken(name: str) -> object:
        if name == "cv2":
            raise OSError("libGL.so.1: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    finding = by_name()["opencv-python-headless"]
    assert not finding.found and finding.needed and "libGL.so.1" in finding.detail


@pytest.mark.parametrize(
    ("version", "bound", "fits"),
    [("2.4.0+cu121", ">=2.4", True), ("5.0.1", "<5,>=4.8", False), ("2.5.0rc1", ">=2.4", True)],
)
def test_version_bounds(version: str, bound: str, fits: bool) -> None:
    """Case table: local and pre-release versions count."""
    assert doctor._satisfies(version, bound) is fits


def test_boxes_are_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector's weights, which a run downloads; a package and a file, which it does not; boxes that need neither."""
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path))

    def look(source: str) -> list[doctor.Finding]:
        found = doctor.examine("configs/amsam_T.yaml", ("INPUT.BOXES.SOURCE", source))
        return [finding for finding in found if finding.section == "boxes"]

    assert look("ground_truth") == look("opencv_hog_people") == []
    (weights,) = look("fasterrcnn_resnet50_fpn_v2")
    assert weights.needed and not weights.found and weights.downloads and "https://download.pytorch.org" in weights.fix
    (boxes,) = look(f"{tmp_path}/boxes.json")
    assert boxes.needed and not boxes.found and not boxes.downloads
    package, file = look(f"ultralytics:{tmp_path}/yolov8n.pt")
    assert package.name == "ultralytics" and "AGPL-3.0" in (package.fix or "AGPL-3.0")
    assert not file.found and "https://github.com/ultralytics/assets" in file.fix
    (tmp_path / "yolov8n.pt").write_bytes(b"PK\x03\x04")
    assert look(f"ultralytics:{tmp_path}/yolov8n.pt")[1].found
    (tmp_path / "yolov8n.pt").write_bytes(b"")
    assert not look(f"ultralytics:{tmp_path}/yolov8n.pt")[1].found
    for content, usable in (("[]", True), ("<html>", False)):
        (tmp_path / "boxes.json").write_text(content)
        assert look(f"{tmp_path}/boxes.json")[0].found is usable


def test_what_a_failed_download_left_is_not_called_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pointer in place of weights, and a page under the name of official ones, whose SHA-256 is another."""
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path))
    (tmp_path / "sam_vit_b_01ec64.pth").write_text("<html>")
    finding = by_name()["sam_vit_b"]
    assert not finding.found and "SHA-256" in finding.detail and finding.fix.startswith("curl")
    (tmp_path / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1")
    lfs = str(tmp_path / "lfs.pth")
    finding = by_name("configs/possam_T.yaml", ("MODEL.SAM.WEIGHTS", lfs))[lfs]
    assert not finding.found and finding.needed and "git lfs pull" in finding.detail
