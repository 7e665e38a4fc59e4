"""The only file of this method that reads a cfg: its keys, and the model they describe."""

from __future__ import annotations

from typing import Any

from plug.criterion import BRANCHES, Criterion
from plug.data.mapper import AmodalMapper
from plug.parallel_lora import ParallelEncoder
from plug.plug import PLUG, Inference
from plug.refine_module import NoRefinement, RefineModule
from plug.vanilla_sam import VanillaSAM
from sam_common.boxes.config import add_boxes_config
from sam_common.config import CfgNode, add_missing, defaults, one_of
from sam_common.errors import UserError
from sam_common.sam.build import build_sam
from sam_common.sam.load import sam_from_cfg
from sam_common.sam.paired_decoder import PairedDecoder


def add_plug_config(cfg: CfgNode) -> None:
    """Adds `MODEL.PLUG` with the paper's values, and how objects and boxes are read; again changes nothing."""
    if "PLUG" in cfg.MODEL:
        return
    add_boxes_config(cfg)
    # INSTANCES_PER_IMAGE: in training, the most objects of one item, which is one decoded image; MATCH_IOU: the overlap
    # from which a box of a file or a detector is of an object
    boxes = {"MATCH_IOU": defaults(AmodalMapper)["MATCH_IOU"]}
    add_missing(cfg, {"INPUT": {"INSTANCES_PER_IMAGE": 8, "BOXES": boxes}})
    criterion, refine = defaults(Criterion), defaults(RefineModule)
    plug = cfg.MODEL.PLUG = CfgNode()
    plug.CROP_SIZE = 512  # side of the crops, pixels
    plug.CROP_BORDER = "clip"  # clip | pad: what a crop is beyond the image
    plug.BRANCHES = len(BRANCHES)  # 2: visible and amodal | 1: amodal only (Table 2)
    plug.LORA_RANK = 16  # 4, 8, 16, 32 in Table 3
    plug.POINT_LOSS = True  # False: Table 2, rows 1 and 2
    plug.NUM_POINTS = criterion["NUM_POINTS"]
    plug.REFINE = True  # False: Table 2, rows 1 to 3
    plug.REFINE_WIDTH, plug.REFINE_BLOCKS = refine["WIDTH"], refine["NUM_BLOCKS"]
    plug.REFINE_WEIGHT = criterion["REFINE_WEIGHT"]
    plug.ACTIVATION_CHECKPOINTING = False  # True: less memory in training, for more time
    # MERGED: LoRA added to the encoder's weights; THRESHOLD: probability; MAX_CROPS: at once, bounds the memory
    plug.TEST = CfgNode({"MERGED": True, **defaults(Inference)})


def build_vanilla_sam(cfg: CfgNode) -> VanillaSAM:
    """SAM with its own weights (Table 2, row 1)."""
    return VanillaSAM(**vanilla_sam_arguments(cfg))


def vanilla_sam_arguments(cfg: CfgNode) -> dict[str, Any]:
    """What `VanillaSAM` is made of."""
    sam = sam_from_cfg(cfg, build_sam)
    return {"sam": sam, "pixels": (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)}


def build_plug(cfg: CfgNode) -> PLUG:
    """The model of a cfg with SAM's weights loaded; on the meta device with `MODEL.SAM.WEIGHTS random`."""
    return PLUG(**plug_arguments(cfg))


def plug_arguments(cfg: CfgNode) -> dict[str, Any]:
    """What `PLUG` is made of."""
    plug = cfg.MODEL.PLUG
    _check(plug)
    if cfg.MODEL.SAM.COMPILE and plug.ACTIVATION_CHECKPOINTING:  # torch.compile would pass over all recomputed blocks
        raise UserError("MODEL.SAM.COMPILE does not go with MODEL.PLUG.ACTIVATION_CHECKPOINTING; set one of them False")
    sam = sam_from_cfg(cfg, build_sam)
    refine = RefineModule(plug.BRANCHES, width=plug.REFINE_WIDTH, num_blocks=plug.REFINE_BLOCKS)
    return {
        "encoder": ParallelEncoder(
            sam.image_encoder,
            size=plug.CROP_SIZE,
            rank=plug.LORA_RANK,
            num_branches=plug.BRANCHES,
            merge=plug.TEST.MERGED,
            checkpoint=plug.ACTIVATION_CHECKPOINTING,
        ),
        "prompt_encoder": sam.prompt_encoder,
        "decoders": [PairedDecoder(sam.mask_decoder) for _ in range(plug.BRANCHES)],
        "refine": refine if plug.REFINE else NoRefinement(),
        "criterion": Criterion(
            num_points=plug.NUM_POINTS if plug.POINT_LOSS else 0,
            refine_weight=plug.REFINE_WEIGHT if plug.REFINE else 0.0,
        ),
        "size": plug.CROP_SIZE,
        "clip_windows": plug.CROP_BORDER == "clip",
        "pixels": (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD),
        "inference": Inference(threshold=plug.TEST.THRESHOLD, max_crops=plug.TEST.MAX_CROPS),
    }


def _check(plug: CfgNode) -> None:
    """What the layers would refuse with errors that name no key."""
    if plug.BRANCHES not in range(1, len(BRANCHES) + 1):
        raise UserError(f"MODEL.PLUG.BRANCHES is {plug.BRANCHES}; choose 1 (amodal) or 2 (visible and amodal)")
    one_of("MODEL.PLUG.CROP_BORDER", plug.CROP_BORDER, ("clip", "pad"))
    if plug.CROP_SIZE < 16 or plug.CROP_SIZE % 16:
        raise UserError(f"MODEL.PLUG.CROP_SIZE is {plug.CROP_SIZE}; give a multiple of 16")
    if plug.POINT_LOSS and plug.CROP_SIZE**2 < 4 * plug.NUM_POINTS:
        raise UserError(f"MODEL.PLUG.NUM_POINTS {plug.NUM_POINTS} needs crops of at least {4 * plug.NUM_POINTS} pixels")
    counts = {key: plug[key] for key in ("LORA_RANK", "NUM_POINTS", "REFINE_WIDTH", "REFINE_BLOCKS")}
    for key, count in (counts | {"TEST.MAX_CROPS": plug.TEST.MAX_CROPS}).items():
        if count < 1:
            raise UserError(f"MODEL.PLUG.{key} is {count}; give at least 1")
    if not 0 < plug.TEST.THRESHOLD < 1:
        raise UserError(f"MODEL.PLUG.TEST.THRESHOLD is {plug.TEST.THRESHOLD}; give a probability between 0 and 1")
