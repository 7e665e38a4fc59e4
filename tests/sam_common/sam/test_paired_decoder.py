"""SAM's decoder with a prompt for each image, against segment-anything's."""

from __future__ import annotations

import copy

import pytest
import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer

from sam_common.sam.build import build_sam
from sam_common.sam.paired_decoder import PairedDecoder


def inputs(batch: int, width: int = 128) -> list[torch.Tensor]:
    return [
        torch.randn(batch, width, 6, 5),
        torch.randn(1, width, 6, 5),
        torch.randn(batch, 2, width),
        torch.randn(batch, width, 6, 5),
    ]


@pytest.mark.parametrize("num_masks", [1, 3])
def test_it_equals_segment_anythings_decoder_image_by_image(num_masks: int) -> None:
    """The same logits for every mask; and the whole state fits, by the official names."""
    torch.manual_seed(0)
    ours = PairedDecoder(build_sam("T").mask_decoder, num_masks).eval()
    torch.nn.init.normal_(ours.mask_tokens.weight)  # masks that differ
    theirs = MaskDecoder(
        num_multimask_outputs=num_masks - 1,
        transformer_dim=128,
        transformer=TwoWayTransformer(depth=2, embedding_dim=128, num_heads=8, mlp_dim=512),
        iou_head_hidden_dim=128,
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    embeddings, pe, sparse, dense = inputs(3)
    together = ours(embeddings, pe, sparse, dense)
    assert together.shape == (3, num_masks, 24, 20)
    for i in range(3):
        one = slice(i, i + 1)
        expected, _ = theirs.predict_masks(embeddings[one], pe, sparse[one], dense[one])
        torch.testing.assert_close(together[one], expected, rtol=1e-4, atol=1e-5)


def test_every_mask_begins_as_sams_single_one() -> None:
    """SAM's token 0, its hyper-network and its row of the IoU head, M times; so with M = 1 SAM's own answer."""
    pretrained = build_sam("T").mask_decoder.eval()
    decoder = PairedDecoder(pretrained, 3)
    assert torch.equal(decoder.mask_tokens.weight, pretrained.mask_tokens.weight[:1].expand(3, -1))
    embeddings, pe, sparse, dense = inputs(1)
    single = PairedDecoder(pretrained, 1).eval()
    first = PairedDecoder(pretrained, 3).eval()(embeddings, pe, sparse, dense)
    torch.testing.assert_close(first[:, 0], first[:, 2])
    assert single(embeddings, pe, sparse, dense).shape == (1, 1, 24, 20)


def test_the_pretrained_decoder_stays_as_it_is() -> None:
    """Nothing is shared with it; 3,637,377 parameters at SAM's real width with one mask."""
    with torch.device("meta"):
        decoder = PairedDecoder(build_sam("B").mask_decoder)
    assert sum(p.numel() for p in decoder.parameters()) == 3_637_377
    pretrained = build_sam("T").mask_decoder
    before = copy.deepcopy(pretrained.state_dict())
    for parameter in PairedDecoder(pretrained, 2).parameters():
        torch.nn.init.zeros_(parameter)
    assert all(torch.equal(value, before[key]) for key, value in pretrained.state_dict().items())
