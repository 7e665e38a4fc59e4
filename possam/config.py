"""The only file of this method that reads a cfg: its keys, and the model they describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segment_anything.modeling.transformer import TwoWayAttentionBlock
from torch import nn

from possam.classifier import CosineClassifier
from possam.clip_encoder import PIXEL_MEAN, PIXEL_STD, ClipEncoder, build_clip
from possam.criterion import Criterion
from possam.feature_pyramid import FeaturePyramid, ResizedFeatures, SamBackbone
from possam.head import PosSAMHead
from possam.iou_head import IoUHead, PerfectIoU
from possam.local_discriminative_pooling import (
    ClipMaskPooling,
    CrossAttentionPooling,
    LocalDiscriminativePooling,
    SamMaskPooling,
)
from possam.mask_aware_selective_ensemble import ClipOnly, GeometricEnsemble, LdpOnly, SelectiveEnsemble
from possam.masked_transformer_decoder import MaskedDecoderLayer, MaskedTransformerDecoder
from possam.matcher import HungarianMatcher
from possam.pixel_decoder import DeformableEncoderLayer, PixelDecoder
from possam.possam import Inference, PosSAM
from possam.text_embeddings import TextEmbeddings
from possam.two_way_decoder import TwoWayDecoder
from sam_common.config import CfgNode, defaults
from sam_common.errors import UserError
from sam_common.io.weights import cache_folder
from sam_common.layers.activation_checkpointing import checkpoint_activations
from sam_common.sam.build import build_image_encoder
from sam_common.sam.load import sam_from_cfg

POOLINGS: dict[str, type[nn.Module]] = {
    "ldp": LocalDiscriminativePooling,
    "maskpool_sam": SamMaskPooling,
    "maskpool_clip": ClipMaskPooling,
    "cross_attention": CrossAttentionPooling,
}
CHECKPOINTED = (DeformableEncoderLayer, MaskedDecoderLayer, TwoWayAttentionBlock, *POOLINGS.values())
"""Modules that recompute their activations with `ACTIVATION_CHECKPOINTING`."""
BACKBONE, HEAD = "SamViTBackbone", "PosSAMHead"
FEATURE_PYRAMIDS: dict[str, Callable[[int], nn.Module]] = {
    "simple": FeaturePyramid,
    "resized": lambda channels: ResizedFeatures(),
}
DECODERS: dict[str, Callable[..., nn.Module]] = {"masked": MaskedTransformerDecoder, "two_way": TwoWayDecoder}
SWITCHES = {"INSTANCES": "INSTANCE_ON"} | {name: f"{name}_ON" for name in ("PANOPTIC", "SEMANTIC", "SEMANTIC_LABELS")}
"""Outputs of `Inference`, and the keys of `TEST` that ask for them."""


def add_possam_config(cfg: CfgNode) -> None:
    """Adds `MODEL.CLIP` and `MODEL.POSSAM` with the paper's values; calling it again changes nothing."""
    if "POSSAM" in cfg.MODEL:
        return
    # Detectron2's names of the two parts that its registries can exchange; without it there is one of each.
    cfg.MODEL.setdefault("BACKBONE", CfgNode({"NAME": BACKBONE}))
    if "SEM_SEG_HEAD" not in cfg.MODEL:  # where version 0.1 named the head; Detectron2 has it for others
        for key in ("MODEL.SEM_SEG_HEAD", "MODEL.SEM_SEG_HEAD.NAME"):
            cfg.register_deprecated_key(key)

    cfg.MODEL.CLIP = CfgNode()
    cfg.MODEL.CLIP.NAME = "convnext_large_d_320"  # an OpenCLIP model | tiny
    cfg.MODEL.CLIP.WEIGHTS = "laion2b_s29b_b131k_ft_soup"  # official tag | path | embedded (tiny) | random
    cfg.MODEL.CLIP.PIXEL_MEAN = list(PIXEL_MEAN)  # RGB, 0..255
    cfg.MODEL.CLIP.PIXEL_STD = list(PIXEL_STD)
    cfg.MODEL.CLIP.TEXT_CACHE = ""  # folder for text embeddings; "" = text/ in the cache folder

    possam = cfg.MODEL.POSSAM = CfgNode()
    possam.HEAD = CfgNode({"NAME": HEAD})
    possam.WIDTH = 256
    possam.NUM_QUERIES = 100  # 250 for large vocabularies
    possam.FEATURE_PYRAMID = "simple"  # simple | resized (Table 4, without FPN)
    possam.PIXEL_DECODER = CfgNode(defaults(PixelDecoder))
    # NAME: masked | two_way (Table 6); NUM_LAYERS of two_way: 1 or 9 supervised blocks
    possam.DECODER = CfgNode({"NAME": "masked", **defaults(MaskedTransformerDecoder)})
    possam.IOU_HEAD = True  # False: p_iou = 1 (Table 4)
    possam.POOLING = "ldp"  # ldp | maskpool_sam | maskpool_clip | cross_attention (Table 5)
    possam.ACTIVATION_CHECKPOINTING = False  # True: less memory in training, for more time
    # NAME: mase | geometric | ldp | clip (Table 7); GRANULARITY: group | mask | element
    possam.ENSEMBLE = CfgNode({"NAME": "mase", **defaults(SelectiveEnsemble)})

    loss = defaults(Criterion)
    loss["MASK_WEIGHT"] = loss.pop("BCE_WEIGHT")
    possam.LOSS = CfgNode(loss)  # DICE_WEIGHT: the paper names BCE only; 0 is its reading

    # SEMANTIC_ON: scores of every class at every pixel; SEMANTIC_LABELS_ON: their best class only, in bounded memory
    possam.TEST = CfgNode({SWITCHES.get(name, name): value for name, value in defaults(Inference).items()})


def build_possam(cfg: CfgNode) -> PosSAM:
    """The model of a cfg with its frozen weights loaded; on the meta device with both weights `random`."""
    for key, name, ours in (
        ("BACKBONE", cfg.MODEL.BACKBONE.NAME, BACKBONE),
        ("POSSAM.HEAD", cfg.MODEL.POSSAM.HEAD.NAME, HEAD),
    ):
        if name != ours:
            raise UserError(f"MODEL.{key}.NAME is {name!r}; choose {ours}, or --engine detectron2 for others")
    clip = build_clip(cfg.MODEL.CLIP.NAME, cfg.MODEL.CLIP.WEIGHTS)
    backbone = build_backbone(cfg)
    head = build_head(cfg, backbone.out_channels, embed_dim=clip.embed_dim, clip_channels=clip.channels)
    return PosSAM(**possam_arguments(cfg, backbone=backbone, clip=clip, head=head))


def build_backbone(cfg: CfgNode) -> SamBackbone:
    """SAM's image encoder with its weights loaded, frozen, and the pyramid on its output."""
    image_encoder = sam_from_cfg(cfg, build_image_encoder).requires_grad_(False)
    feature_pyramid = _choose("FEATURE_PYRAMID", cfg.MODEL.POSSAM.FEATURE_PYRAMID, FEATURE_PYRAMIDS)
    return SamBackbone(image_encoder, feature_pyramid(image_encoder.out_channels))


def build_head(cfg: CfgNode, in_channels: int, *, embed_dim: int, clip_channels: int) -> PosSAMHead:
    """The part of PosSAM after the backbone, whose maps have `in_channels`, beside a CLIP of these dimensions."""
    return PosSAMHead(**head_arguments(cfg, in_channels, embed_dim=embed_dim, clip_channels=clip_channels))


def head_arguments(cfg: CfgNode, in_channels: int, *, embed_dim: int, clip_channels: int) -> dict[str, Any]:
    """What `PosSAMHead` is made with; as `build_head`."""
    possam = cfg.MODEL.POSSAM
    _check_sizes(possam)
    pixel_decoder = PixelDecoder(in_channels, possam.WIDTH, **_options(possam.PIXEL_DECODER))
    decoder = _choose("DECODER.NAME", possam.DECODER.NAME, DECODERS)(
        possam.WIDTH, num_queries=possam.NUM_QUERIES, **_options(possam.DECODER)
    )
    parts = {
        "pixel_decoder": pixel_decoder,
        "decoder": decoder,
        "iou_head": IoUHead(possam.WIDTH) if possam.IOU_HEAD else PerfectIoU(),
        "pooling": _choose("POOLING", possam.POOLING, POOLINGS)(possam.WIDTH, embed_dim, clip_channels=clip_channels),
        "classifier": CosineClassifier(embed_dim),
    }
    if possam.ACTIVATION_CHECKPOINTING:
        modules = (module for part in parts.values() for module in part.modules())
        checkpoint_activations(module for module in modules if isinstance(module, CHECKPOINTED))
    return parts


def possam_arguments(cfg: CfgNode, *, backbone: nn.Module, clip: ClipEncoder, head: nn.Module) -> dict[str, Any]:
    """What `PosSAM` is made with, around a backbone, a CLIP and a head."""
    return {
        "backbone": backbone,
        "clip": clip,
        "head": head,
        "ensemble": _ensemble(cfg.MODEL.POSSAM.ENSEMBLE),
        "criterion": _criterion(cfg.MODEL.POSSAM),
        "text_embeddings": TextEmbeddings(clip, cache_dir=Path(cfg.MODEL.CLIP.TEXT_CACHE or cache_folder() / "text")),
        "sam_pixels": (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD),
        "clip_pixels": (cfg.MODEL.CLIP.PIXEL_MEAN, cfg.MODEL.CLIP.PIXEL_STD),
        "image_size": cfg.INPUT.IMAGE_SIZE,
        "inference": build_inference(cfg),
    }


def build_inference(cfg: CfgNode) -> Inference:
    """Which outputs are made, and how, as `MODEL.POSSAM.TEST` says."""
    test = cfg.MODEL.POSSAM.TEST
    return Inference(**{name.lower(): test[SWITCHES.get(name, name)] for name in defaults(Inference)})


def _check_sizes(possam: CfgNode) -> None:
    """What the layers would refuse with errors that name no key."""
    step = math.lcm(32, possam.PIXEL_DECODER.NUM_HEADS, possam.DECODER.NUM_HEADS)  # 32: groups of the GroupNorms
    if possam.WIDTH < 1 or possam.WIDTH % step:
        raise UserError(f"MODEL.POSSAM.WIDTH is {possam.WIDTH}; with these NUM_HEADS it is a multiple of {step}")
    if possam.NUM_QUERIES < 1:
        raise UserError(f"MODEL.POSSAM.NUM_QUERIES is {possam.NUM_QUERIES}; give at least 1")


def _ensemble(ensemble: CfgNode) -> nn.Module:
    weights = {"alpha": ensemble.ALPHA, "beta": ensemble.BETA}
    builders: dict[str, Callable[[], nn.Module]] = {
        "mase": lambda: SelectiveEnsemble(strength=ensemble.STRENGTH, granularity=ensemble.GRANULARITY, **weights),
        "geometric": lambda: GeometricEnsemble(**weights),
        "ldp": LdpOnly,
        "clip": ClipOnly,
    }
    return _choose("ENSEMBLE.NAME", ensemble.NAME, builders)()


def _criterion(possam: CfgNode) -> Criterion:
    loss = _options(possam.LOSS)
    loss["bce_weight"] = loss.pop("mask_weight")
    if not possam.IOU_HEAD:  # there is nothing to supervise
        loss["iou_weight"] = 0.0
    matched = (name.lower() for name in defaults(HungarianMatcher))
    return Criterion(HungarianMatcher(**{name: loss[name] for name in matched}), **loss)


def _options(node: CfgNode) -> dict[str, Any]:
    """Keys that `defaults` of a constructor made, as its arguments."""
    return {key.lower(): value for key, value in node.items() if key != "NAME"}


def _choose(key: str, name: str, choices: Mapping[str, Callable[..., nn.Module]]) -> Callable[..., nn.Module]:
    if name not in choices:
        raise UserError(f"MODEL.POSSAM.{key} is {name!r}; choose one of {', '.join(choices)}")
    return choices[name]


def checked_sizes(cfg: CfgNode, *keys: str) -> list[int]:
    """Sides of images, pixels, from keys of `INPUT`. Raises UserError where one is no size."""
    for key in keys:
        if cfg.INPUT[key] < 1:
            raise UserError(f"INPUT.{key} is {cfg.INPUT[key]}; give at least 1 pixel")
    return [cfg.INPUT[key] for key in keys]
