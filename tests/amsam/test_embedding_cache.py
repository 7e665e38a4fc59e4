"""What is frozen is computed once, and only ever given for what it was made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from amsam import embedding_cache
from amsam.config import build_amsam
from amsam.embedding_cache import EmbeddingCache
from sam_common.errors import UserError
from tests.amsam.test_amsam import config, entry


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


@pytest.mark.parametrize("damage", ["a bit", "a shape", "no name"])
def test_a_file_that_is_whole_but_wrong_is_made_anew(tmp_path: Path, damage: str) -> None:
    """One flipped bit of its numbers; numbers of another shape; no name of its content."""
    first = EmbeddingCache(tmp_path)("key", Encoder())
    (file,) = tmp_path.iterdir()
    if damage == "a bit":
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
    else:
        save_file({"tensor": torch.zeros(4)}, file, metadata={"content": "x"} if damage == "a shape" else None)
    encoder = Encoder()
    assert torch.equal(EmbeddingCache(tmp_path)("key", encoder), first) and encoder.calls == 1


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors' own error becomes one line with the file, and nothing is left behind."""

    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(embedding_cache, "save_file", fail)
    with pytest.raises(UserError, match=r"cannot write .*key\.safetensors: .*No space left"):
        EmbeddingCache(tmp_path)("key", Encoder())
    assert not list(tmp_path.iterdir())


def test_a_folder_is_that_of_the_means_of_pixels(tmp_path: Path) -> None:
    """The encoder sees other numbers under another mean: what was kept before is not used."""
    options = ("MODEL.SAM.WEIGHTS", "embedded", "MODEL.AMSAM.CACHE", str(tmp_path))
    first = build_amsam(config(*options)).encode(entry()).embedding
    second = build_amsam(config(*options, "MODEL.PIXEL_MEAN", "[0.0, 0.0, 0.0]")).encode(entry()).embedding
    assert not torch.equal(first, second) and len(list(tmp_path.iterdir())) == 2


def test_what_is_kept_does_not_depend_on_the_precision_of_who_asked(tmp_path: Path) -> None:
    """Asked for under bfloat16 first, the embedding is float32's all the same."""
    model = build_amsam(config("MODEL.SAM.WEIGHTS", "embedded"))
    with torch.autocast("cpu", torch.bfloat16):
        found = model.encode(entry())
    expected = build_amsam(config("MODEL.SAM.WEIGHTS", "embedded")).encode(entry())
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
