"""The way from an image file to a panoptic prediction, with a model that paints what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from possam.predictor import Predictor, keep_confident, mask_size
from possam.results import Prediction
from sam_common.config import get_cfg
from sam_common.data.coco_write import coco_categories
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.masks.rle import encode_mask
from sam_common.structures import Category, Instances
from tests.support.wrong import IMAGES, VOCABULARIES

VOCABULARY = (Category("dog", ("dog", "puppy"), True, 18), Category("sky", ("sky",), False, 187))


class TopHalf(nn.Module):
    """Sees one dog in the upper half of every image, and remembers its inputs."""

    training_vocabulary, score = VOCABULARY, 0.5

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batch = batch
        ids = torch.zeros(batch[0]["height"], batch[0]["width"], dtype=torch.int32)
        ids[: len(ids) // 2] = 1
        masks = (ids == 1).expand(2, -1, -1)
        box = torch.tensor([0.0, 0, ids.shape[1], len(ids) // 2]).expand(2, 4)
        instances = Instances(tuple(ids.shape), masks, torch.tensor([0.5, 0.4]), torch.tensor([0, 0]), box)
        segments = [{"id": 1, "category_id": 0, "isthing": True, "score": self.score}]
        return [{"panoptic_seg": (ids, segments), "instances": instances}]


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(TopHalf(), min_size=32, max_size=48)


def test_model_gets_the_test_size_and_the_original_size(predictor: Predictor) -> None:
    """Derived by hand: 100 × 200 pixels; the longer side is bounded by 48, so 24 × 48; masks come at 100 × 200."""
    ids, _ = predictor(np.zeros((100, 200, 3), np.uint8), VOCABULARY).panoptic_seg
    entry = predictor.model.batch[0]
    assert entry["image"].shape == (3, 24, 48) and entry["image"].dtype == torch.uint8
    assert (entry["height"], entry["width"]) == (100, 200) == tuple(ids.shape)
    assert entry["vocabulary"] == VOCABULARY


def test_array_tensor_pil_image_and_file_give_the_same_input(predictor: Predictor, tmp_path: Path) -> None:
    """Equality: the four ways to give an image end in the same pixels."""
    array = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    seen = []
    for image in (array, torch.from_numpy(array).permute(2, 0, 1), Image.fromarray(array), tmp_path / "a.png"):
        predictor(image)
        seen.append(predictor.model.batch[0]["image"])
    assert all(torch.equal(seen[0], other) for other in seen[1:])


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_every_kind_of_picture_becomes_rgb(predictor: Predictor, tmp_path: Path, mode: str) -> None:
    """Edge case: greyscale, transparent, print and palette files are three channels to the model."""
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (40, 30), (200, 30, 30)).convert(mode).save(path)
    predictor(path)
    assert predictor.model.batch[0]["image"].shape[0] == 3


def test_orientation_of_the_camera_is_applied(predictor: Predictor, tmp_path: Path) -> None:
    """Edge case: EXIF orientation 6 turns a stored 40 × 30 picture into one 30 wide and 40 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    ids, _ = predictor(tmp_path / "a.jpg").panoptic_seg
    assert tuple(ids.shape) == (40, 30)


def test_truncated_image_is_named(predictor: Predictor, tmp_path: Path) -> None:
    """Error: half a JPEG gives one line with its path, not a half-grey prediction."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.jpg") as caught:
        predictor(tmp_path / "half.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("image", "message"), IMAGES.values(), ids=IMAGES)
def test_what_is_no_picture(predictor: Predictor, image: Any, message: str) -> None:
    """Error: one line that says what a picture is."""
    with pytest.raises(UserError, match=message):
        predictor(image)


def test_words_in_every_form(predictor: Predictor, tmp_path: Path) -> None:
    """Equality: a text, a list of its groups, a file and a vocabulary are the same words, which the result keeps."""
    expected = parse_vocabulary("dog|puppy, cat; sky:stuff")
    (tmp_path / "words.txt").write_text("dog|puppy, cat\nsky:stuff")
    image = np.zeros((4, 4, 3), np.uint8)
    lists = ["dog|puppy", "cat", "sky:stuff"], ("dog|puppy, cat", "sky:stuff"), list(expected)
    for words in ("dog|puppy, cat; sky:stuff", tmp_path / "words.txt", str(tmp_path / "words.txt"), expected, *lists):
        assert predictor(image, words).vocabulary == predictor.model.batch[0]["vocabulary"] == expected


@pytest.mark.parametrize(("words", "message"), VOCABULARIES.values(), ids=VOCABULARIES)
def test_what_is_no_vocabulary(predictor: Predictor, words: Any, message: str) -> None:
    """Error: one line; what is empty does not stand for the words of the training."""
    with pytest.raises(UserError, match=message) as error:
        predictor(np.zeros((4, 4, 3), np.uint8), words)
    assert "\n" not in str(error.value)


def test_a_list_of_words_names_no_file(predictor: Predictor, tmp_path: Path) -> None:
    """A server's words, which others give, are never read from its disk."""
    secret = tmp_path / "secret"
    secret.write_text("password")
    result = predictor(np.zeros((4, 4, 3), np.uint8), [str(secret)])
    assert [category.name for category in result.vocabulary] == [str(secret)]


def test_words_default_to_those_of_the_training(predictor: Predictor) -> None:
    """Edge case: without a vocabulary the training's is used; an untrained model has none and says so."""
    predictor(np.zeros((4, 4, 3), np.uint8))
    assert predictor.model.batch[0]["vocabulary"] == VOCABULARY
    predictor.model.training_vocabulary = ()
    with pytest.raises(UserError, match="vocabulary"):
        predictor(np.zeros((4, 4, 3), np.uint8))


def test_masks_of_large_images_are_made_small_and_enlarged(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derived by hand: 100 × 400 pixels and room for 10,000 masks' pixels: made at 50 × 200, given back at 100 × 400,
    the dog in the upper half; a box grows with its mask; weak instances are dropped before."""
    monkeypatch.setattr("possam.predictor.MAX_MASK_PIXELS", 10_000)
    result = predictor(np.zeros((100, 400, 3), np.uint8), confidence_threshold=0.5)
    assert (predictor.model.batch[0]["height"], predictor.model.batch[0]["width"]) == (50, 200)
    ids, _ = result.panoptic_seg
    assert ids.shape == (100, 400) and (ids[:50] == 1).all() and not ids[50:].any()
    found = result.instances
    assert found.image_size == (100, 400) and found.scores.tolist() == [0.5]
    assert found.pred_masks[0, :50].all() and not found.pred_masks[0, 50:].any()
    assert found.pred_boxes.tolist() == [[0, 0, 400, 50]]


@pytest.mark.parametrize(
    ("size", "expected"), [((10, 10), (10, 10)), ((20, 20), (10, 10)), ((1, 400), (1, 200)), ((7, 15), (6, 14))]
)
def test_size_of_masks(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """Derived by hand: at most 100 pixels, the shape kept, no side below 1 (then more pixels than 100 remain)."""
    assert mask_size(size, 100) == expected


def test_a_test_size_that_is_none() -> None:
    """Error: as in an evaluation, with the key."""
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = -5
    with pytest.raises(UserError, match="INPUT.MIN_SIZE_TEST is -5"):
        Predictor.arguments(cfg, {})


def test_missing_weights_are_asked_for(tmp_path: Path) -> None:
    """Error: a configuration without trained weights does not predict with random ones by accident."""
    (tmp_path / "mine.yaml").write_text("MODEL: {META_ARCHITECTURE: PosSAM}")
    with pytest.raises(UserError, match=r"mine\.yaml names no trained weights"):
        Predictor.from_config(tmp_path / "mine.yaml")


def test_threshold_drops_segments() -> None:
    """Derived by hand: at 0.5 the segment of 0.4 goes and leaves void, the one of exactly 0.5 stays."""
    ids = torch.tensor([[1, 1, 2, 0]], dtype=torch.int32)
    segments = [{"id": 1, "category_id": 0, "score": 0.4}, {"id": 2, "category_id": 1, "score": 0.5}]
    kept_ids, kept = keep_confident((ids, segments), 0.5)
    assert kept_ids.tolist() == [[0, 0, 2, 0]] and kept_ids.dtype == torch.int32
    assert [segment["id"] for segment in kept] == [2]


def test_thresholds_are_those_of_the_command(predictor: Predictor) -> None:
    """Derived by hand: of instances that score 0.5 and 0.4 one is kept unless more are asked for; of segments all."""
    image = np.zeros((8, 8, 3), np.uint8)
    predictor.model.score = 0.1
    found = predictor(image)
    assert found.instances.scores.tolist() == [0.5] and [s["score"] for s in found.panoptic_seg[1]] == [0.1]
    assert len(predictor(image, confidence_threshold=0.0).instances) == 2
    assert not predictor(image, confidence_threshold=0.2).panoptic_seg[1]


def test_threshold_may_drop_everything() -> None:
    """Edge case: nothing left is an image of void."""
    ids, kept = keep_confident((torch.ones(2, 2, dtype=torch.int32), [{"id": 1, "score": 0.1}]), 1.0)
    assert not ids.any() and not kept


def test_coco_segments_by_hand() -> None:
    """Derived by hand: area, XYWH box and class id of an L-shaped segment; one without pixels is left out."""
    ids = torch.tensor([[0, 5, 0], [0, 5, 0], [0, 5, 5]], dtype=torch.int32)
    segments = [
        {"id": 5, "category_id": 0, "score": 0.123456},
        {"id": 6, "category_id": 1, "score": 0.9},
    ]
    (found,) = Prediction(torch.zeros(3, 3, 3), "", VOCABULARY, panoptic_seg=(ids, segments)).to_coco()
    assert found.pop("segmentation") == encode_mask(ids == 5)
    assert found == {
        "id": 5, "category_id": 18, "isthing": 1, "score": 0.1235, "area": 4, "bbox": [1, 0, 2, 3], "iscrowd": 0,
    }  # fmt: skip


def test_json_lists_the_classes() -> None:
    """Derived by hand: categories keep ids, kinds and synonyms."""
    categories = coco_categories(VOCABULARY)
    assert categories[0] == {"id": 18, "name": "dog", "isthing": 1, "synonyms": ["dog", "puppy"]}
    assert categories[1]["isthing"] == 0


def test_a_result_shows_its_task() -> None:
    """Derived by hand: of several outputs the panoptic one is told, or that of the task; semantic regions are not
    counted; scores of classes serve as well as labels; what was not made cannot be shown."""
    labels = torch.tensor([[0, 0, 1]])
    dogs = torch.tensor([[[True, True, False]], [[False, True, False]]])
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 2, 1]])
    instances = Instances((1, 3), dogs, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), boxes)
    panoptic = (labels.int() + 1, [{"id": 1, "category_id": 0}, {"id": 2, "category_id": 1}])
    outputs = {"panoptic_seg": panoptic, "instances": instances, "sem_seg_labels": labels}

    def result(task: str = "", **outputs: Any) -> Prediction:
        return Prediction(torch.zeros(3, 1, 3, dtype=torch.uint8), "", VOCABULARY, **outputs, task=task)

    assert result(**outputs).describe() == "1 dog, sky"
    assert result("semantic", **outputs).describe() == "dog, sky"
    assert result("instance", **outputs).describe() == "2 dogs"
    assert result("instance", **outputs).segments[0].tolist() == [[1, 1, 0]]  # the better one is seen
    scores = torch.stack([1.0 - labels, labels])
    assert result(sem_seg=scores).task == "semantic" and torch.equal(result(sem_seg=scores).sem_seg_labels, labels)
    for task, given in (("instance", {"sem_seg": scores}), ("", {})):
        with pytest.raises(UserError, match="was made: the configuration's MODEL.POSSAM.TEST"):
            result(task, **given)


def test_a_result_does_not_overwrite_its_picture(predictor: Predictor, tmp_path: Path) -> None:
    """Error: saved beside a picture whose drawn one would have its name; pixels without a name are called image."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UserError, match=r"would overwrite the input .*a\.png; choose another folder"):
        predictor(tmp_path / "a.png").save(tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    written = predictor(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "out")
    assert written == [tmp_path / "out" / "image.png", tmp_path / "out" / "panoptic" / "image.png"]


OPTIONS = ["MODEL.DEVICE", "cpu", "MODEL.SAM.WEIGHTS", "random", "MODEL.CLIP.WEIGHTS", "random"]


@pytest.mark.parametrize("task", ["panoptic", "semantic", "instance"])
def test_a_task_is_all_that_is_made(task: str) -> None:
    """By the name of a shipped configuration, whatever that says of outputs."""
    predictor = Predictor.from_config("possam_T", weights="random", options=OPTIONS, task=task)
    assert predictor.model.outputs == {
        {"panoptic": "panoptic_seg", "semantic": "sem_seg_labels", "instance": "instances"}[task]
    }
    with pytest.raises(UserError, match="task is 'all'; choose one of panoptic, semantic, instance"):
        Predictor.from_config("possam_T", weights="random", task="all")
