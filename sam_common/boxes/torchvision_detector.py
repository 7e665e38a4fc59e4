"""torchvision's detectors of COCO's 80 classes, by its own names, with its official weights.

The file names of the weights carry the first eight digits of their SHA-256, against which a download is checked.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights

from sam_common.boxes.boxes import Boxes
from sam_common.data.images import resize_image, shortest_edge_size
from sam_common.errors import UserError
from sam_common.io.weights import OfficialFile, read_weights, verified_file
from sam_common.masks.rle import encode_mask

_SIDES = (800, 1333)
"""To which torchvision resizes: shorter and longer side. Ours does it before, so that its masks stay that small."""


class TorchvisionDetector:
    """Finds objects in an image, uint8 RGB [3, H, W]; Mask R-CNN's also have masks.

    Args:
        name: of torchvision.models.detection.
        weights: a state dict; "" for the official one, downloaded once; `random` for none.
        device: where to run.

    Raises:
        UserError: the weights cannot be had, or are those of another model.
    """

    def __init__(self, name: str, *, weights: str = "", device: torch.device | str = "cpu") -> None:
        official = get_model_weights(name).DEFAULT
        self.categories: list[str] = official.meta["categories"]
        self.device = torch.device(device)
        self.model = get_model(name, weights=None, weights_backbone=None)
        if weights != "random":
            path = Path(weights) if weights else verified_file(official_file(name), name)
            try:
                self.model.load_state_dict(read_weights(path))
            except RuntimeError as error:
                raise UserError(f"{path} does not hold the weights of {name}: {str(error).splitlines()[-1]}") from error
        self.model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Boxes:
        size = (image.shape[1], image.shape[2])
        small = shortest_edge_size(size, *_SIDES)
        pixels = resize_image(image, small) if small < size else image
        (found,) = self.model([pixels.to(self.device).float() / 255])
        scale = torch.tensor([size[1] / pixels.shape[2], size[0] / pixels.shape[1]]).repeat(2)
        masks = None
        if "masks" in found:
            masks = [
                encode_mask(F.interpolate(mask[None], size, mode="bilinear")[0, 0] > 0.5)
                for mask in found["masks"].cpu()
            ]
        names = [self.categories[label] for label in found["labels"].tolist()]
        return Boxes(found["boxes"].cpu() * scale, found["scores"].cpu(), names, masks)


def official_file(name: str) -> OfficialFile:
    """The official weights of a detector.

    Raises:
        UserError: their file carries no checksum.
    """
    url = get_model_weights(name).DEFAULT.url
    match = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    if match is None:
        raise UserError(f"{url} carries no checksum in its name; download it yourself and give its path as weights")
    return OfficialFile(url, match[1])
