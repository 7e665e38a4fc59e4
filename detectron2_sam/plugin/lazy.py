"""What a LazyConfig needs beside a model's parts (configs/detectron2/possam_T.py): plain values in, objects out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from amsam.config import build_decoder
from amsam.embedding_cache import EmbeddingCache
from amsam.mask_calibration import ALPHA, PerSampleCalibration
from detectron2_sam.plugin.amodal import PLUG
from detectron2_sam.plugin.clipping import clip_before_steps
from detectron2_sam.plugin.datasets import register_datasets, spec_of
from detectron2_sam.plugin.evaluation import AmodalEvaluator, FewShotEvaluator, SegmentationEvaluator
from detectron2_sam.plugin.few_shot import AMSAM
from detectron2_sam.plugin.mappers import AmodalMapper, FewShotMapper, SegmentationMapper
from detectron2_sam.plugin.modeling import PosSAM, PosSAMHead, SamViTBackbone
from plug.criterion import BRANCHES
from plug.criterion import Criterion as PLUGCriterion
from plug.data.annotations import group_instances
from plug.parallel_lora import ParallelEncoder
from plug.plug import Inference as PLUGInference
from plug.refine_module import RefineModule
from possam.classifier import CosineClassifier
from possam.clip_encoder import PIXEL_MEAN, PIXEL_STD, ClipEncoder, build_clip
from possam.criterion import Criterion
from possam.feature_pyramid import FeaturePyramid
from possam.iou_head import IoUHead
from possam.local_discriminative_pooling import LocalDiscriminativePooling
from possam.mask_aware_selective_ensemble import SelectiveEnsemble
from possam.masked_transformer_decoder import MaskedTransformerDecoder
from possam.matcher import HungarianMatcher
from possam.pixel_decoder import PixelDecoder
from possam.possam import Inference as PosSAMInference
from possam.text_embeddings import TextEmbeddings
from sam_common.data.loader import BatchLoader, Mapper, build_test_loader, build_train_loader
from sam_common.engine.optimizer import parameter_groups
from sam_common.errors import UserError
from sam_common.io.weights import cache_folder
from sam_common.sam.build import Sam, build_image_encoder, build_sam
from sam_common.sam.load import load_sam_weights
from sam_common.sam.paired_decoder import PairedDecoder
from sam_common.structures import Vocabulary

__all__ = [
    "CLIP_PIXELS",
    "AmodalEvaluator",
    "AmodalMapper",
    "CosineClassifier",
    "Criterion",
    "FeaturePyramid",
    "FewShotEvaluator",
    "FewShotMapper",
    "HungarianMatcher",
    "IoUHead",
    "LocalDiscriminativePooling",
    "MaskedTransformerDecoder",
    "PLUGCriterion",
    "PLUGInference",
    "PixelDecoder",
    "PosSAMHead",
    "PosSAMInference",
    "RefineModule",
    "SamViTBackbone",
    "SegmentationEvaluator",
    "SegmentationMapper",
    "SelectiveEnsemble",
    "adamw",
    "amsam",
    "build_clip",
    "no_optimizer",
    "parameter_groups",
    "plug",
    "possam",
    "sam",
    "sam_encoder",
    "test_loader",
    "train_loader",
    "vocabulary",
]

CLIP_PIXELS = (PIXEL_MEAN, PIXEL_STD)
"""Mean and deviation of CLIP's pixels, 0..255, RGB."""


def possam(*, clip: ClipEncoder, text_cache: str = "", **parts: Any) -> PosSAM:
    """PosSAM of its parts, as its constructor names them, but for the text embeddings, which are `clip`'s.

    Args:
        text_cache: the folder that keeps them; by default one in the cache folder.
    """
    folder = Path(text_cache) if text_cache else cache_folder() / "text"
    return PosSAM(clip=clip, text_embeddings=TextEmbeddings(clip, cache_dir=folder), **parts)


def sam_encoder(size: str, weights: str, *, frozen: bool = True) -> nn.Module:
    """SAM's image encoder. Args: T, B, L or H; as `MODEL.SAM.WEIGHTS`; whether it stays as it is.

    Raises:
        UserError: the weights cannot be had or are of another size.
    """
    encoder = build_image_encoder(size).requires_grad_(not frozen)
    load_sam_weights(encoder, weights)
    return encoder


def sam(size: str, weights: str) -> Sam:
    """A whole SAM; arguments and errors as of `sam_encoder`."""
    whole = build_sam(size)
    load_sam_weights(whole, weights)
    return whole


def plug(*, sam: Sam, size: int, lora_rank: int, refine: nn.Module, **parts: Any) -> PLUG:
    """PLUG of its parts, as its constructor names them, but for the encoder and the two decoders, which are `sam`'s.

    Args:
        size: side of the crops, pixels.
        lora_rank: of the adapters of each branch.
    """
    encoder = ParallelEncoder(sam.image_encoder, size=size, rank=lora_rank, num_branches=len(BRANCHES), merge=True)
    decoders = [PairedDecoder(sam.mask_decoder) for _ in BRANCHES]
    return PLUG(encoder, sam.prompt_encoder, decoders=decoders, refine=refine, size=size, clip_windows=True, **parts)


def amsam(*, sam: Sam, num_classes: int, lora_rank: int = 4, alpha: float = ALPHA, **parts: Any) -> AMSAM:
    """AM-SAM of SAM, as its constructor names the other parts, with the paper's decoder and calibration.

    Args:
        num_classes: beside the background.
        lora_rank: of the adapters of the decoder's attention; 0 trains the transformer itself.
        alpha: of the calibration.
    """
    decoder = build_decoder(sam.mask_decoder, num_classes + 1, rank=lora_rank, tokens="random")
    frozen = {"encoder": sam.image_encoder, "prompt_encoder": sam.prompt_encoder}
    made = {"decoder": decoder, "calibration": PerSampleCalibration(alpha), "cache": EmbeddingCache()}
    return AMSAM(**frozen, **made, **parts)


def no_optimizer(params: Any) -> torch.optim.Optimizer:
    """What a LazyConfig of AM-SAM has in the optimizer's place: `SimpleTrainer` does not know of two levels.

    Raises:
        UserError: always.
    """
    raise UserError(
        "AM-SAM learns at two levels, which this tool does not know; train with detectron2_sam.Trainer(cfg), or "
        "detectron2-sam train --engine detectron2, and evaluate here with --eval-only"
    )


def vocabulary(name: str) -> Vocabulary:
    """The classes of a data set that any catalog knows."""
    register_datasets()
    return spec_of(name).load_vocabulary()


def train_loader(
    name: str,
    mapper: Mapper,
    *,
    batch_size: int,
    seed: int = 0,
    num_workers: int = 4,
    instances_per_image: int | None = None,
) -> BatchLoader:
    """This process's endless batches of a data set; `batch_size` images over all processes.

    With `instances_per_image`, for PLUG, an image comes with at most so many of its objects, and again with the others.
    They begin with the first in a run that goes on too, as Detectron2's own sampler does under its LazyConfig tool.
    """
    register_datasets()
    split = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
    records: Sequence[Any] = spec_of(name).load()
    if instances_per_image is not None:
        records = group_instances(records, instances_per_image)
    return build_train_loader(records, mapper, seed=seed, batch_size=batch_size, num_workers=num_workers, **split)


def test_loader(name: str, mapper: Mapper, *, num_workers: int = 4) -> BatchLoader:
    """This process's images of a data set, one by one."""
    register_datasets()
    split = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
    return build_test_loader(spec_of(name).load(), mapper, num_workers=num_workers, **split)


def adamw(params: Sequence[dict[str, Any]], *, lr: float, clip_norm: float = 0.0) -> torch.optim.AdamW:
    """AdamW over groups of parameters that clips the gradient of the whole model before each step; 0 clips nothing.

    Its step raises `FloatingPointError` at a gradient that is not finite, and leaves the weights as they are.
    """
    optimizer = torch.optim.AdamW(params, lr=lr)
    clip_before_steps(optimizer, clip_norm or torch.inf)
    return optimizer
