"""Stock detectors of Detectron2 whose objects PLUG completes: outputs, state, training, evaluation, files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultPredictor
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import BitMasks, Boxes, Instances, RotatedBoxes
from detectron2.utils.events import EventStorage
from detectron2.utils.visualizer import Visualizer
from torch import Tensor, nn

import detectron2_sam
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.plugin.amodal_detector import AmodalDetector, build_completer
from detectron2_sam.plugin.compat import stock_config
from detectron2_sam.plugin.evaluation import build_evaluator
from plug.structures import AmodalInstances
from sam_common.data import catalog
from sam_common.errors import UserError
from tests.detectron2_sam.plugin.test_engines import assert_same

NAME = "generated_test_amodal"
MASK_RCNN, RETINANET = (
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
)
STOCK_OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 4,
    "INPUT.MIN_SIZE_TEST": 64,
    "DATALOADER.NUM_WORKERS": 0,
}
"""A stock configuration as small as it gets, that finds something untrained."""


@pytest.fixture
def plug_config(tmp_path: Path) -> Path:
    """A file of a small PLUG, as a user has one."""
    path = tmp_path / "plug.yaml"
    small = {"CROP_SIZE": 32, "NUM_POINTS": 32, "REFINE_WIDTH": 4}
    path.write_text(json.dumps({"_BASE_": "plug_T.yaml", "MODEL": {"PLUG": small}}))
    return path


def stock_cfg(name: str, **options: Any) -> CfgNode:
    detectron2_sam.register()
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(str(stock_config(name)))
    cfg.merge_from_list([word for pair in {**STOCK_OPTIONS, **options}.items() for word in pair])
    return cfg


def amodal(cfg: CfgNode, plug_config: Path) -> CfgNode:
    """What a user changes of a detector's configuration."""
    cfg = cfg.clone()
    cfg.MODEL.AMODAL_DETECTOR.DETECTOR = cfg.MODEL.META_ARCHITECTURE
    cfg.MODEL.META_ARCHITECTURE = "AmodalDetector"
    cfg.MODEL.AMODAL_DETECTOR.PLUG_CONFIG, cfg.MODEL.AMODAL_DETECTOR.PLUG_WEIGHTS = str(plug_config), "random"
    return cfg


def saved(cfg: CfgNode, path: Path) -> nn.Module:
    """The stock model, and its weights as Detectron2's own checkpointer leaves them."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.save({"model": model.state_dict()}, path)
    cfg.MODEL.WEIGHTS = str(path)
    return model


def plain_fields(found: Instances) -> dict[str, Tensor]:
    return {name: value.tensor if isinstance(value, Boxes) else value for name, value in found.get_fields().items()}


def test_a_detector_of_a_lazy_config(plug_config: Path) -> None:
    """FCOS, which Detectron2 describes in a LazyConfig only: the object is given as the detector, its fields stay."""
    torch.manual_seed(0)
    described = LazyConfig.load(str(stock_config("COCO-Detection/fcos_R_50_FPN_1x.py"))).model
    described.test_score_thresh = 0.0
    detector = instantiate(described).eval()
    entry = {"image": torch.randint(0, 256, (3, 64, 96)).float(), "height": 48, "width": 72}
    model = AmodalDetector(detector, build_completer(str(plug_config), "random")).eval()
    detector.max_detections_per_image = 3
    with torch.no_grad():
        expected, found = detector([entry])[0]["instances"], model([entry])[0]["instances"]
    assert len(found) == 3 and found.pred_amodal_masks.shape == (3, 48, 72)
    assert_same(plain_fields(expected), {field: plain_fields(found)[field] for field in expected.get_fields()})


@pytest.mark.parametrize("name", [MASK_RCNN, RETINANET], ids=["masks", "boxes"])
def test_a_stock_detector_gets_amodal_fields(name: str, tmp_path: Path, plug_config: Path) -> None:
    """Through DefaultPredictor, which resizes and flips colours: the detector's own fields stay as they are, and beside
    them is what PLUG makes of its boxes in the image of that size; Visualizer draws it."""
    cfg = stock_cfg(name)
    saved(cfg, tmp_path / "detector.pth")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    expected = DefaultPredictor(cfg)(image)["instances"]
    predictor = DefaultPredictor(amodal(cfg, plug_config))
    found = predictor(image)["instances"]
    assert len(found) == 4 and found.image_size == (48, 64)
    assert_same(plain_fields(expected), {field: plain_fields(found)[field] for field in expected.get_fields()})

    cfg.INPUT.MIN_SIZE_TEST = 0  # PLUG and the detector both see the image as it is
    predictor.aug = DefaultPredictor(cfg).aug
    found = predictor(image)["instances"]
    rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)
    with torch.no_grad():
        plain = predictor.model.completer([{"image": rgb, "boxes": found.pred_boxes.tensor}])[0]["amodal"]
    for index in range(len(found)):
        assert torch.equal(found.pred_amodal_masks[index], plain.amodal_mask(index))
        assert torch.equal(found.pred_visible_masks[index], plain.visible_mask(index))
    assert torch.equal(found.amodal_scores, plain.scores)

    whole = detectron2_sam.whole_objects(found)
    assert torch.equal(whole.pred_masks, found.pred_amodal_masks) and torch.equal(whole.scores, found.scores)
    drawn = Visualizer(image[:, :, ::-1]).draw_instance_predictions(whole)
    assert drawn.get_image().shape == image.shape


class OneBox(nn.Module):
    """A detector that finds a given box in every image, in pixels of `height` and `width`."""

    def __init__(self, *boxes: list[float]) -> None:
        super().__init__()
        self.boxes = torch.tensor(boxes).reshape(-1, 4)

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sizes = [(entry["height"], entry["width"]) for entry in batch]
        fields = {"scores": torch.ones(len(self.boxes)), "pred_classes": torch.zeros(len(self.boxes)).long()}
        return [{"instances": Instances(size, pred_boxes=Boxes(self.boxes), **fields)} for size in sizes]


class Bright(nn.Module):
    """In the place of PLUG: the bright pixels of an image, for each box."""

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"amodal": self.objects(entry["image"].mean(0) > 128, entry["boxes"])} for entry in batch]

    def objects(self, mask: Tensor, boxes: Tensor) -> AmodalInstances:
        (height, width), count = mask.shape, len(boxes)
        windows = [(0, 0, width, height)] * count
        return AmodalInstances((height, width), boxes, torch.ones(count), windows, [mask] * count, None)


def test_masks_are_of_the_size_that_is_asked_for() -> None:
    """An image that was enlarged ×2 for the detector: PLUG's frame, like the detector's boxes, is the original."""
    image = torch.zeros(3, 96, 128)
    image[:, 20:60, 64:] = 255
    completer: Any = Bright()
    model = AmodalDetector(OneBox([8, 8, 40, 30]), completer, input_format="RGB").eval()
    output = model([{"image": image, "height": 48, "width": 64}])[0]
    expected = torch.zeros(1, 48, 64, dtype=torch.bool)
    expected[:, 10:30, 32:] = True
    assert torch.equal(output["instances"].pred_amodal_masks, expected)
    assert output["amodal"].image_size == (48, 64) and not output["instances"].has("pred_visible_masks")


def test_nothing_found_is_nothing_to_complete(plug_config: Path) -> None:
    """Edge: no boxes, and masks of the right shape."""
    model = AmodalDetector(OneBox(), build_completer(str(plug_config), "random")).eval()
    found = model([{"image": torch.zeros(3, 48, 64), "height": 48, "width": 64}])[0]["instances"]
    assert found.pred_amodal_masks.shape == found.pred_visible_masks.shape == (0, 48, 64)


def test_boxes_without_area_are_left_out() -> None:
    """Edge: of a detector that, unlike Detectron2's own, keeps empty boxes, boxes outside the image and boxes that are
    no numbers, what can be completed is; of a box that reaches out, PLUG is given the part inside."""
    boxes = [[9.0, 9, 9, 30], [70, 10, 90, 30], [8, 8, math.nan, 30], [40, 20, 90, 90]]
    completer: Any = Bright()
    model = AmodalDetector(OneBox(*boxes), completer).eval()
    output = model([{"image": torch.zeros(3, 48, 64), "height": 48, "width": 64}])[0]
    assert output["instances"].pred_boxes.tensor.tolist() == boxes[3:]
    assert output["amodal"].pred_boxes.tolist() == [[40, 20, 64, 48]]


def test_what_finds_no_instances_is_named(plug_config: Path) -> None:
    """Error: a network of proposals alone has no objects to complete."""
    model = build_model(amodal(stock_cfg("COCO-Detection/rpn_R_50_FPN_1x.yaml"), plug_config)).eval()
    with pytest.raises(UserError, match="ProposalNetwork makes proposals, no instances"):
        model([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "height": 64, "width": 64}])


def test_rotated_boxes_are_refused() -> None:
    """Error: PLUG is asked by upright boxes."""
    completer: Any = Bright()
    detector: Any = OneBox()
    found = Instances((48, 64), pred_boxes=RotatedBoxes(torch.tensor([[30.0, 20, 10, 10, 45]])))
    detector.forward = lambda batch: [{"instances": found}]
    with pytest.raises(UserError, match="boxes are rotated, and PLUG is asked by upright ones"):
        AmodalDetector(detector, completer).eval()([{"image": torch.zeros(3, 48, 64)}])


@pytest.mark.parametrize("boxes", [None, [[0.0, 0, 0, 0], [0, 0, 0, 0], [2, 3, 9, 9]]], ids=["no boxes", "zeros"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_boxes_are_those_of_masks_where_a_detector_has_none(dtype: torch.dtype, boxes: Any) -> None:
    """As of Mask2Former, whose masks are 0.0 and 1.0 and whose boxes are zeros; a mask without a pixel is skipped, and
    a box that has an area stays."""
    masks = torch.zeros(3, 48, 64, dtype=dtype)
    masks[0, 10:30, 20:50] = 1
    masks[2, 5:25, 1:7] = 1
    found = Instances((48, 64), pred_masks=masks, scores=torch.ones(3), pred_classes=torch.arange(3))
    if boxes:
        found.pred_boxes = Boxes(boxes)
    detector, completer = cast(Any, OneBox()), cast(Any, Bright())
    detector.forward = lambda batch: [{"instances": found}]
    whole = AmodalDetector(detector, completer).eval()([{"image": torch.zeros(3, 48, 64)}])[0]["instances"]
    assert whole.pred_boxes.tensor.tolist() == [[20, 10, 50, 30], [2, 3, 9, 9] if boxes else [1, 5, 7, 25]]
    assert whole.pred_classes.tolist() == [0, 2] and len(whole.pred_amodal_masks) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "OneBox have neither pred_boxes nor pred_masks"),
        ({"pred_boxes": Boxes(torch.zeros(1, 4))}, "no box of OneBox has an area"),
        ({"pred_masks": torch.ones(1, 1, 28, 28)}, "pred_masks of OneBox are not of the image's size"),
    ],
)
def test_objects_that_are_nowhere_are_an_error(fields: dict[str, Any], message: str) -> None:
    """They would all be lost without a word."""
    detector, completer = cast(Any, OneBox()), cast(Any, Bright())
    detector.forward = lambda batch: [{"instances": Instances((48, 64), scores=torch.ones(1), **fields)}]
    with pytest.raises(UserError, match=message):
        AmodalDetector(detector, completer).eval()([{"image": torch.zeros(3, 48, 64)}])


def test_it_completes_what_test_time_augmentation_finds(plug_config: Path) -> None:
    """Around Detectron2's `GeneralizedRCNNWithTTA`, which itself goes around its own R-CNN only."""
    cfg = stock_cfg(MASK_RCNN, **{"TEST.AUG.MIN_SIZES": (48, 64), "TEST.AUG.FLIP": False})
    augmented = GeneralizedRCNNWithTTA(cfg, build_model(cfg).eval())
    model = AmodalDetector(augmented, build_completer(str(plug_config), "random")).eval()
    entry = {"image": torch.randint(256, (3, 64, 64), dtype=torch.uint8), "height": 64, "width": 64}
    with torch.no_grad():
        found = model([entry])[0]["instances"]
    assert len(found) and found.pred_amodal_masks.shape == (len(found), 64, 64)


def test_what_trains_and_is_saved_is_the_detector(tmp_path: Path, plug_config: Path) -> None:
    """Its losses and gradients in training, its state under its own names, both ways; PLUG stays as it is."""
    cfg = stock_cfg(MASK_RCNN)
    stock = saved(cfg, tmp_path / "detector.pth")
    model: Any = build_model(amodal(cfg, plug_config))
    assert model.state_dict().keys() == stock.state_dict().keys()
    model.load_state_dict(torch.load(tmp_path / "detector.pth", weights_only=True)["model"])
    assert_same(dict(model.state_dict()), dict(stock.state_dict()))
    wrapped = nn.ModuleDict({"inner": model})  # part of something else: all of it, both ways
    wrapped.load_state_dict(wrapped.state_dict())

    before = {name: value.clone() for name, value in model.completer.state_dict().items()}
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 10:40, 10:40] = True
    truth = {"gt_boxes": Boxes(torch.tensor([[10.0, 10, 40, 40]])), "gt_classes": torch.tensor([1])}
    entry = {"image": torch.zeros(3, 64, 64), "instances": Instances((64, 64), **truth, gt_masks=BitMasks(masks))}
    losses = []
    for trained in (model.train(), stock.train()):
        torch.manual_seed(1)
        with EventStorage():
            losses.append(trained([entry]))
    assert_same(*losses)
    assert not model.completer.training
    sum(losses[0].values()).backward()
    trains = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trains and all(name.startswith("detector.") for name in trains)
    assert_same(dict(model.completer.state_dict()), before)
    assert not any(parameter.requires_grad for parameter in model.completer.parameters())


@pytest.fixture
def detector(world: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Files of a RetinaNet: its configuration and its weights."""
    cfg = stock_cfg(RETINANET)
    saved(cfg, tmp_path / "detector.pth")
    stock = get_cfg()
    stock.merge_from_file(str(stock_config(RETINANET)))
    stock.merge_from_list([word for pair in STOCK_OPTIONS.items() for word in pair])
    (tmp_path / "detector.yaml").write_text(stock.dump())
    yield tmp_path / "detector.yaml", tmp_path / "detector.pth"


def report(output: Path) -> dict[str, Any]:
    found = json.loads((output / "inference" / NAME / "results.json").read_text())
    return {key: found[key] for key in ("results", "rules", "images")}


def test_it_scores_what_plug_scores_with_its_boxes(
    detector: tuple[Path, Path], world: Path, plug_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One evaluator, three ways: PLUG with the detector as its source of boxes, the two as one model through the tool,
    and that model in Detectron2's own loop, on its own loader. The numbers are the same."""
    yaml, weights = detector
    common = ("MODEL.DEVICE", "cpu", "DATASETS.TEST", f"('{NAME}',)", "INPUT.BOXES.MATCH_IOU", 0.05)

    def run(config: Path, output: str, *more: object) -> dict[str, Any]:
        given = ("--config-file", config, "--engine", "detectron2", "--eval-only", *common)
        train_net.main([str(word) for word in (*given, "OUTPUT_DIR", world / output, *more)])
        return report(world / output)

    plug_weights = world / "first" / "model_final.pth"
    train = ("MODEL.DEVICE", "cpu", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 1)
    given = ("--config-file", plug_config, "--engine", "fabric", *train, "OUTPUT_DIR", world / "first")
    train_net.main([str(word) for word in given])
    source = ("INPUT.BOXES.SOURCE", f"detectron2:{yaml},{weights}", "INPUT.BOXES.SCORE_THRESHOLD", 0.0)
    apart = run(plug_config, "apart", "MODEL.WEIGHTS", plug_weights, *source)

    keys = {"META_ARCHITECTURE": "AmodalDetector", "WEIGHTS": str(weights)}
    keys |= {"AMODAL_DETECTOR": {"DETECTOR": "RetinaNet", "PLUG_CONFIG": str(plug_config)}}
    keys["AMODAL_DETECTOR"]["PLUG_WEIGHTS"] = str(plug_weights)
    (yaml.parent / "amodal.yaml").write_text(json.dumps({"_BASE_": yaml.name, "MODEL": keys}))
    together = run(yaml.parent / "amodal.yaml", "together")
    assert together == apart and together["images"] == 2 and together["results"]["amodal"]["n"] > 0

    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(str(yaml.parent / "amodal.yaml"))
    cfg.merge_from_list([*common])
    model = DefaultPredictor(cfg).model
    loop = inference_on_dataset(model, build_detection_test_loader(cfg, NAME), build_evaluator(cfg, NAME, world / "x"))
    for task, numbers in together["results"].items():  # NaN is null in a file
        assert loop[task] == pytest.approx(
            {key: value if value is not None else math.nan for key, value in numbers.items()}, nan_ok=True, abs=0
        )

    refused = ["--config-file", str(yaml.parent / "amodal.yaml"), "--engine", "detectron2", "OUTPUT_DIR", "x"]
    assert run_tool(lambda: train_net.main([*refused, "MODEL.DEVICE", "cpu"])) == 2
    assert "train its detector with Detectron2's own tools/train_net.py" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["AmodalDetector", "NoSuchNet"])
def test_a_detector_and_weights_are_asked_for(name: str, plug_config: Path) -> None:
    """Error: itself, or a name that is in no registry; a PLUG without weights. In one line."""
    cfg = amodal(stock_cfg(RETINANET), plug_config)
    cfg.MODEL.AMODAL_DETECTOR.DETECTOR = name
    with pytest.raises(UserError, match=rf"DETECTOR is '{name}'; give the META_ARCHITECTURE of a detector"):
        build_model(cfg)
    with pytest.raises(UserError, match=r"plug\.yaml\) has no weights: .* MODEL\.AMODAL_DETECTOR\.PLUG_WEIGHTS"):
        build_completer(str(plug_config), "")
    cfg.INPUT.FORMAT = "YUV-BT.601"
    with pytest.raises(UserError, match=r"INPUT\.FORMAT, of what PLUG sees as well, is 'YUV-BT.601'"):
        build_model(cfg)


def test_the_shipped_file_is_the_stock_detectors() -> None:
    """configs/detectron2: every key of the model zoo's Mask R-CNN, but for the few that make it amodal."""
    cfgs: list[CfgNode] = []
    for path in (stock_config(MASK_RCNN), "configs/detectron2/amodal_mask_rcnn_R_50_FPN.yaml"):
        cfgs.append(get_cfg())
        detectron2_sam.add_config(cfgs[-1])
        cfgs[-1].merge_from_file(str(path))
    stock, ours = cfgs
    ours.MODEL.META_ARCHITECTURE, ours.MODEL.WEIGHTS = stock.MODEL.META_ARCHITECTURE, stock.MODEL.WEIGHTS
    ours.MODEL.ROI_HEADS.SCORE_THRESH_TEST = stock.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    assert ours.MODEL == stock.MODEL


def test_the_lazy_config_builds_one(plug_config: Path) -> None:
    """Detectron2's own LazyConfig API: its Mask R-CNN by LazyCall, and PLUG, answer for an image."""
    config = LazyConfig.load("configs/detectron2/amodal_mask_rcnn.py")
    config.model.completer.config_file, config.model.completer.weights = str(plug_config), "random"
    config.model.detector.roi_heads.box_predictor.test_score_thresh = 0.0
    config.model.detector.roi_heads.box_predictor.test_topk_per_image = 2
    stages = config.model.detector.backbone.bottom_up.stages
    stages.depth = 18  # untrained, deeper ones find nothing
    del stages.stride_in_1x1
    torch.manual_seed(0)
    model = instantiate(config.model).eval()
    with torch.no_grad():
        found = model([{"image": torch.rand(3, 64, 64) * 255, "height": 32, "width": 32}])[0]["instances"]
    masks: Tensor = found.pred_amodal_masks
    assert masks.shape == (2, 32, 32) and found.pred_masks.shape == (2, 32, 32)


def test_our_catalog_has_the_records(world: Path) -> None:
    """Detectron2's mapper reads them: an image, its size and its id, which the evaluator matches by."""
    (entry,) = next(iter(build_detection_test_loader(stock_cfg(MASK_RCNN), NAME)))
    record = next(record for record in catalog.get(NAME).load() if record["image_id"] == entry["image_id"])
    assert (entry["height"], entry["width"]) == (record["height"], record["width"])
