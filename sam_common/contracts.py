"""What passes from data sets to mappers, models and evaluators, as types. Methods extend them by keys of their own.

    record -> mapper -> model input -> model -> losses in training, else an output for each image -> evaluator

Keys are Detectron2's where it has them, so that either engine's parts take the other's. H, W are the height and width
of the original image in pixels, as boxes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol, TypedDict, cast

from torch import Tensor, nn

from sam_common.structures import Instances, Vocabulary


class RLE(TypedDict):
    """A mask in COCO's compressed run-length encoding."""

    size: list[int]  # [H, W]
    counts: str


Segmentation = list[list[float]] | RLE
"""A mask as COCO has it: polygons [x0, y0, x1, y1, …], or an RLE."""


class SegmentInfo(TypedDict):
    """One segment of a panoptic annotation; `category_id` is an index into the vocabulary."""

    id: int
    category_id: int
    iscrowd: int
    area: int


class Annotation(TypedDict, total=False):
    """One instance; `category_id` is an index into the vocabulary."""

    id: int | str
    image_id: int | str  # in results and what they are compared with
    category_id: int
    iscrowd: int
    bbox: Sequence[float]  # XYWH
    bbox_mode: int  # 1: Detectron2's XYWH_ABS
    area: float
    segmentation: Segmentation


class ImageRecord(TypedDict):
    """An image of a data set."""

    file_name: str
    image_id: int | str
    height: int
    width: int


class Record(ImageRecord, total=False):
    """An image and one kind of truth, whose keys the kinds add.

    level: of the optimisation, where a method learns at several; each iteration has a batch of every level.
    """

    level: int


class SegmentationRecord(Record, total=False):
    """An image with a panoptic annotation (the first two keys), instances (the third), or a label map (the others)."""

    pan_seg_file_name: str
    segments_info: list[SegmentInfo]
    annotations: list[Annotation]
    sem_seg_file_name: str  # a picture of class indices
    num_classes: int
    ignore_label: int


class ModelInput(TypedDict):
    """What every model is given of an image."""

    image: Tensor  # [3, h, w] uint8 RGB, resized or not; the model normalises and pads
    height: int  # of the original image, as the output has it
    width: int
    file_name: str
    image_id: int | str


class PanopticSegment(TypedDict, total=False):
    """One segment that a model found; semantic segments have no score."""

    id: int
    category_id: int
    isthing: bool
    score: float


Panoptic = tuple[Tensor, list[PanopticSegment]]
"""int32 [H, W] with the id of each pixel's segment, 0 where there is none; and the segments."""


class SegmentationOutput(TypedDict, total=False):
    """What a model makes of an image, as far as it is asked for."""

    panoptic_seg: Panoptic
    sem_seg: Tensor  # [C, H, W] scores
    sem_seg_labels: Tensor  # int [H, W], the best class of each pixel
    instances: Instances


Mapper = Callable[[Any, int], ModelInput]
"""(a record of the data sets that it was made for, the seed of what it draws) -> the model input."""

Batch = list[Any]
"""Model inputs, all of one kind."""

Losses = dict[str, Tensor]
"""Weighted scalar losses, to be added up."""


class Model(Protocol):
    """What the engine expects of a model, beside being an `nn.Module`.

    Called with a batch it returns `Losses` in training, else a list of outputs, one for each image. `whole` is given
    where gradients are accumulated: the batch of which this is a part, the losses of whose parts add up to its own.
    """

    training: bool
    training_vocabulary: Vocabulary  # the classes it was trained on; () where it learns none

    @property
    def outputs(self) -> AbstractSet[str]:
        """The keys of what it makes of an image."""

    def __call__(self, batch: Batch, whole: Sequence[Any] | None = None) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...


def as_model(module: nn.Module) -> Model:
    """The module as the engine sees it: `nn.Module` types every attribute as a tensor or a module."""
    return cast(Model, module)
