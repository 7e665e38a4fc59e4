"""Embeddings are computed once, and only ever given for what they were made of."""

from __future__ import annotations

from pathlib import Path

import torch

from amsam.embedding_cache import EmbeddingCache, image_key


class Encoder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return image.float().mean((1, 2), keepdim=True)


def image(value: int, height: int = 4, width: int = 6) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def test_the_same_content_is_encoded_once() -> None:
    """Another tensor of the same pixels is the same image; another pixel or another shape is not."""
    cache, encoder = EmbeddingCache(), Encoder()
    assert torch.equal(cache(image(3), encoder), cache(image(3), encoder)) and encoder.calls == 1
    cache(image(4), encoder)
    cache(image(3, 6, 4), encoder)
    assert encoder.calls == 3
    assert image_key(image(3)) == image_key(image(3).transpose(1, 2).contiguous().transpose(1, 2))


def test_memory_is_bounded() -> None:
    """12 bytes hold one embedding of three floats: the one before is encoded again, the last is not."""
    cache, encoder = EmbeddingCache(memory=12), Encoder()
    for value in (1, 2, 2, 1):
        cache(image(value), encoder)
    assert encoder.calls == 3


def test_a_folder_outlives_the_process(tmp_path: Path) -> None:
    """A new cache over the same folder asks nobody; a damaged file is made anew; another folder knows nothing."""
    encoder = Encoder()
    first = EmbeddingCache(tmp_path / "a")(image(7), encoder)
    assert torch.equal(EmbeddingCache(tmp_path / "a")(image(7), encoder), first) and encoder.calls == 1
    (file,) = (tmp_path / "a").iterdir()
    file.write_bytes(b"half a fi")
    assert torch.equal(EmbeddingCache(tmp_path / "a")(image(7), encoder), first) and encoder.calls == 2
    EmbeddingCache(tmp_path / "b")(image(7), encoder)
    assert encoder.calls == 3
