"""What the project knows about a data set, whatever its format and whichever engine runs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sam_common.structures import Vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetSpec:
    """One split of one data set. Making a spec reads nothing; the two functions do.

    Records are Detectron2's standard dictionaries: `file_name`, `image_id`, `height`, `width`, and one kind of truth,
    where category_id is an index into the vocabulary:

    - panoptic: `pan_seg_file_name`, and `segments_info`, a list of {id, category_id, iscrowd, area};
    - instance: `annotations`, a list of {bbox XYWH in pixels, bbox_mode 1, category_id, iscrowd, segmentation, area,
      id}; the segmentation is a list of polygons, or a compressed RLE {size, counts};
    - amodal: `annotations` as of instances, of whole objects, each with the `visible_segmentation` and `visible_bbox`
      of what is seen of it (`plug.data.annotations`);
    - semantic: `sem_seg_file_name`, an image of class indices, with `num_classes` and `ignore_label`.

    `sam_common.data.segments` reads the masks of any of them.

    Attributes:
        name: what `DATASETS.TRAIN` and `DATASETS.TEST` call it.
        load: the records. Raises UserError where files are missing or wrong.
        load_vocabulary: the classes, in the order of category_id. Raises UserError likewise.
        evaluator: the kind of its truth: panoptic | instance | semantic | amodal | masks.
        files: where its parts lie, by role (`json`, `images`, `panoptic`, `labels`).
        ignore_label: of a semantic data set, the value of pixels without a class. Where the number of classes decides,
            as in `label_maps`, that of the records counts.
    """

    name: str
    load: Callable[[], list[dict[str, Any]]]
    load_vocabulary: Callable[[], Vocabulary]
    evaluator: str = "panoptic"
    files: Mapping[str, str] = field(default_factory=dict)
    ignore_label: int = 255


@functools.cache
def warn_of_count(name: str, found: int, total: int) -> None:
    """Says, once however often a data set is read, that it has another number of images than in the papers."""
    if found != total:
        logger.warning("data set %s: %d images, the paper's has %d: this split is not the paper's", name, found, total)
