"""The meta-architecture, the backbone and the head, as Detectron2 builds and feeds them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.visualizer import Visualizer

import detectron2_sam
from detectron2_sam import metadata_of
from detectron2_sam.plugin.structures import to_segments
from possam import parse_vocabulary
from sam_common.data import catalog
from sam_common.engine.checkpoint import trained_state
from sam_common.errors import UserError
from sam_common.structures import Segments
from tests.support.small_cfg import small_cfg

NAME = "generated_test_panoptic"


@pytest.fixture
def model(world: Path, tmp_path: Path) -> torch.nn.Module:
    return build_model(small_cfg(tmp_path / "run"))


def picture(world: Path) -> np.ndarray:
    """A test scene as `cv2.imread` gives it: BGR."""
    return cv2.imread(catalog.get(NAME).load()[0]["file_name"])


def test_the_backbone_tells_the_truth_about_itself(world: Path, tmp_path: Path) -> None:
    """`output_shape` and `size_divisibility` hold for an image that is no square; frozen unless FREEZE_AT is 0."""
    cfg = small_cfg(tmp_path)
    backbone = build_backbone(cfg)
    assert backbone.size_divisibility == backbone.padding_constraints["size_divisibility"] == 32
    maps = backbone(torch.randn(2, 3, 96, 64))
    assert maps.keys() == backbone.output_shape().keys() == {"p2", "p3", "p4", "p5", "p6"}
    for name, shape in backbone.output_shape().items():
        expected = (2, shape.channels, -(-96 // shape.stride), -(-64 // shape.stride))
        assert maps[name].shape == expected, name
    assert not any(p.requires_grad for p in backbone.image_encoder.parameters())
    assert all(p.requires_grad for p in backbone.feature_pyramid.parameters())
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    assert all(p.requires_grad for p in build_backbone(cfg).parameters())


def test_the_head_works_on_another_backbone(world: Path, tmp_path: Path) -> None:
    """PosSAM on Detectron2's ResNet with FPN: chosen by one line of YAML, all of it gets a gradient."""
    cfg = small_cfg(tmp_path, MODEL__BACKBONE__NAME="build_resnet_fpn_backbone", MODEL__BACKBONE__FREEZE_AT=0)
    cfg.merge_from_list(["MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]])
    cfg.merge_from_list(["MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.RESNETS.DEPTH", 18])
    cfg.merge_from_list(["MODEL.RESNETS.RES2_OUT_CHANNELS", 64])
    model = build_model(cfg).train()
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :32], masks[1, 32:] = True, True
    entry = {"image": torch.randint(0, 256, (3, 64, 64)), "segments": Segments(torch.tensor([0, 1]), masks)}
    sum(model([entry]).values()).backward()
    assert all(p.grad is not None for name, p in model.backbone.bottom_up.named_parameters() if "conv" in name)


def test_a_backbone_without_a_pyramid_is_refused(world: Path, tmp_path: Path) -> None:
    """The message says what the head needs and what it was given."""
    with pytest.raises(UserError, match=r"p2 … p5 of one width.*build_resnet_backbone gives res4"):
        build_model(small_cfg(tmp_path, MODEL__BACKBONE__NAME="build_resnet_backbone"))


def test_default_predictor_and_visualizer_take_it_unchanged(
    model: torch.nn.Module, world: Path, tmp_path: Path
) -> None:
    """Stock weights loading, stock prediction, stock drawing of all three outputs, named by the test set's classes."""
    run = tmp_path / "run"
    run.mkdir()
    model.training_vocabulary = catalog.get(NAME).load_vocabulary()[:3]
    DetectionCheckpointer(model, str(run)).save("model_final")
    cfg = small_cfg(run, MODEL__WEIGHTS=str(run / "model_final.pth"))
    cfg.MODEL.POSSAM.TEST.SEMANTIC_ON = cfg.MODEL.POSSAM.TEST.INSTANCE_ON = True
    predictor = DefaultPredictor(cfg)
    image = picture(world)
    outputs = predictor(image)
    assert predictor.model.training_vocabulary == model.training_vocabulary

    ids, segments = outputs["panoptic_seg"]
    assert ids.shape == image.shape[:2] and outputs["sem_seg"].shape == (56, *image.shape[:2])
    assert isinstance(outputs["instances"], Instances) and isinstance(outputs["instances"].pred_boxes, Boxes)
    metadata = MetadataCatalog.get(NAME)
    for draw in (
        lambda v: v.draw_panoptic_seg(ids, segments),
        lambda v: v.draw_sem_seg(outputs["sem_seg"].argmax(0)),
        lambda v: v.draw_instance_predictions(outputs["instances"]),
    ):
        drawn = draw(Visualizer(image[:, :, ::-1], metadata)).get_image()
        assert drawn.shape == image.shape and (drawn != image[:, :, ::-1]).any()


def test_words_can_be_set_at_any_time(model: torch.nn.Module, world: Path) -> None:
    """Free text under Detectron2: the model's `vocabulary`, or an input's own, before that of the test set."""
    entry = {"image": torch.from_numpy(picture(world)[:, :, ::-1].copy()).permute(2, 0, 1)}
    model.eval().inference = type(model.inference)(panoptic=False, semantic=True)
    assert len(model([entry])[0]["sem_seg"]) == 56
    model.vocabulary = parse_vocabulary("dog|puppy, cat; sky, grass:stuff")
    assert len(model([entry])[0]["sem_seg"]) == 4
    assert len(model([{**entry, "vocabulary": model.vocabulary[:1]}])[0]["sem_seg"]) == 1
    assert metadata_of(model.vocabulary).thing_classes == ["dog", "cat", "sky", "grass"]


def test_without_any_words_it_says_how_to_give_some(world: Path, tmp_path: Path) -> None:
    """An untrained model without a test set has nothing to look for."""
    cfg = small_cfg(tmp_path)
    cfg.DATASETS.TEST = ()
    with pytest.raises(UserError, match=r"set model\.vocabulary"):
        build_model(cfg).eval()([{"image": torch.zeros(3, 64, 64)}])


def test_training_inputs_without_words_have_those_of_the_training_set(model: torch.nn.Module, world: Path) -> None:
    """Not those of the test set, whose indices mean other classes; a class beyond them is named."""
    entry = {"image": torch.zeros(3, 64, 64), "sem_seg": torch.zeros(64, 64, dtype=torch.int64)}
    model.train()([entry])
    assert model.training_vocabulary == catalog.get("generated_train_panoptic").load_vocabulary()
    assert model.training_vocabulary != catalog.get(NAME).load_vocabulary()
    with pytest.raises(UserError, match=r"a\.png has the class 38, but the vocabulary has 38 classes"):
        model([{**entry, "file_name": "a.png", "sem_seg": entry["sem_seg"] + 38}])


def test_with_several_test_sets_an_input_must_say_its_words(world: Path, tmp_path: Path) -> None:
    """A loader's input could be of either; `DefaultPredictor`, which has no file, means the first."""
    model = build_model(small_cfg(tmp_path, DATASETS__TEST=(NAME, "generated_train_panoptic"))).eval()
    assert model([{"image": torch.zeros(3, 64, 64)}])
    with pytest.raises(UserError, match=r"a\.png: DATASETS\.TEST has several sets"):
        model([{"image": torch.zeros(3, 64, 64), "file_name": "a.png"}])


def test_detectron2s_own_mapper_feeds_the_training(model: torch.nn.Module, world: Path, tmp_path: Path) -> None:
    """The stock `DatasetMapper` with masks switched on; without them it says so instead of learning nothing."""
    scene = catalog.get("generated_train_panoptic").load()[0]
    polygon = [[8.0, 8.0, 40.0, 8.0, 40.0, 40.0, 8.0, 40.0]]
    annotation = {"bbox": [8.0, 8.0, 32.0, 32.0], "bbox_mode": 1, "category_id": 3, "segmentation": polygon}
    record = {key: scene[key] for key in ("file_name", "height", "width", "image_id")} | {"annotations": [annotation]}
    cfg = small_cfg(tmp_path, MODEL__MASK_ON=True, INPUT__MIN_SIZE_TRAIN=(64,))
    losses = model.train()([DatasetMapper(cfg, is_train=True)(record)])
    assert losses["loss_mask"] > 0 and losses["loss_dice"] > 0
    cfg.MODEL.MASK_ON = False
    with pytest.raises(UserError, match=r"no gt_masks.*MODEL\.MASK_ON True"):
        model([DatasetMapper(cfg, is_train=True)(record)])


def test_all_forms_of_ground_truth_are_one() -> None:
    """Bit masks, a tensor, polygons and a label map of two rectangles give the same segments."""
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 10:30, 5:25], masks[1, 5:35, 30:50] = True, True
    classes = torch.tensor([1, 3])
    polygons = [[np.array([5, 10, 25, 10, 25, 30, 5, 30.0])], [np.array([30, 5, 50, 5, 50, 35, 30, 35.0])]]
    labels = torch.full((40, 60), 255)
    labels[masks[0]], labels[masks[1]] = 1, 3
    image = {"image": torch.zeros(3, 40, 60)}
    for truth in (BitMasks(masks), masks, PolygonMasks(polygons)):
        found = to_segments({**image, "instances": Instances((40, 60), gt_classes=classes, gt_masks=truth)})
        assert torch.equal(found.gt_masks, masks) and torch.equal(found.gt_classes, classes)
    found = to_segments({**image, "sem_seg": labels})
    assert torch.equal(found.gt_masks, masks) and torch.equal(found.gt_classes, classes)
    assert len(to_segments({**image, "instances": Instances((40, 60))})) == 0
    with pytest.raises(UserError, match=r"a\.png has no ground truth"):
        to_segments({**image, "file_name": "a.png"})


def test_the_state_is_what_trains(model: torch.nn.Module) -> None:
    """Any checkpointer writes the trained part only, and loading it misses nothing; another model's is refused."""
    model.training_vocabulary = catalog.get(NAME).load_vocabulary()
    state = model.state_dict()
    assert state.keys() == trained_state(model).keys()
    assert not any("image_encoder" in key or key.startswith("clip.") for key in state)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    keys = model.load_state_dict(state)
    assert not keys.missing_keys and not keys.unexpected_keys
    with pytest.raises(RuntimeError, match="another model"):
        model.load_state_dict({"a": torch.zeros(1)})


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder without data sets, and a small file of a model that was trained on two words."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    detectron2_sam.register()
    model = build_model(small_cfg(tmp_path))
    model.training_vocabulary = parse_vocabulary("red part\n- tan part")
    DetectionCheckpointer(model, str(tmp_path)).save("tiny")
    return tmp_path / "tiny.pth"


@pytest.mark.parametrize(
    ("name", "count"),
    [("ade20k_panoptic_val", 150), ("coco_2017_val_panoptic", 133), ("openvocab_pascal_ctx59_sem_seg_val", 59)],
)
def test_a_benchmark_is_drawn_where_it_is_not(elsewhere: Path, name: str, count: int) -> None:
    """Classes and metadata of a known benchmark are those that ship, one for one; its files are for evaluations."""
    cfg = small_cfg(elsewhere.parent, MODEL__WEIGHTS=str(elsewhere), DATASETS__TEST=(name,))
    predictor, image = DefaultPredictor(cfg), np.full((48, 64, 3), 99, np.uint8)
    found = predictor(image)["panoptic_seg"]
    words = predictor.model._test_words
    assert len(words) == count and len(predictor.model.training_vocabulary) == 2
    for category, shown in zip(words, predictor.metadata.stuff_classes, strict=True):
        assert category.name.split(",")[0] == shown.split(",")[0].strip()
    assert Visualizer(image, predictor.metadata).draw_panoptic_seg(*found).get_image().shape == image.shape
    assert not any(Path().iterdir())


def test_a_set_that_nobody_knows_is_searched_by_the_words_of_the_training(elsewhere: Path) -> None:
    """The file remembers them; metadata of these draws. Without any, the unknown name is the error."""
    cfg = small_cfg(elsewhere.parent, MODEL__WEIGHTS=str(elsewhere), DATASETS__TEST=("taken_elsewhere",))
    predictor, image = DefaultPredictor(cfg), np.full((48, 64, 3), 99, np.uint8)
    ids, segments = predictor(image)["panoptic_seg"]
    words = predictor.model.training_vocabulary
    assert segments and all(segment["category_id"] < 2 for segment in segments)
    drawn = Visualizer(image, metadata_of(words)).draw_panoptic_seg(ids, segments)
    assert drawn.get_image().shape == image.shape
    predictor.model.training_vocabulary = ()
    with pytest.raises(UserError, match="unknown data set 'taken_elsewhere'"):
        predictor(image)


def test_no_names_of_other_classes_are_drawn(elsewhere: Path) -> None:
    """Error: metadata that no vocabulary can be made of would name what the words of the training found."""
    name = "coco_2017_val_panoptic_separated"
    cfg = small_cfg(elsewhere.parent, MODEL__WEIGHTS=str(elsewhere), DATASETS__TEST=(name,))
    with pytest.raises(UserError, match="numbers things and stuff separately"):
        DefaultPredictor(cfg)(np.zeros((48, 64, 3), np.uint8))
