"""From a data set's record to what a model takes: the one mapper, for training and for testing.

Training: large-scale jitter (Ghiasi et al., "Simple Copy-Paste", CVPR 2021; parameters as in Mask2Former), a crop of
at most image_size², a horizontal flip and SSD's colour jitter (Liu et al., ECCV 2016). Testing: a resize by the
shortest side. Nothing is padded or normalised here: the model does both.

Every draw comes from one generator seeded by the caller, so an item depends on its record and seed alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from possam.data.segments import read_targets
from possam.structures import SegmentationInput
from sam_common.contracts import SegmentationRecord
from sam_common.data.images import fit_size, read_item, resize_image, shortest_edge_size
from sam_common.structures import Segments, Vocabulary


class SegmentationMapper:
    """Reads one record and makes a model input of it.

    Called with a record (see `DatasetSpec.load`) and a seed, it returns a dict with `image` (uint8 RGB [3, h, w]),
    `height` and `width` (of the original image), `file_name`, `image_id`, `vocabulary`, and in training also `segments`
    (at h × w; regions marked as crowd and segments that the crop leaves without a pixel are no targets) and `seed`.

    Args:
        vocabulary: the classes that the records' category_id index.
        training: jitter and read the annotation, or resize for testing.
        image_size: side of the training crop, pixels.
        min_scale, max_scale: range of the jitter; at 1 the image just fits into the crop.
        flip: mirror every second image, by chance.
        color: apply the colour jitter.
        min_size_test, max_size_test: the shortest side in testing, and what the longest must not exceed, pixels.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        training: bool,
        image_size: int,
        min_scale: float,
        max_scale: float,
        flip: bool,
        color: bool,
        min_size_test: int,
        max_size_test: int,
    ) -> None:
        self.vocabulary = vocabulary
        self.training = training
        self.image_size = image_size
        self.scale_range = (min_scale, max_scale)
        self.flip = flip
        self.color = color
        self.min_size_test = min_size_test
        self.max_size_test = max_size_test

    def __call__(self, record: SegmentationRecord, seed: int = 0) -> SegmentationInput:
        """The model input of one record.

        Raises:
            UserError: a file of the record cannot be read, or contradicts the record.
        """
        item: SegmentationInput = {**read_item(record), "vocabulary": self.vocabulary}
        if not self.training:
            size = shortest_edge_size(item["image"].shape[-2:], self.min_size_test, self.max_size_test)
            return {**item, "image": resize_image(item["image"], size)}
        image, segments = self._jitter(item["image"], record, torch.Generator().manual_seed(seed))
        return {**item, "image": image, "segments": segments, "seed": seed}

    def _jitter(self, image: Tensor, record: SegmentationRecord, generator: Generator) -> tuple[Tensor, Segments]:
        low, high = self.scale_range
        scale = low + (high - low) * _uniform(generator)
        size = fit_size(image.shape[-2:], self.image_size * scale)
        window = self._window(size, generator)
        flipped = self.flip and _uniform(generator) < 0.5

        def cut(layers: Tensor) -> Tensor:
            return F.horizontal_flip(layers[window]) if flipped else layers[window]

        image = cut(resize_image(image, size))
        if self.color:
            image = photometric_distort(image, generator)
        targets = read_targets(record, lambda layer: cut(F.resize(layer, size, InterpolationMode.NEAREST_EXACT)))
        return image.contiguous(), Segments(*targets)

    def _window(self, size: tuple[int, int], generator: Generator) -> tuple[Any, ...]:
        """The index of a window in [..., height, width], at most image_size², uniform over all positions."""
        height, width = size
        top = int(_uniform(generator) * (max(height - self.image_size, 0) + 1))
        left = int(_uniform(generator) * (max(width - self.image_size, 0) + 1))
        return ..., slice(top, top + self.image_size), slice(left, left + self.image_size)


def photometric_distort(image: Tensor, generator: Generator) -> Tensor:
    """SSD's colour jitter, each step by a chance of 1/2, in the ranges of torchvision's RandomPhotometricDistort.

    Brightness, then contrast either before or after saturation and hue. uint8 [3, H, W] to the same.
    """
    apply = torch.rand(4, generator=generator) < 0.5
    contrast_first = _uniform(generator) < 0.5
    amount = torch.rand(4, generator=generator)
    steps = [
        (F.adjust_brightness, 0.875 + 0.25 * amount[0]),
        (F.adjust_contrast, 0.5 + amount[1]),
        (F.adjust_saturation, 0.5 + amount[2]),
        (F.adjust_hue, -0.05 + 0.1 * amount[3]),
    ]
    for index in (0, 1, 2, 3) if contrast_first else (0, 2, 3, 1):
        if apply[index]:
            adjust, value = steps[index]
            image = adjust(image, float(value))
    return image


def _uniform(generator: Generator) -> float:
    return float(torch.rand((), generator=generator))
