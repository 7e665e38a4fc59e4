"""What the project knows about a data set, whatever its format and whichever engine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sam_common.data.remarks import log_once
from sam_common.structures import Vocabulary


@dataclass(frozen=True)
class Source:
    """Where the files of a data set come from: the pages that one downloads from, and NAME of `detectron2-sam prepare
    NAME`, which makes or counts the rest, or ""."""

    pages: tuple[str, ...]
    prepare: str = ""


@dataclass(frozen=True)
class DatasetSpec:
    """One split of one data set. Making a spec reads nothing; the two functions do.

    Records are Detectron2's standard dictionaries: `file_name`, `image_id`, `height`, `width`, and one kind of truth,
    where category_id is an index into the vocabulary:

    - panoptic: `pan_seg_file_name`, and `segments_info`, a list of {id, category_id, iscrowd, area};
    - instance: `annotations`, a list of {bbox XYWH in pixels, bbox_mode 1, category_id, iscrowd, segmentation, area,
      id}; the segmentation is a list of polygons, or a compressed RLE {size, counts};
    - semantic: `sem_seg_file_name`, an image of class indices, with `num_classes` and `ignore_label`;
    - other kinds are those of single methods (`Method.truths`).

    Attributes:
        name: what `DATASETS.TRAIN` and `DATASETS.TEST` call it.
        load: the records. Raises UserError where files are missing or wrong.
        load_vocabulary: the classes, in the order of category_id. Raises UserError likewise.
        truth: the kind of its ground truth: panoptic | instance | semantic, or one that a method adds.
        files: where its parts lie, by role (`json`, `images`, `panoptic`, `labels`).
        beside: kind of truth -> a data set of the same images that has it, of a benchmark that judges by several
            annotations: ADE20K has PQ from its segments, AP from its instances and mIoU from its label maps. Without it
            evaluators take what the annotation of this one implies.
        ignore_label: of a semantic data set, the value of pixels without a class. Where the number of classes decides,
            as in `label_maps`, that of the records counts.
        source: where its files come from; None for one of the user's own.
    """

    name: str
    load: Callable[[], Sequence[Any]]
    load_vocabulary: Callable[[], Vocabulary]
    truth: str = "panoptic"
    files: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, DatasetSpec] = field(default_factory=dict)
    ignore_label: int = 255
    source: Source | None = None


def warn_of_count(name: str, found: int, total: int) -> None:
    """Says, once however often a data set is read, that it has another number of images than in the papers."""
    if found != total:
        log_once(f"data set {name}: {found} images, the paper's has {total}: this split is not the paper's")
