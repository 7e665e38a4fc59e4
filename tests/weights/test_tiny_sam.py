"""The tiny SAM that ships: strict loading, and masks from boxes that beat the boxes."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sam_common.data.generated.scene import generate_scene
from sam_common.sam.box_prompt import predict_masks_from_boxes
from sam_common.sam.build import build_sam
from sam_common.sam.load import load_sam_weights

_MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
_STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def test_embedded_sam_draws_visible_masks_in_tight_boxes():
    """Box mIoU >= 0.75 on 20 scenes of all classes that no training saw, and at least 0.2 above the filled box."""
    sam = build_sam("T").eval()
    load_sam_weights(sam, "embedded")
    ious, filled = [], []
    for index in range(20):
        scene = generate_scene(99, index)
        truth = torch.stack([torch.from_numpy(thing.visible) for thing in scene.things])
        boxes = torch.stack([_tight_box(mask) for mask in truth])
        image = (torch.from_numpy(scene.image).permute(2, 0, 1).float() - _MEAN) / _STD
        with torch.no_grad():
            logits, _ = predict_masks_from_boxes(sam, image[None], [boxes])
        drawn = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear")[:, 0] > 0
        ious.append((drawn & truth).sum((1, 2)) / (drawn | truth).sum((1, 2)))
        filled.append(truth.sum((1, 2)) / (boxes[:, 2:] - boxes[:, :2]).prod(1))
    iou, box_itself = torch.cat(ious).mean().item(), torch.cat(filled).mean().item()
    assert iou >= 0.75
    assert iou >= box_itself + 0.2


def _tight_box(mask: torch.Tensor) -> torch.Tensor:
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
