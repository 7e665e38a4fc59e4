"""Image embeddings, computed once: a frozen encoder and no augmentation mean that every epoch asks for the same.

The key is the content of the image; the encoder and the input's size name the folder on disk. So a cache never answers
for another image, encoder or size, and needs no one to clear it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam_common.files import atomic_path

MEMORY = 2**30
"""Bytes that embeddings may take in memory; the one asked for longest ago goes first."""


class EmbeddingCache:
    """Embeddings in memory, and on disk where a folder is given.

    Args:
        folder: a file for each image, made when first needed; None: memory only.
        memory: bytes, at most.
    """

    def __init__(self, folder: Path | None = None, *, memory: int = MEMORY) -> None:
        self.folder = folder
        self.memory = memory
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def __call__(self, image: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """`embed(image)`, or what it was before for an image of the same content.

        Args:
            image: [3, H, W] uint8.
            embed: gives a tensor that depends on nothing else.
        """
        key = image_key(image)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        embedding = self._read(key, image.device)
        if embedding is None:
            embedding = embed(image)
            self._write(key, embedding)
        self._keep(key, embedding)
        return embedding

    def _keep(self, key: str, embedding: Tensor) -> None:
        self._known[key] = embedding
        self._bytes += embedding.nbytes
        while self._bytes > self.memory and len(self._known) > 1:
            self._bytes -= self._known.popitem(last=False)[1].nbytes

    def _read(self, key: str, device: torch.device) -> Tensor | None:
        """None where there is no file, or one that was damaged: it is written anew."""
        if self.folder is None:
            return None
        try:
            return load_file(self.folder / f"{key}.safetensors", device=str(device))["embedding"]
        except (FileNotFoundError, SafetensorError, KeyError):
            return None

    def _write(self, key: str, embedding: Tensor) -> None:
        if self.folder is not None:
            with atomic_path(self.folder / f"{key}.safetensors") as path:
                save_file({"embedding": embedding.contiguous()}, path)


def image_key(image: Tensor) -> str:
    """A name that images of other content or another shape do not have."""
    digest = hashlib.blake2b(repr(tuple(image.shape)).encode(), digest_size=16)
    digest.update(image.cpu().contiguous().numpy().data)
    return digest.hexdigest()
