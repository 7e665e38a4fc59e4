"""PLUG inside Detectron2: one training under both engines, its evaluation, inputs and outputs of Detectron2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.visualizer import Visualizer

import detectron2_sam
from detectron2_sam.commands import train as train_net
from detectron2_sam.plugin.datasets import spec_of
from detectron2_sam.plugin.structures import boxes_of
from sam_common.errors import UserError
from tests.detectron2_sam.plugin.test_engines import assert_same, losses, trained

NAME = "generated_test_amodal"
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.PLUG.CROP_SIZE": 32,
    "MODEL.PLUG.NUM_POINTS": 32,
    "MODEL.PLUG.REFINE_WIDTH": 4,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.WARMUP_ITERS": 2,
    "SOLVER.CHECKPOINT_PERIOD": 2,
}


def command(engine: str, output: Path, *more: object, flags: tuple[str, ...] = ()) -> list[str]:
    pairs = [str(word) for pair in {**SMALL, "OUTPUT_DIR": output}.items() for word in pair]
    return ["--config-file", "configs/plug_T.yaml", "--engine", engine, *flags, *pairs, *map(str, more)]


@pytest.fixture
def run(world: Path) -> Any:
    """Runs detectron2-sam train under an engine and gives its output folder."""

    def start(engine: str, name: str, *more: object, flags: tuple[str, ...] = ()) -> Path:
        train_net.main(command(engine, world / name, "DATASETS.TEST", "()", *more, flags=flags))
        return world / name

    return start


def model() -> Any:
    detectron2_sam.register()
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file("configs/plug_T.yaml")
    cfg.merge_from_list([word for pair in SMALL.items() for word in pair])
    torch.manual_seed(0)
    return build_model(cfg)


def test_one_step_is_the_same_under_both(run: Any) -> None:
    """One batch and seed: every loss, weight, moment and batch statistic after the step, to the last bit."""
    ours, theirs = (run(engine, engine, "SOLVER.MAX_ITER", 1) for engine in ("fabric", "detectron2"))
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-6)  # the sum is taken in another order
    assert_same(trained(ours), trained(theirs))


def test_a_run_goes_on_under_the_other_engine(run: Any) -> None:
    """Two iterations under fabric, two more under Detectron2: the straight run, to the last bit."""
    straight, parts = run("fabric", "straight"), run("fabric", "parts")
    (parts / "last_checkpoint").write_text("model_0000001.pth")
    (parts / "model_final.pth").unlink()
    torch.manual_seed(12345)
    run("detectron2", "parts", flags=("--resume",))
    assert_same(trained(parts), trained(straight))


def test_both_engines_report_the_same(world: Path, run: Any) -> None:
    """The same weights, judged by our evaluator under either; the other name in the table is Table 2's first row."""
    weights = run("fabric", "first", "SOLVER.MAX_ITER", 1) / "model_final.pth"
    for options in (("MODEL.WEIGHTS", weights), ("MODEL.META_ARCHITECTURE", "VanillaSAM")):
        found = []
        for engine in ("fabric", "detectron2"):
            output = world / f"{engine}_{options[0]}"
            train_net.main(command(engine, output, *options, flags=("--eval-only",)))
            report = json.loads((output / "inference" / NAME / "results.json").read_text())
            found.append({key: report[key] for key in ("results", "rules", "images")})
        assert found[0] == found[1] and found[0]["results"]["amodal"]["n"] > 0


def test_the_catalogs_know_amodal_data_sets(world: Path) -> None:
    """Records and classes under Detectron2's names, and our spec back from there."""
    metadata = MetadataCatalog.get(NAME)
    assert metadata.evaluator_type == "amodal" and len(metadata.thing_classes) == 48
    assert "visible_segmentation" in DatasetCatalog.get(NAME)[0]["annotations"][0]
    assert spec_of(NAME).truth == "amodal"


def test_what_a_detector_found_is_completed_and_drawn() -> None:
    """Detectron2's instances in (boxes, classes), its instances out, in their order; its Visualizer takes them."""
    completer = model().eval()
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    boxes = torch.tensor([[4.0, 4, 24, 30], [20, 10, 60, 40]])
    found = Instances((48, 64), pred_boxes=Boxes(boxes), pred_classes=torch.tensor([3, 1]), scores=torch.ones(2))
    with torch.no_grad():
        output = completer([{"image": image, "instances": found}])[0]
        plain = completer([{"image": image, "boxes": boxes}])[0]["amodal"]
        none = completer([{"image": image, "proposals": Instances((48, 64), proposal_boxes=Boxes(boxes[:0]))}])[0]
    whole = output["instances"]
    assert whole.pred_classes.tolist() == [3, 1] and torch.equal(whole.pred_boxes.tensor, boxes)
    for index in range(2):
        assert torch.equal(whole.pred_masks[index], plain.amodal_mask(index))
        assert torch.equal(whole.pred_visible_masks[index], plain.visible_mask(index))
    assert none["instances"].pred_masks.shape == (0, 48, 64)
    drawn = Visualizer(image.permute(1, 2, 0).numpy()).draw_instance_predictions(whole)
    assert drawn.get_image().dtype == np.uint8
    with pytest.raises(UserError, match="has no boxes: give boxes, instances or proposals"):
        completer([{"image": image}])


@pytest.mark.parametrize(
    ("box", "message"),
    [([4, 4, 4, 30], "no area"), ([70, 4, 80, 30], "outside"), ([float("nan"), 4, 9, 9], "no number")],
)
def test_boxes_that_cannot_be_asked_about(box: list[float], message: str) -> None:
    """Error: the file and the box are named, whatever the boxes come in."""
    found = Instances((48, 64), pred_boxes=Boxes(torch.tensor([[4, 4, 24, 30], box])))
    with pytest.raises(UserError, match=rf"a\.jpg: box 1, .* {message}"):
        boxes_of({"file_name": "a.jpg", "image": torch.zeros(3, 48, 64), "instances": found})


def test_only_what_trains_is_in_the_state() -> None:
    """Any checkpointer writes LoRA, decoders, prompts and refinement, and not SAM's encoder."""
    names = model().state_dict().keys()
    assert {name.partition(".")[0] for name in names} == {"encoder", "prompt_encoder", "decoders", "refine"}
    assert all(name.endswith((".up", ".down")) for name in names if name.startswith("encoder."))
