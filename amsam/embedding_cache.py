"""What is frozen, computed once: no augmentation means that every epoch asks for the same embeddings and box tokens.

A key names the content it was computed from; the encoder, the input's size and the means of its pixels name the folder
on disk. So a cache never answers for another image, box, encoder or size, and needs no one to clear it. A file holds a
name of its own content too, so that a damaged one is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sam_common.bounded_cache import BoundedCache
from sam_common.io.files import atomic_path

MEMORY = 2**30
"""Bytes that embeddings may take in memory."""


class EmbeddingCache:
    """Tensors in memory, and on disk where a folder is given.

    Args:
        folder: a file for each key, made when first needed; None: memory only.
        memory: bytes, at most; what was asked for longest ago goes first.
    """

    def __init__(self, folder: Path | None = None, *, memory: int = MEMORY) -> None:
        self.folder = folder
        self._known: BoundedCache[Tensor] = BoundedCache(memory)

    def __call__(self, key: str, compute: Callable[[], Tensor], device: torch.device | str = "cpu") -> Tensor:
        """`compute()`, or what it was before under the same key.

        Args:
            key: of what `compute` depends on; a file name.
            compute: gives a tensor on `device`.
        """
        tensor = self._known.get(key)
        if tensor is None:
            tensor = self._read(key, device)
            if tensor is None:
                tensor = compute()
                self._write(key, tensor)
            self._known.put(key, tensor, tensor.nbytes)
        return tensor

    def _read(self, key: str, device: torch.device | str) -> Tensor | None:
        """None where there is no file, or one that cannot be read or was damaged: it is written anew."""
        if self.folder is None:
            return None
        try:
            with safe_open(self.folder / f"{key}.safetensors", framework="pt", device=str(device)) as file:
                content, tensor = (file.metadata() or {}).get("content"), file.get_tensor("tensor")
        except (OSError, SafetensorError):
            return None
        return tensor if content == content_key(tensor) else None

    def _write(self, key: str, tensor: Tensor) -> None:
        if self.folder is not None:
            with atomic_path(self.folder / f"{key}.safetensors") as path:
                save_file({"tensor": tensor.contiguous()}, path, metadata={"content": content_key(tensor)})


def content_key(array: Tensor) -> str:
    """A name that tensors of other content or another shape do not have: 32 hexadecimal digits."""
    digest = hashlib.blake2b(repr((tuple(array.shape), array.dtype)).encode(), digest_size=16)
    digest.update(array.cpu().contiguous().numpy().data)
    return digest.hexdigest()
