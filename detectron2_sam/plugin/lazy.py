"""What a LazyConfig needs beside a model's parts (configs/detectron2/possam_T.py): plain values in, objects out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from detectron2_sam.plugin.clipping import clip_before_steps
from detectron2_sam.plugin.datasets import register_datasets, spec_of
from detectron2_sam.plugin.modeling import PosSAM
from possam.clip_encoder import ClipEncoder
from possam.text_embeddings import TextEmbeddings
from sam_common.data.loader import BatchLoader, Mapper, build_test_loader, build_train_loader
from sam_common.io.weights import cache_folder
from sam_common.sam.build import build_image_encoder
from sam_common.sam.load import load_sam_weights
from sam_common.structures import Vocabulary


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


def vocabulary(name: str) -> Vocabulary:
    """The classes of a data set that any catalog knows."""
    register_datasets()
    return spec_of(name).load_vocabulary()


def train_loader(name: str, mapper: Mapper, *, batch_size: int, seed: int = 0, num_workers: int = 4) -> BatchLoader:
    """This process's endless batches of a data set; `batch_size` images over all processes.

    They begin with the first in a run that goes on too, as Detectron2's own sampler does under its LazyConfig tool.
    """
    register_datasets()
    split = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
    records = spec_of(name).load()
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
