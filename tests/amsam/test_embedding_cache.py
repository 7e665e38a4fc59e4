"""What is frozen is computed once, and only ever given for what it was made of."""

from __future__ import annotations

from pathlib import Path

import torch

from amsam.embedding_cache import EmbeddingCache


class Encoder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.full((3,), float(self.calls))


def test_a_key_is_computed_once() -> None:
    """The same key gives the same values, another key others."""
    cache, encoder = EmbeddingCache(), Encoder()
    assert torch.equal(cache("a", encoder), cache("a", encoder)) and encoder.calls == 1
    cache("b", encoder)
    assert encoder.calls == 2


def test_memory_is_bounded() -> None:
    """12 bytes hold one embedding of three floats: the one before is computed again, the last is not."""
    cache, encoder = EmbeddingCache(memory=12), Encoder()
    for key in "abba":
        cache(key, encoder)
    assert encoder.calls == 3


def test_a_folder_outlives_the_process(tmp_path: Path) -> None:
    """A new cache over the same folder asks nobody; a damaged file is made anew; another folder knows nothing."""
    encoder = Encoder()
    first = EmbeddingCache(tmp_path / "a")("key", encoder)
    assert torch.equal(EmbeddingCache(tmp_path / "a")("key", encoder), first) and encoder.calls == 1
    (file,) = (tmp_path / "a").iterdir()
    file.write_bytes(b"half a fi")
    EmbeddingCache(tmp_path / "a")("key", encoder)
    assert encoder.calls == 2
    EmbeddingCache(tmp_path / "b")("key", encoder)
    assert encoder.calls == 3
