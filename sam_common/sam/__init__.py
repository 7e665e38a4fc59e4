"""The Segment Anything Model in sizes T, B, L and H.

Source: Kirillov et al., Segment Anything, arXiv 2304.02643; built on the modules of the `segment_anything` package.
"""

from sam_common.sam.box_prompt import predict_masks_from_boxes
from sam_common.sam.build import Sam, build_image_encoder, build_sam
from sam_common.sam.load import load_sam_weights, sam_from_cfg

__all__ = ["Sam", "build_image_encoder", "build_sam", "load_sam_weights", "predict_masks_from_boxes", "sam_from_cfg"]
