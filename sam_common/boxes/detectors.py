"""Boxes for any method: detectors by name, and where the boxes of a data set come from.

A detector is called with an image, uint8 RGB [3, H, W], and gives `Boxes`. `build_detector` knows

    full_image           one box, the whole image
    opencv_hog_people    OpenCV's people detector (Dalal and Triggs, CVPR 2005), which ships with it
    a torchvision name   fasterrcnn_resnet50_fpn_v2, …: trained on COCO, its official weights downloaded once
    transformers:NAME    a model of the Hugging Face hub (`transformers_detector`); the package is an extra, Apache-2.0
    ultralytics:FILE.pt  YOLO (`ultralytics_detector`); the package is an extra, AGPL-3.0, as are its models

and what `register_detector` and `register_detectors` add. What a detector needs is imported when it is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sam_common.boxes.box_files import read_coco_results
from sam_common.boxes.boxes import Boxes, BoxSource, keep_usable, no_boxes
from sam_common.contracts import ImageRecord
from sam_common.errors import UserError
from sam_common.masks.rle import checked_segmentation
from sam_common.text import some

logger = logging.getLogger(__name__)

Detector = Callable[[Tensor], Boxes]
"""Image uint8 RGB [3, H, W] -> boxes in its pixels."""

TORCHVISION = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)


def register_detector(name: str, maker: Callable[..., Detector]) -> None:
    """Lets `build_detector(name)` call `maker(weights=…, device=…)`; a name again replaces the one before."""
    _MAKERS[name] = maker


def register_detectors(family: str, maker: Callable[..., Detector]) -> None:
    """Lets `build_detector("family:rest")` call `maker(rest, weights=…, device=…)`; again replaces the one before."""
    _FAMILIES[family] = maker


def build_detector(
    name: str, *, score_threshold: float = 0.5, weights: str = "", device: torch.device | str = "cpu"
) -> Detector:
    """A detector whose boxes can be used: they score at least `score_threshold`, have an area and meet the image, to
    which they are clipped. What else it finds is dropped and counted in a warning.

    Args:
        name: see the module; case and order as there.
        weights: a file, `random`, or "" for the detector's own.
        device: where it runs, if it has a model.

    Raises:
        UserError: the name is unknown, or the weights cannot be had.
    """
    detector = _maker(name)(weights=weights, device=device)

    def detect(image: Tensor) -> Boxes:
        confident = detector(image).confident(score_threshold)
        return _usable(confident, (image.shape[1], image.shape[2]), f"the detector {name}")

    return detect


def _maker(name: str) -> Callable[..., Detector]:
    family, _, rest = name.partition(":")
    if rest and family in _FAMILIES:
        return partial(_FAMILIES[family], rest)
    if name not in _MAKERS:
        raise UserError(
            f"there is no detector {name!r}; known: {', '.join([*_MAKERS, *(f'{f}:…' for f in _FAMILIES)])}"
        )
    return _MAKERS[name]


def build_box_source(source: str, *, score_threshold: float = 0.5) -> BoxSource | None:
    """Where the boxes of a data set's images come from, in testing.

    Args:
        source: "ground_truth"; the path of a COCO results JSON (*.json); or the name of a detector.
        score_threshold: boxes that score less are left out.

    Returns:
        None for the ground truth, which the record holds.

    Raises:
        UserError: the file cannot be used, or the detector not be built.
    """
    if source == "ground_truth":
        return None
    if source.lower().endswith(".json"):
        return ResultsFile(source, score_threshold)
    detector = build_detector(source, score_threshold=score_threshold)
    return lambda record, image: detector(image)


class ResultsFile:
    """The boxes of a COCO results JSON, looked up by `image_id`; an image that it lacks has none."""

    def __init__(self, path: str, score_threshold: float) -> None:
        self.path = path
        self.score_threshold = score_threshold
        self.found = read_coco_results(path)

    def check(self, name: str, image_ids: Collection[int | str]) -> None:
        """Warns of boxes for images that the data set `name` lacks.

        Raises:
            UserError: all of them are.
        """
        lost = [image_id for image_id in self.found if image_id not in image_ids]
        if not lost:
            return
        told = some(map(repr, lost))
        if len(lost) == len(self.found):
            known = next(iter(image_ids), "none")
            raise UserError(
                f"{self.path} has no boxes for {name}: it has the image_id {told}, the data set {known!r}, …"
            )
        logger.warning("%s has boxes for %d images that %s lacks: %s", self.path, len(lost), name, told)

    def __call__(self, record: ImageRecord, image: Tensor) -> Boxes:
        found = self.found.get(record["image_id"], no_boxes())
        size = (record["height"], record["width"])
        where = f"{self.path}, image {record['image_id']!r}"
        kept = _usable(found.confident(self.score_threshold), size, where)
        if kept.masks is not None:
            kept.masks = [checked_segmentation(mask, *size, where) for mask in kept.masks]
        return kept


def _usable(found: Boxes, size: tuple[int, int], source: str) -> Boxes:
    kept, faults = keep_usable(found, size)
    if faults:
        told = "; ".join(f"{count} × {fault}" for fault, count in faults.items())
        logger.warning("%s gave %d boxes that cannot be used and were dropped: %s", source, faults.total(), told)
    return kept


def _refuse_weights(name: str, weights: str) -> None:
    if weights:
        raise UserError(f"the detector {name} has no weights, {weights} was given")


def _full_image(weights: str, device: torch.device | str) -> Detector:
    _refuse_weights("full_image", weights)

    def detect(image: Tensor) -> Boxes:
        height, width = image.shape[1:]
        return Boxes(torch.tensor([[0.0, 0.0, width, height]]), torch.ones(1))

    return detect


def _opencv_hog_people(weights: str, device: torch.device | str) -> Detector:
    _refuse_weights("opencv_hog_people", weights)
    import cv2

    hog = cv2.HOGDescriptor()
    hog.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector()))
    least_width, least_height = hog.winSize

    def detect(image: Tensor) -> Boxes:
        if image.shape[1] < least_height or image.shape[2] < least_width:
            return no_boxes()
        found, margins = hog.detectMultiScale(image.permute(1, 2, 0).numpy()[..., ::-1].copy())
        boxes = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        # [ours] The margin of the support vector machine is no probability; this puts its zero at one half.
        scores = torch.tensor(margins, dtype=torch.float32).reshape(-1).sigmoid()
        return Boxes(boxes, scores, ["person"] * len(boxes))

    return detect


def _torchvision(name: str) -> Callable[..., Detector]:
    def make(weights: str, device: torch.device | str) -> Detector:
        from sam_common.boxes.torchvision_detector import TorchvisionDetector

        return TorchvisionDetector(name, weights=weights, device=device)

    return make


def _transformers(name: str, weights: str, device: torch.device | str) -> Detector:
    from sam_common.boxes.transformers_detector import TransformersDetector

    return TransformersDetector(name, weights=weights, device=device)


def _ultralytics(name: str, weights: str, device: torch.device | str) -> Detector:
    from sam_common.boxes.ultralytics_detector import UltralyticsDetector

    return UltralyticsDetector(name, weights=weights, device=device)


_FAMILIES: dict[str, Callable[..., Detector]] = {"transformers": _transformers, "ultralytics": _ultralytics}
"""What stands before the colon of a name; the maker is given what stands after it, and is an extra package's."""

_MAKERS: dict[str, Callable[..., Detector]] = {
    "full_image": _full_image,
    "opencv_hog_people": _opencv_hog_people,
    **{name: _torchvision(name) for name in TORCHVISION},
}
