"""Loading SAM's weights strictly: every name and shape must agree, and what does not is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from sam_common.config import CfgNode
from sam_common.errors import UserError
from sam_common.io.resources import resource
from sam_common.io.weights import OFFICIAL, misfits, read_weights, verified_file
from sam_common.sam.build import SIZES, Sam
from sam_common.sam.image_encoder import ImageEncoder

EMBEDDED = "weights/tiny_sam.safetensors"
_OFFICIAL_SIZE = {"sam_vit_b": "B", "sam_vit_l": "L", "sam_vit_h": "H"}
Part = TypeVar("Part", Sam, ImageEncoder)


def sam_from_cfg(cfg: CfgNode, build: Callable[[str], Part]) -> Part:
    """What `MODEL.SAM` describes: of its size, with its weights, compiled where that is asked for.

    Args:
        build: `build_sam`, or `build_image_encoder` for that part alone.

    Raises:
        UserError: there is no such size, or the weights cannot be used.
    """
    sam = build(cfg.MODEL.SAM.SIZE)
    load_sam_weights(sam, cfg.MODEL.SAM.WEIGHTS)
    if cfg.MODEL.SAM.COMPILE:
        _encoder(sam).compile_blocks()
    return sam


def load_sam_weights(sam: Sam | ImageEncoder, source: str | Path) -> None:
    """Loads weights in place, whatever floating-point type the file has.

    Args:
        sam: a whole SAM, or its image encoder alone; then the other parts of the file are left out knowingly.
        source: `sam_vit_b`, `sam_vit_l` or `sam_vit_h` (downloaded once), a path (`.pth` or `.safetensors`, with the
            official names), `embedded` (size T, ships with the project), or `random`.

    Raises:
        UserError: the file cannot be had or read, is for another size, or a key is missing, unexpected or mis-shaped.
    """
    if source == "random":
        draw_positions(_encoder(sam))
        return
    prefix, left_out = ("", ()) if isinstance(sam, Sam) else ("image_encoder.", ("prompt_encoder.", "mask_decoder."))
    wanted = {prefix + name: tensor for name, tensor in sam.state_dict().items()}
    if source in _OFFICIAL_SIZE:  # so that the wrong gigabytes are not downloaded first
        official = SIZES[_OFFICIAL_SIZE[str(source)]]
        _check_size((official.dim, official.depth), wanted, source)
    path = _find(source)
    given = {name: tensor for name, tensor in read_weights(path).items() if not name.startswith(left_out)}
    _check_size(_measure(given), wanted, path)
    if found := misfits(wanted, given):
        raise UserError(f"{path} does not fit this SAM: keys {found}; give weights with the official layout")
    sam.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in given.items()})


def draw_positions(encoder: ImageEncoder) -> None:
    """Draws the position tables, which start as zeros: a random encoder that ignores position would be degenerate."""
    for name, parameter in encoder.named_parameters():
        if name == "pos_embed" or name.endswith((".rel_pos_h", ".rel_pos_w")):
            nn.init.trunc_normal_(parameter, std=0.02)


def _encoder(sam: Sam | ImageEncoder) -> ImageEncoder:
    return sam.image_encoder if isinstance(sam, Sam) else sam


def _find(source: str | Path) -> Path:
    if source == "embedded":
        return resource(EMBEDDED)
    if source in OFFICIAL:
        return verified_file(OFFICIAL[str(source)], str(source))
    path = Path(source)
    if not os.path.isfile(path):
        names = ", ".join((*OFFICIAL, "embedded", "random"))
        raise UserError(f"MODEL.SAM.WEIGHTS: there is no file {source}; give a path or one of {names}")
    return path


def _check_size(found: tuple[int, int] | None, wanted: Mapping[str, Tensor], source: str | Path) -> None:
    asked = _measure(wanted)
    if asked is not None and found not in (None, asked):
        raise UserError(
            f"{source} looks like {_describe(found)} but {_describe(asked)} was asked for; "
            "change MODEL.SAM.SIZE or MODEL.SAM.WEIGHTS"
        )


def _measure(state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """(dim, depth) of the image encoder of a state dict; None where there is no image encoder in it."""
    if "image_encoder.pos_embed" not in state:
        return None
    blocks = {name.split(".")[2] for name in state if name.startswith("image_encoder.blocks.")}
    return state["image_encoder.pos_embed"].shape[-1], len(blocks)


def _describe(measure: tuple[int, int]) -> str:
    names = [name for name, size in SIZES.items() if (size.dim, size.depth) == measure]
    return f"SAM size {names[0] if names else 'unknown'} (dim {measure[0]}, depth {measure[1]})"
