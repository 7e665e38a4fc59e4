"""SAM's sizes: names, shapes and counts of parameters, and the whole model against segment-anything's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling import Sam as OfficialSam
from torch import nn

from sam_common.errors import UserError
from sam_common.sam.box_prompt import predict_masks_from_boxes
from sam_common.sam.build import build_image_encoder, build_sam
from sam_common.sam.load import load_sam_weights


@pytest.fixture(scope="module")
def tiny_pair() -> tuple[nn.Module, OfficialSam]:
    """Our size T and the same model put together from segment-anything's own classes, with the same weights."""
    torch.manual_seed(0)
    ours = build_sam("T").eval()
    load_sam_weights(ours, "random")
    theirs = OfficialSam(
        ImageEncoderViT(
            img_size=256,
            embed_dim=192,
            depth=4,
            num_heads=6,
            out_chans=128,
            use_rel_pos=True,
            window_size=8,
            global_attn_indexes=(1, 3),
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        ),
        PromptEncoder(embed_dim=128, image_embedding_size=(16, 16), input_image_size=(256, 256), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=128,
            transformer=TwoWayTransformer(depth=2, embedding_dim=128, num_heads=8, mlp_dim=512),
            iou_head_hidden_dim=128,
        ),
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize(("size", "count"), [("B", 89_670_912), ("L", 308_278_272), ("H", 637_026_048)])
def test_image_encoder_parameters(size: str, count: int) -> None:
    """The published sizes, neck included, counted without memory on the meta device."""
    with torch.device("meta"):
        encoder = build_image_encoder(size)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == count


@pytest.mark.parametrize("size", ["B", "L", "H"])
def test_state_dict_is_the_official_one(size: str) -> None:
    """Names and shapes equal segment-anything's, so official files load strictly."""
    with torch.device("meta"):
        ours, theirs = build_sam(size).state_dict(), sam_model_registry[f"vit_{size.lower()}"]().state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}


def test_unknown_size_is_named() -> None:
    """An error that lists the sizes there are."""
    with pytest.raises(UserError, match="'X' is unknown; it is one of T, B, L, H"):
        build_sam("X")


def test_forward_equals_segment_anything(tiny_pair: tuple[nn.Module, OfficialSam]) -> None:
    """The whole model, called as segment-anything's `Sam` with a point, a box and an image to be padded."""
    record = {
        "image": torch.randint(0, 256, (3, 200, 256)).float(),
        "original_size": (100, 128),
        "point_coords": torch.tensor([[[40.0, 50.0]]]),
        "point_labels": torch.tensor([[1]]),
        "boxes": torch.tensor([[20.0, 30.0, 90.0, 110.0]]),
    }
    (ours,), (theirs,) = (sam([record], multimask_output=True) for sam in tiny_pair)
    torch.testing.assert_close(ours["low_res_logits"], theirs["low_res_logits"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours["iou_predictions"], theirs["iou_predictions"], rtol=1e-4, atol=1e-4)


def test_works_inside_sam_predictor(tiny_pair: tuple[nn.Module, OfficialSam]) -> None:
    """segment-anything's `SamPredictor` accepts our model and gives what it gives with its own."""
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    logits = []
    for sam in tiny_pair:
        predictor = SamPredictor(sam)
        predictor.set_image(image)
        logits.append(predictor.predict(box=np.array([10, 20, 80, 90]), return_logits=True)[0])
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-3)


def test_boxes_of_a_batch_equal_segment_anything_one_by_one(tiny_pair: tuple[nn.Module, OfficialSam]) -> None:
    """One call for two images with two boxes and one equals segment-anything called for each image; order kept."""
    ours, theirs = tiny_pair
    images = torch.randn(2, 3, 256, 256)
    boxes = [torch.tensor([[10.0, 20, 100, 90], [0, 0, 256, 256]]), torch.tensor([[30.0, 40, 60, 200]])]
    with torch.no_grad():
        masks, iou = predict_masks_from_boxes(ours, images, boxes, multimask=True)
        expected = []
        for image, of_image in zip(images, boxes, strict=True):
            sparse, dense = theirs.prompt_encoder(points=None, boxes=of_image, masks=None)
            embedding, pe = theirs.image_encoder(image[None]), theirs.prompt_encoder.get_dense_pe()
            expected.append(theirs.mask_decoder(embedding, pe, sparse, dense, multimask_output=True))
    torch.testing.assert_close(masks, torch.cat([m for m, _ in expected]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(iou, torch.cat([i for _, i in expected]), rtol=1e-4, atol=1e-4)


def test_boxes_on_another_image_size(tiny_pair: tuple[nn.Module, OfficialSam]) -> None:
    """Boxes are relative to the given image: equal to segment-anything's prompt encoder built for 128 × 192 pixels.
    The model itself keeps its own size, and an image without boxes adds no masks."""
    ours, theirs = tiny_pair
    images, box = torch.randn(2, 3, 128, 192), torch.tensor([[10.0, 20, 100, 90]])
    prompts = PromptEncoder(embed_dim=128, image_embedding_size=(8, 12), input_image_size=(128, 192), mask_in_chans=16)
    prompts.load_state_dict(theirs.prompt_encoder.state_dict())
    with torch.no_grad():
        masks, _ = predict_masks_from_boxes(ours, images, [torch.zeros(0, 4), box])
        sparse, dense = prompts(points=None, boxes=box, masks=None)
        embedding = ours.image_encoder(images[1:])
        expected, _ = theirs.mask_decoder(embedding, prompts.get_dense_pe(), sparse, dense, multimask_output=False)
    assert masks.shape == (1, 1, 32, 48)
    torch.testing.assert_close(masks, expected, rtol=1e-4, atol=1e-4)
    assert ours.prompt_encoder.input_image_size == (256, 256)


def test_every_part_trains_from_boxes() -> None:
    """The loss on masks and IoU reaches encoder, prompt encoder and mask decoder, and through `at` their own
    parameters. Without gradient stay only the parts for other prompts: points and masks."""
    sam = build_sam("T")
    load_sam_weights(sam, "random")
    masks, iou = predict_masks_from_boxes(
        sam, torch.randn(1, 3, 64, 64), [torch.tensor([[5.0, 5, 40, 50]])], multimask=True
    )
    single, _ = predict_masks_from_boxes(sam, torch.randn(1, 3, 64, 64), [torch.tensor([[5.0, 5, 40, 50]])])
    (masks.square().mean() + single.square().mean() + iou.square().mean()).backward()
    untrained = {name.split(".weight")[0].split(".bias")[0] for name, p in sam.named_parameters() if p.grad is None}
    assert {".".join(name.split(".")[:2]) for name in untrained} == {
        "prompt_encoder.point_embeddings",
        "prompt_encoder.not_a_point_embed",
        "prompt_encoder.mask_downscaling",
    }
    assert sam.prompt_encoder.point_embeddings[2].weight.grad is not None
