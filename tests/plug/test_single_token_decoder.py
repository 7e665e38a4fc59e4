"""The decoder with one token against segment-anything's."""

from __future__ import annotations

import copy

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer

from plug.single_token_decoder import SingleTokenDecoder
from sam_common.sam import build_sam


def inputs(batch: int, width: int = 128) -> list[torch.Tensor]:
    return [
        torch.randn(batch, width, 6, 5),
        torch.randn(1, width, 6, 5),
        torch.randn(batch, 2, width),
        torch.randn(batch, width, 6, 5),
    ]


def official(pretrained: MaskDecoder) -> MaskDecoder:
    """segment-anything's decoder with `num_multimask_outputs=0` and the first token's weights."""
    decoder = MaskDecoder(
        num_multimask_outputs=0,
        transformer_dim=128,
        transformer=TwoWayTransformer(depth=2, embedding_dim=128, num_heads=8, mlp_dim=512),
        iou_head_hidden_dim=128,
    )
    state = {}
    for key in decoder.state_dict():
        value = pretrained.state_dict()[key]
        first_only = key == "mask_tokens.weight" or key.startswith("iou_prediction_head.layers.2.")
        state[key] = value[:1] if first_only else value
    decoder.load_state_dict(state)
    return decoder


def test_it_equals_segment_anythings_decoder_with_one_token() -> None:
    """Image by image, the same logits; and the whole state fits, by the official names."""
    pretrained = build_sam("T").mask_decoder.eval()
    ours, theirs = SingleTokenDecoder(pretrained).eval(), official(pretrained).eval()
    theirs.load_state_dict(ours.state_dict())
    embeddings, pe, sparse, dense = inputs(1)
    expected, _ = theirs(embeddings, pe, sparse, dense, multimask_output=False)
    torch.testing.assert_close(ours(embeddings, pe, sparse, dense), expected)


def test_a_batch_of_images_is_a_loop_over_them() -> None:
    """Each image meets its own prompt only."""
    decoder = SingleTokenDecoder(build_sam("T").mask_decoder).eval()
    embeddings, pe, sparse, dense = inputs(3)
    together = decoder(embeddings, pe, sparse, dense)
    assert together.shape == (3, 1, 24, 20)
    for i in range(3):
        alone = decoder(embeddings[i : i + 1], pe, sparse[i : i + 1], dense[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_it_has_the_papers_parameters_and_leaves_the_pretrained_one_alone() -> None:
    """3,637,377 at SAM's real width."""
    with torch.device("meta"):
        decoder = SingleTokenDecoder(build_sam("B").mask_decoder)
    assert sum(p.numel() for p in decoder.parameters()) == 3_637_377
    pretrained = build_sam("T").mask_decoder
    before = copy.deepcopy(pretrained.state_dict())
    torch.nn.init.zeros_(SingleTokenDecoder(pretrained).mask_tokens.weight)
    assert all(torch.equal(value, before[key]) for key, value in pretrained.state_dict().items())
