"""SAM by size: `build_sam("B")`, `build_image_encoder("H")`. Weights come apart (`load.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling import Sam as OfficialSam

from sam_common.errors import UserError
from sam_common.sam.image_encoder import PATCH_SIZE, ImageEncoder
from sam_common.sam.prompt_encoder import PromptEncoder


@dataclass(frozen=True)
class SamSize:
    """What distinguishes one SAM from another.

    Attributes:
        dim, depth, num_heads: of the image encoder; each of its blocks has an MLP of 4·dim.
        global_blocks: indices of the blocks that attend to the whole image; the others attend within windows.
        window_size: side of a window, tokens.
        width: channels of image embeddings, prompts and mask decoder.
        mlp_dim: hidden width of the mask decoder's MLPs.
        img_size: side of the pretraining images, pixels.
    """

    dim: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]
    window_size: int = 14
    width: int = 256
    mlp_dim: int = 2048
    img_size: int = 1024


SIZES = {
    "T": SamSize(192, 4, 6, (1, 3), window_size=8, width=128, mlp_dim=512, img_size=256),
    "B": SamSize(768, 12, 12, (2, 5, 8, 11)),
    "L": SamSize(1024, 24, 16, (5, 11, 17, 23)),
    "H": SamSize(1280, 32, 16, (7, 15, 23, 31)),
}
"""T is this project's own, for CPUs and generated scenes; B, L and H are ViT-B, ViT-L and ViT-H of the SAM paper."""


class Sam(OfficialSam):
    """Image encoder, prompt encoder and mask decoder; they do the work, this class holds them.

    - `image_encoder`: normalised images [B, 3, height, width] -> image embeddings [B, width, height / 16, width / 16].
    - `prompt_encoder(points, boxes, masks)`: prompts of one image -> sparse [N, prompts, C] and dense embeddings
      [N, C, height / 16, width / 16]; `prompt_encoder.at(height, width)` for images of another size than `img_size`.
    - `mask_decoder`: embeddings of one image and of N prompts -> mask logits [N, 1 or 3, height / 4, width / 4] and
      predicted IoU [N, 1 or 3].

    Called as segment-anything's `Sam` it pads images to the square of its pretraining, so it also works inside
    segment-anything's `SamPredictor` and `SamAutomaticMaskGenerator`. `sam_common.sam.box_prompt` predicts masks from
    boxes in batches of images of any size.
    """

    image_encoder: ImageEncoder
    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder


def build_image_encoder(size: str) -> ImageEncoder:
    """The image encoder of a SAM size, randomly initialised; on the meta device under `torch.device("meta")`.

    Raises:
        UserError: the size is not T, B, L or H.
    """
    sizes = _look_up(size)
    return ImageEncoder(
        sizes.dim,
        sizes.depth,
        num_heads=sizes.num_heads,
        global_blocks=sizes.global_blocks,
        window_size=sizes.window_size,
        out_channels=sizes.width,
        img_size=sizes.img_size,
    )


def build_sam(size: str) -> Sam:
    """A whole SAM, randomly initialised, in training mode; on the meta device under `torch.device("meta")`.

    Raises:
        UserError: the size is not T, B, L or H.
    """
    sizes = _look_up(size)
    grid = sizes.img_size // PATCH_SIZE
    return Sam(
        image_encoder=build_image_encoder(size),
        prompt_encoder=PromptEncoder(
            embed_dim=sizes.width,
            image_embedding_size=(grid, grid),
            input_image_size=(sizes.img_size, sizes.img_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=sizes.width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=sizes.width, num_heads=8, mlp_dim=sizes.mlp_dim),
            iou_head_hidden_dim=sizes.width,
        ),
    )


def _look_up(size: str) -> SamSize:
    if size not in SIZES:
        raise UserError(f"MODEL.SAM.SIZE {size!r} is unknown; it is one of {', '.join(SIZES)}")
    return SIZES[size]
