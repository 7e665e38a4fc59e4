"""What the project knows about a data set, whatever its format and whichever engine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sam_common.structures import Vocabulary


@dataclass(frozen=True)
class DatasetSpec:
    """One split of one data set. Making a spec reads nothing; the two functions do.

    Attributes:
        name: what `DATASETS.TRAIN` and `DATASETS.TEST` call it.
        load: the records, standard Detectron2 dictionaries. Panoptic ones hold `file_name`, `image_id`, `height`,
            `width`, `pan_seg_file_name` and `segments_info`: a list of {id, category_id, iscrowd, area}, where
            category_id is an index into the vocabulary. Raises UserError where files are missing or wrong.
        load_vocabulary: the classes, in the order of those indices. Raises UserError likewise.
        evaluator: the kind of evaluation its ground truth serves.
        files: where its parts lie, by role (`json`, `images`, `panoptic`).
    """

    name: str
    load: Callable[[], list[dict[str, Any]]]
    load_vocabulary: Callable[[], Vocabulary]
    evaluator: str = "panoptic"
    files: Mapping[str, str] = field(default_factory=dict)
