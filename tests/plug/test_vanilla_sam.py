"""SAM as it is, asked by amodal boxes: Table 2, row 1."""

from __future__ import annotations

import torch

from plug.config import build_vanilla_sam
from sam_common.data.images import resize_image
from sam_common.sam.box_prompt import predict_masks_from_boxes
from sam_common.sam.build import build_sam
from sam_common.sam.load import load_sam_weights
from tests.plug.test_plug import config

MEAN, STD = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def test_an_image_of_sams_size_gives_sams_masks() -> None:
    """No resizing, no padding: the masks of the box prompt, at the image's size, from logit 0 on; nothing trains."""
    model = build_vanilla_sam(config("MODEL.SAM.WEIGHTS", "embedded")).eval()
    assert not any(p.requires_grad for p in model.parameters())
    image = torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8)
    boxes = torch.tensor([[20.0, 30, 120, 140], [0, 0, 0, 0]])
    with torch.no_grad():
        output = model([{"image": image, "boxes": boxes / 2, "amodal_boxes": boxes}])[0]["amodal"]
        sam = build_sam("T").eval()
        load_sam_weights(sam, "embedded")
        logits, quality = predict_masks_from_boxes(sam, ((image - MEAN) / STD)[None], [boxes[:1]])
        expected = torch.nn.functional.interpolate(logits, (256, 256), mode="bilinear")[0, 0] > 0
    assert (output.amodal_mask(0) != expected).float().mean() < 1e-3
    torch.testing.assert_close(output.scores[0], quality[0, 0].clamp(0, 1))
    assert torch.equal(output.pred_boxes, boxes / 2) and output.visible_mask(0) is None
    assert not output.amodal_mask(1).any() and output.scores[1] == 0  # no amodal box is known


def test_a_flat_image_is_padded_below_and_enlarged() -> None:
    """128×64 pixels become 256×128 and 128 rows of padding, boxes with them; masks come back at the image's size."""
    model = build_vanilla_sam(config("MODEL.SAM.WEIGHTS", "embedded")).eval()
    image = torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8)
    boxes = torch.tensor([[20.0, 10, 90, 50]])
    with torch.no_grad():
        output, none = (
            model([{"image": image, "boxes": b, "amodal_boxes": b}])[0]["amodal"] for b in (boxes, boxes[:0])
        )
        pixels = torch.zeros(1, 3, 256, 256)
        pixels[:, :, :128] = (resize_image(image, (128, 256)) - MEAN) / STD
        logits, _ = predict_masks_from_boxes(model.sam, pixels, [2 * boxes])
        expected = torch.nn.functional.interpolate(logits[:, :, :32], (64, 128), mode="bilinear")[0, 0] > 0
    assert (output.amodal_mask(0) != expected).float()[:62].mean() < 1e-3  # the last rows see into the padding
    assert len(none) == 0 and none.pred_masks == []
