"""The only file of this method that reads a cfg: its keys, and the model they describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling.transformer import Attention
from torch import nn

from amsam.amsam import AMSAM
from amsam.baselines import BoxRectangle, PromptedSAM
from amsam.bilevel_step import BilevelStep, JointStep
from amsam.box_prompts import POLICIES
from amsam.data.mapper import FewShotMapper
from amsam.embedding_cache import EmbeddingCache
from amsam.lora import LoraLinear
from amsam.mask_calibration import ALPHA, BatchMeanCalibration, LearnedCalibration, NoCalibration, PerSampleCalibration
from sam_common.boxes.config import add_boxes_config
from sam_common.config import CfgNode, add_missing, defaults, get_cfg, one_of
from sam_common.errors import UserError
from sam_common.io.plain_yaml import NotPlain, parse_yaml
from sam_common.io.weights import state_sha256
from sam_common.sam.build import Sam, build_sam
from sam_common.sam.load import sam_from_cfg
from sam_common.sam.paired_decoder import PairedDecoder

GRADIENTS = ("first_order", "unrolled", "joint")
CALIBRATIONS: dict[str, Callable[[int, float], nn.Module]] = {  # of channels and α
    "per_sample": lambda channels, alpha: PerSampleCalibration(alpha),
    "batch_mean": lambda channels, alpha: BatchMeanCalibration(alpha),
    "learned": LearnedCalibration,
    "off": lambda channels, alpha: NoCalibration(),
}
TOKENS = ("random", "sam_token0")

_MODEL_KEYS, _BOX_KEYS = ("SAM", "AMSAM", "PIXEL_MEAN", "PIXEL_STD"), ("SELECT", "CLASSES")
"""Keys of `MODEL` and `INPUT.BOXES` that an adapter tells."""


def add_amsam_config(cfg: CfgNode) -> None:
    """Adds `MODEL.AMSAM` with the paper's values, and which shots and boxes it learns from; again changes nothing."""
    if "AMSAM" in cfg.MODEL:
        return
    add_boxes_config(cfg)
    shots = {
        "SHOTS": 4,  # how many images of DATASETS.TRAIN are learned from
        "SHOTS_SEED": -1,  # which: the first ones, or from 0 on as many drawn with this seed
    }
    mapper = defaults(FewShotMapper)
    boxes = {
        "SELECT": mapper["POLICY"],  # which boxes of an image prompt the model: top1 | union | all | none
        "CLASSES": mapper["CLASSES"],  # names of the detector's classes that may; empty: all
    }
    add_missing(cfg, {"DATASETS": shots, "INPUT": {"BOXES": boxes}})
    amsam = cfg.MODEL.AMSAM = CfgNode()
    amsam.NUM_CLASSES = 1  # K, beside the background
    amsam.IMAGE_SIZE = 256  # images are resized to this square, pixels
    amsam.LORA_RANK = 4  # 0: no LoRA, the transformer itself is trained
    amsam.TOKENS = "random"  # random | sam_token0: how the mask tokens begin
    amsam.CALIBRATION = "per_sample"  # per_sample | batch_mean | learned | off
    amsam.ALPHA = ALPHA
    amsam.GRADIENT = "first_order"  # first_order | unrolled, of the dense prompt | joint: one level, no bi-level
    amsam.PROMPT_LR = 1e-3  # of the dense prompt, unless joint; SOLVER.BASE_LR is that of all others
    amsam.CACHE = ""  # a folder for image embeddings, beside those in memory


def build_amsam(cfg: CfgNode) -> AMSAM:
    """The model of a cfg with SAM's weights loaded; on the meta device with `MODEL.SAM.WEIGHTS random`."""
    return AMSAM(**amsam_arguments(cfg))


def amsam_arguments(cfg: CfgNode) -> dict[str, Any]:
    """What `AMSAM` is made of.

    Raises:
        UserError: a key makes no sense, or SAM's weights cannot be had.
    """
    amsam = cfg.MODEL.AMSAM
    _check(amsam)
    sam = sam_from_cfg(cfg, build_sam)
    decoder = build_decoder(sam.mask_decoder, amsam.NUM_CLASSES + 1, rank=amsam.LORA_RANK, tokens=amsam.TOKENS)
    channels = sam.mask_decoder.transformer_dim // 8
    pixels = (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    return {
        "encoder": sam.image_encoder,
        "prompt_encoder": sam.prompt_encoder,
        "decoder": decoder,
        "calibration": CALIBRATIONS[amsam.CALIBRATION](channels, amsam.ALPHA),
        "cache": _cache(amsam.CACHE, sam, amsam.IMAGE_SIZE, pixels),
        "image_size": amsam.IMAGE_SIZE,
        "pixels": pixels,
    }


def build_prompted_sam(cfg: CfgNode) -> PromptedSAM:
    """SAM with its own weights, asked by the boxes."""
    return PromptedSAM(**prompted_sam_arguments(cfg))


def prompted_sam_arguments(cfg: CfgNode) -> dict[str, Any]:
    """What `PromptedSAM` is made of."""
    _check_baseline(cfg)
    return {"sam": sam_from_cfg(cfg, build_sam), "pixels": (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)}


def build_box_rectangle(cfg: CfgNode) -> BoxRectangle:
    """The box itself as the answer."""
    _check_baseline(cfg)
    return BoxRectangle()


def _check_baseline(cfg: CfgNode) -> None:
    """Both are told where the object is, not which it is."""
    name, num_classes = f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}", cfg.MODEL.AMSAM.NUM_CLASSES
    if num_classes != 1:
        raise UserError(f"{name} knows one class, MODEL.AMSAM.NUM_CLASSES is {num_classes}")
    if cfg.INPUT.BOXES.SELECT == "none":
        raise UserError(f"{name} has nothing but boxes, INPUT.BOXES.SELECT is none")


def adapter_settings(cfg: CfgNode) -> str:
    """What of a cfg builds this model again and chooses its boxes, as YAML; no path of this machine but that of SAM's
    weights."""
    model = {key: cfg.MODEL[key] for key in _MODEL_KEYS}
    boxes = {key: cfg.INPUT.BOXES[key] for key in _BOX_KEYS}
    kept = CfgNode({"MODEL": {"META_ARCHITECTURE": "AMSAM", **model}, "INPUT": {"BOXES": boxes}}).clone()
    kept.MODEL.AMSAM.CACHE = ""
    return kept.dump()


def cfg_of_adapter(settings: str, options: Sequence[str] = ()) -> CfgNode:
    """The cfg that `adapter_settings` told of, with `KEY VALUE` pairs that override it.

    Raises:
        UserError: the text is no such YAML, or names another key than `adapter_settings` writes.
    """
    cfg = get_cfg()
    add_amsam_config(cfg)
    try:
        loaded = parse_yaml(settings)
    except NotPlain as error:
        raise UserError(f"the settings of the adapter are no plain YAML: {error}") from error
    model = _part(loaded, "", {"MODEL", "INPUT"}).get("MODEL")
    if _part(model, "MODEL", {"META_ARCHITECTURE", *_MODEL_KEYS}).get("META_ARCHITECTURE") != "AMSAM":
        raise UserError("the settings of the adapter are not those of an AMSAM model")
    boxes = _part(loaded.get("INPUT", {}), "INPUT", {"BOXES"}).get("BOXES", {})
    _part(boxes, "INPUT.BOXES", set(_BOX_KEYS))
    cfg.merge(loaded, "the adapter")
    cfg.MODEL.AMSAM.CACHE = ""  # a file that others made names no folder to write to
    cfg.merge_from_list(options)
    one_of("INPUT.BOXES.SELECT", cfg.INPUT.BOXES.SELECT, POLICIES)
    return cfg


def _part(loaded: Any, name: str, known: set[str]) -> dict[str, Any]:
    """A part of an adapter's settings, which holds no other keys than these."""
    where = f" {name}" if name else ""
    if not isinstance(loaded, dict):
        raise UserError(f"the settings of the adapter are damaged:{where or ' they'} must hold keys")
    if strange := loaded.keys() - known:
        raise UserError(f"the settings of the adapter hold more than it has:{where} {', '.join(map(str, strange))}")
    return loaded


def build_bilevel_step(cfg: CfgNode, model: AMSAM, optimizer: torch.optim.Optimizer) -> BilevelStep | JointStep:
    """What takes the place of the backward pass."""
    amsam = cfg.MODEL.AMSAM
    if amsam.GRADIENT == "joint":
        return JointStep(model)
    return BilevelStep(model, optimizer, upper_lr=amsam.PROMPT_LR, gradient=amsam.GRADIENT)


def _cache(folder: str, sam: Sam, image_size: int, pixels: tuple[Sequence[float], Sequence[float]]) -> EmbeddingCache:
    """What another SAM, another size or other means of pixels give goes to another folder."""
    if not folder:
        return EmbeddingCache()
    frozen = {**sam.image_encoder.state_dict(), **sam.prompt_encoder.state_dict(prefix="prompt_encoder.")}
    frozen["pixels"] = torch.tensor([list(values) for values in pixels])
    return EmbeddingCache(Path(folder).expanduser() / f"{state_sha256(frozen)[:16]}-{image_size}")


def build_decoder(pretrained: nn.Module, num_masks: int, *, rank: int, tokens: str) -> PairedDecoder:
    """SAM's decoder whose transformer is frozen but for LoRA on the queries and values of every attention; with rank 0
    it has no LoRA and is trained as a whole."""
    decoder = PairedDecoder(pretrained, num_masks)
    if rank:
        decoder.transformer.requires_grad_(False)
        for module in decoder.transformer.modules():
            if isinstance(module, Attention):
                module.q_proj = LoraLinear(module.q_proj, rank)
                module.v_proj = LoraLinear(module.v_proj, rank)
    if tokens == "random":
        nn.init.normal_(decoder.mask_tokens.weight)  # as an embedding is drawn
    return decoder


def _check(amsam: CfgNode) -> None:
    """What the layers would refuse with errors that name no key, or make so large that no memory holds it: an adapter
    is a file that anybody may have written."""
    for key, known in (("CALIBRATION", CALIBRATIONS), ("TOKENS", TOKENS), ("GRADIENT", GRADIENTS)):
        one_of(f"MODEL.AMSAM.{key}", amsam[key], known)
    for key, least, most in (("NUM_CLASSES", 1, 254), ("LORA_RANK", 0, 256), ("IMAGE_SIZE", 16, 4096)):
        if not least <= amsam[key] <= most:
            raise UserError(f"MODEL.AMSAM.{key} is {amsam[key]}; give {least} to {most}")
    if amsam.IMAGE_SIZE % 16:
        raise UserError(f"MODEL.AMSAM.IMAGE_SIZE is {amsam.IMAGE_SIZE}; give a multiple of 16")
    if not 0 <= amsam.ALPHA <= 1:
        raise UserError(f"MODEL.AMSAM.ALPHA is {amsam.ALPHA:g}; it lies between 0 and 1")
