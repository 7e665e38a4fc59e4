"""AM-SAM inside Detectron2: one training under both engines, its validation, inputs and outputs of Detectron2."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor, HookBase
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.visualizer import Visualizer
from safetensors import safe_open

import detectron2_sam
from amsam.data.worms import write_worms
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.plugin.compat import stock_config
from detectron2_sam.plugin.datasets import spec_of
from detectron2_sam.plugin.trainer import Trainer
from sam_common.boxes.detectors import build_detector
from sam_common.errors import UserError
from tests.amsam.test_run import arguments
from tests.detectron2_sam.plugin.test_engines import assert_same, losses, trained

ENGINES = ("fabric", "detectron2")
NAME = "few_shot_test"


@pytest.fixture(scope="module")
def worms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of worms to learn from and two to test on."""
    root = tmp_path_factory.mktemp("worms")
    for split, first_index, count in (("pool", 0, 6), ("test", 50, 2)):
        write_worms(root / split, seed=0, first_index=first_index, count=count, size=64)
    return root


@pytest.fixture
def run(worms: Path, tmp_path: Path) -> Any:
    """Runs detectron2-sam train under an engine and gives its output folder."""

    def start(engine: str, name: str, *more: object, flags: tuple[str, ...] = ()) -> Path:
        train_net.main(arguments(worms, tmp_path / name, *more, flags=("--engine", engine, *flags)))
        return tmp_path / name

    return start


def report(output: Path) -> dict[str, Any]:
    found = json.loads((output / "inference" / NAME / "results.json").read_text())
    return {key: found[key] for key in ("results", "rules", "images", "checkpoint_choice")}


def model(*options: object) -> Any:
    return build_model(cfg_of(*options)).eval()


def cfg_of(*options: object) -> CfgNode:
    detectron2_sam.register()
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file("configs/amsam_T.yaml")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.AMSAM.IMAGE_SIZE", 64, *options])
    torch.manual_seed(0)
    return cfg


@pytest.mark.parametrize("gradient", ["first_order", "unrolled", "joint"])
def test_one_step_is_the_same_under_both(run: Any, gradient: str) -> None:
    """One batch of each half: every loss, weight and moment after the step, A's among them, to the last bit."""
    more = ("SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "MODEL.AMSAM.GRADIENT", gradient)
    ours, theirs = (run(engine, engine, *more) for engine in ENGINES)
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-6)  # the sum is taken in another order
    assert_same(trained(ours), trained(theirs))


def test_a_run_is_the_same_under_both(run: Any) -> None:
    """Six iterations: the order of both halves, both rates, every validation, the weights kept, and their test."""
    ours, theirs = (run(engine, engine) for engine in ENGINES)
    assert_same(trained(ours), trained(theirs))
    best = [torch.load(output / "model_best.pth", weights_only=True) for output in (ours, theirs)]
    for key in ("model", "frozen_sha256", "iteration", "metrics", "seed"):
        assert_same(best[0][key], best[1][key], key)
    assert not best[1].keys() & {"optimizer", "scaler", "hooks"}
    adapters = [safe_open(output / "adapter.safetensors", "pt").metadata() for output in (ours, theirs)]
    assert adapters[0] == adapters[1]  # the settings have nothing of Detectron2's
    assert report(ours) == report(theirs)
    assert report(theirs)["checkpoint_choice"] == "best of the validation" and report(theirs)["images"] == 2
    assert "validation after iteration 3: few_shot/Dice" in (theirs / "log.txt").read_text()
    assert not list(theirs.glob("model_0*"))  # SOLVER.CHECKPOINT_PERIOD 0 is never


@pytest.mark.parametrize(("first", "second"), [ENGINES, ENGINES[::-1], ("detectron2", "detectron2")])
def test_a_run_goes_on_under_either_engine(run: Any, first: str, second: str) -> None:
    """Four iterations under one, two under the other: the straight run, and what was best before is not forgotten."""
    straight = run("fabric", "straight", "DATASETS.TEST", "()")
    more = ("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 4)
    parts = run(first, "parts", *more)
    (parts / "last_checkpoint").write_text("model_0000003.pth")
    (parts / "model_final.pth").unlink()
    torch.manual_seed(12345)
    run(second, "parts", *more, flags=("--resume",))
    assert_same(trained(parts), trained(straight))
    metrics = [torch.load(o / "model_final.pth", weights_only=True)["metrics"] for o in (parts, straight)]
    assert metrics[0] == metrics[1]


def test_both_engines_report_the_same(run: Any, tmp_path: Path) -> None:
    """The same weights, and the two baselines, judged by our evaluator under either."""
    weights = run("fabric", "first", "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()") / "model_best.pth"
    cases = {
        "AMSAM": ("MODEL.WEIGHTS", weights),
        "PromptedSAM": ("MODEL.META_ARCHITECTURE", "PromptedSAM"),
        "BoxRectangle": ("MODEL.META_ARCHITECTURE", "BoxRectangle"),
    }
    for name, options in cases.items():
        ours, theirs = (report(run(e, f"{name}_{e}", *options, flags=("--eval-only",))) for e in ENGINES)
        assert ours == theirs and ours["results"]["few_shot"]["n"] == 2


def test_what_has_no_place_in_two_levels(worms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, under both engines, before anything is trained; a method unknown here has the other engine."""
    cases = {
        "AMSAM trains in one process and one part: one device is enough": (("--num-gpus", "2"), ()),
        "AMSAM steps each level by itself and clips none": ((), ("SOLVER.CLIP_GRADIENTS.ENABLED", True)),
    }
    for engine in ENGINES:
        for message, (flags, more) in cases.items():
            given = arguments(worms, tmp_path / "run", *more, flags=("--engine", engine, *flags))
            assert run_tool(lambda given=given: train_net.main(given)) == 2
            error = capsys.readouterr().err
            assert message in error and error.splitlines()[-1].startswith("error: "), error
    given = arguments(worms, tmp_path / "run", "MODEL.META_ARCHITECTURE", "Other", flags=("--engine", "detectron2"))
    with pytest.raises(UserError, match=r"'Other' is not in Detectron2's registry.*AMSAM.*--engine fabric"):
        train_net.main(given)


def test_the_catalogs_know_folders_of_masks(run: Any, worms: Path) -> None:
    """Records and classes under Detectron2's names, our spec back from there, and a map of labels drawn by it."""
    run("detectron2", "any", "MODEL.META_ARCHITECTURE", "BoxRectangle", flags=("--eval-only",))
    metadata = MetadataCatalog.get(NAME)
    assert metadata.evaluator_type == "masks" and metadata.mask_root == str(worms / "test" / "masks")
    assert metadata.thing_classes == ["object"] and metadata.stuff_classes == ["background", "object"]
    assert len(DatasetCatalog.get(NAME)) == 2 and spec_of(NAME).truth == "masks"
    labels = np.arange(2).repeat(32 * 64).reshape(64, 64)
    Visualizer(np.zeros((64, 64, 3), np.uint8), metadata).draw_sem_seg(labels)


def test_the_box_of_a_detector_prompts() -> None:
    """Detectron2's instances, boxes, float images and nothing at all, as the model's own inputs."""
    segmenter = model()
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    boxes = torch.tensor([[4.0, 4, 24, 30], [20, 10, 60, 40]])
    found = Instances((48, 64), pred_boxes=Boxes(boxes), scores=torch.tensor([0.2, 0.9]))
    asked = [
        {"boxes": boxes[1:]},
        {"boxes": Boxes(boxes[1:])},
        {"instances": found},
        {"instances": found, "image": image.float()},
        {"proposals": Instances((48, 64), proposal_boxes=Boxes(boxes[1:]))},
    ]
    with torch.no_grad():
        first, *others = (segmenter([{"image": image, **entry}])[0]["few_shot"] for entry in asked)
        nothing = segmenter([{"image": image}])[0]["few_shot"]
        detector = {"instances": Instances((48, 64)), "proposals": asked[-1]["proposals"]}  # found nothing
        unboxed = segmenter([{"image": image, **detector}])[0]["few_shot"]
        whole = segmenter([{"image": image, "boxes": torch.tensor([[0.0, 0, 64, 48]])}])[0]["few_shot"]
        asked_size = segmenter([{"image": image, "height": 24, "width": 32}])[0]
    assert all(torch.equal(first, other) for other in others) and torch.equal(nothing, whole)
    assert torch.equal(unboxed, whole)
    assert not torch.equal(first, whole)
    assert asked_size["few_shot"].shape == (2, 48, 64) and asked_size["sem_seg"].shape == (2, 24, 32)
    with pytest.raises(UserError, match=r"a\.jpg: box 0, .* outside"):
        segmenter([{"file_name": "a.jpg", "image": image, "boxes": boxes[:1] + 100}])


def test_detectron2s_predictor_runs_it(worms: Path, tmp_path: Path) -> None:
    """DefaultPredictor, which resizes and gives floats, with a file of the part that trains: labels at the own size."""
    DetectionCheckpointer(model(), str(tmp_path)).save("model_final")
    cfg = cfg_of("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"), "INPUT.MIN_SIZE_TEST", 32, "DATASETS.TEST", "()")
    labels = DefaultPredictor(cfg)(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))["sem_seg"]
    assert labels.shape == (2, 40, 50) and torch.allclose(labels.sum(0), torch.ones(40, 50))


def test_labels_of_detectron2_train_it() -> None:
    """A `sem_seg` map in the place of labels gives the same losses, 255 for what is not known; neither is an error."""
    segmenter = model().train()
    image, labels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), torch.zeros(64, 64, dtype=torch.int64)
    labels[16:40, 16:40], labels[:4] = 1, -1
    sem_seg = torch.where(labels < 0, 255, labels).byte()
    ours, theirs = (segmenter([{"image": image, **truth}]) for truth in ({"labels": labels}, {"sem_seg": sem_seg}))
    assert_same(ours, theirs)
    with pytest.raises(UserError, match=r"b\.jpg has no ground truth: give labels or sem_seg"):
        segmenter([{"image": image, "file_name": "b.jpg"}])


def stock_detector(*options: object) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(stock_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 64, "MODEL.RETINANET.SCORE_THRESH_TEST", 0.0, *options])
    return cfg


def test_a_stock_detector_finds_the_boxes(run: Any, tmp_path: Path) -> None:
    """RetinaNet of Detectron2's own configuration, by name: its boxes are those of DefaultPredictor, from a .pth and
    from a pickle that is never unpickled; and they prompt a training and its test, from the command line."""
    cfg = stock_detector()
    torch.manual_seed(0)
    weights = build_model(cfg).state_dict()
    torch.save({"model": weights}, tmp_path / "detector.pth")
    plain = {"model": {name: value.numpy() for name, value in weights.items()}, "__author__": "test"}
    (tmp_path / "detector.pkl").write_bytes(pickle.dumps(plain))
    cfg.MODEL.WEIGHTS = str(tmp_path / "detector.pth")
    image = torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8)
    expected = DefaultPredictor(cfg)(image.permute(1, 2, 0).numpy()[:, :, ::-1])["instances"]
    detectron2_sam.register_box_detector("stock_retinanet", cfg)
    for file in ("", str(tmp_path / "detector.pkl")):
        found = build_detector("stock_retinanet", score_threshold=0, weights=file)(image)
        assert len(found) > 0 and torch.equal(found.scores, expected.scores)
        assert torch.equal(found.boxes, expected.pred_boxes.tensor)
    assert found.categories is not None and found.categories[0] in MetadataCatalog.get("coco_2017_train").thing_classes

    (tmp_path / "detector.yaml").write_text(cfg.dump())
    name = f"detectron2:{tmp_path / 'detector.yaml'},{tmp_path / 'detector.pkl'}"
    source = ("INPUT.BOXES.SOURCE", name, "INPUT.BOXES.SCORE_THRESHOLD", 0.0)
    output = run("detectron2", "run", *source, "SOLVER.MAX_ITER", 1)
    assert report(output)["results"]["few_shot"]["no_box"] == 0
    with pytest.raises(UserError, match=r"give the path of a \.pth or \.pkl file"):
        build_detector("stock_retinanet", weights="detectron2://ImageNetPretrained/MSRA/R-50.pkl")
    with pytest.raises(UserError, match=r"there is no file a\.yaml, here or in Detectron2's model zoo"):
        build_detector("detectron2:a.yaml")
    torch.save({"model": dict(list(weights.items())[:3])}, tmp_path / "part.pth")
    with pytest.raises(UserError, match="for another detector: it lacks"):
        build_detector("stock_retinanet", weights=str(tmp_path / "part.pth"))


def test_only_what_trains_is_in_the_state() -> None:
    """Any checkpointer writes the decoder's trained part and A, and no weight that is frozen."""
    names = model().state_dict().keys()
    assert {name.partition(".")[0] for name in names} == {"decoder", "prompt_encoder"}
    assert not any(name.startswith("decoder.transformer") and not name.endswith((".up", ".down")) for name in names)


def test_the_trainer_has_a_rate_for_each_level(worms: Path, tmp_path: Path) -> None:
    """Detectron2's scheduler moves both along (1 - i / T)^0.9 of their own base rates."""
    given = arguments(worms, tmp_path / "run", "DATASETS.TEST", "()")
    cfg = cfg_of(*given[given.index("MODEL.DEVICE") :])
    trainer = Trainer(cfg)
    rates = []

    class Watch(HookBase):
        def before_step(self) -> None:
            rates.append({group["kind"]: group["lr"] for group in trainer.optimizer.param_groups})

    trainer.register_hooks([Watch()])
    trainer.train()
    for i, rate in enumerate(rates):
        factor = (1 - i / 6) ** 0.9
        assert rate.pop("upper") == pytest.approx(1e-3 * factor)
        assert rate and all(value == pytest.approx(5e-3 * factor) for value in rate.values())
    assert len(rates) == 6
