"""From words to text embeddings: the sentence templates, and a cache.

Each synonym is put into every template; its embedding is the normalised mean of the normalised sentence embeddings
(Gu et al., "Open-vocabulary Object Detection via Vision and Language Knowledge Distillation" (ViLD), ICLR 2022).
A class scores the best of its synonyms, so embeddings stay apart: S synonyms of C classes, E the embedding's width.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from possam.clip_encoder import ClipEncoder
from sam_common.bounded_cache import BoundedCache
from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.io.weights import state_sha256
from sam_common.structures import Vocabulary

logger = logging.getLogger(__name__)

VILD_TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
"""The 14 sentences that ViLD's successors, FC-CLIP among them, average over."""

_SENTENCES_AT_ONCE = 128
_WORDS_IN_A_FILE = 512
_CACHE_FILE = re.compile(r"[0-9a-f]{64}\.safetensors")  # the user may keep other files in the folder


@dataclass(frozen=True)
class ClassEmbeddings:
    """Text embeddings of a vocabulary.

    Attributes:
        embeddings: [S, E] float32, L2-normalised, one for each synonym.
        class_index: [S] int64, the class that a synonym means, ascending; every class has at least one.
    """

    embeddings: Tensor
    class_index: Tensor

    @functools.cached_property
    def num_classes(self) -> int:
        """C; read from the device once."""
        return int(self.class_index.max()) + 1

    def to(self, device: torch.device | str) -> ClassEmbeddings:
        """Itself where it is there already, so that `num_classes` stays known."""
        if self.embeddings.device == torch.device(device):
            return self
        return ClassEmbeddings(self.embeddings.to(device), self.class_index.to(device))


class TextEmbeddings:
    """Vocabulary -> `ClassEmbeddings`, computed once: then from memory, and in later runs from the disk.

    A file in the cache is named by what determines its content: the CLIP's name and text weights, the templates and
    the words, at most 512. So it never goes stale; one that can't be read, or that another process has just removed, is
    computed anew. Both places are bounded, so a server may be given ever new words; the least recently used go first.

    Args:
        clip: the frozen text tower; its weights mustn't change afterwards.
        templates: sentences with `{}` in the place of the word.
        cache_dir: folder of the files; None: memory only.
        memory, disk: bytes to keep in either. 64 MiB are 21,000 words of the largest CLIP's 768 numbers, seven times
            all of ADE20K's. To list a folder of as many files takes a fifth of a second, so it is done when an eighth
            of that has been written; so much more a process may leave there.
    """

    def __init__(
        self,
        clip: ClipEncoder,
        *,
        templates: Sequence[str] = VILD_TEMPLATES,
        cache_dir: Path | None = None,
        memory: int = 2**26,
        disk: int = 2**26,
    ) -> None:
        self._clip = clip
        self._templates = tuple(templates)
        self._cache_dir = cache_dir
        self._disk = disk
        self._written = disk  # bytes since the folder was listed; others may have filled it before
        self._memory: BoundedCache[ClassEmbeddings] = BoundedCache(memory)

    def __call__(self, vocabulary: Vocabulary) -> ClassEmbeddings:
        """The embeddings of all synonyms, in their order, on the device that the CLIP is on."""
        classes = [category.synonyms for category in vocabulary]
        device = self._clip.clip.logit_scale.device
        key = f"{device} {classes}"
        text = self._memory.get(key)
        if text is None:
            words = [word for synonyms in classes for word in synonyms]
            counts = torch.tensor([len(synonyms) for synonyms in classes])
            index = torch.repeat_interleave(torch.arange(len(classes)), counts)
            text = ClassEmbeddings(self._load_or_encode(words), index).to(device)
            self._memory.put(key, text, text.embeddings.nbytes + text.class_index.nbytes)
        return text

    def _load_or_encode(self, words: list[str]) -> Tensor:
        """[S, E] on the CPU, file after file, so that a run that is stopped leaves what it has done."""
        # Made beforehand: a list of small results between large temporaries breaks the heap up into gigabytes.
        embeddings = torch.empty(len(words), self._clip.embed_dim)
        # A large CLIP takes minutes for a hundred words on a CPU, once.
        with tqdm(total=len(words), desc="text embeddings", unit="word", leave=False, delay=1) as progress:
            for start in range(0, len(words), _WORDS_IN_A_FILE):
                part = words[start : start + _WORDS_IN_A_FILE]
                rows = embeddings[start : start + len(part)]
                path = self._cache_dir / f"{self._key(part)}.safetensors" if self._cache_dir is not None else None
                cached = _read_cached(path, (len(part), self._clip.embed_dim)) if path is not None else None
                if cached is not None:
                    rows.copy_(cached)
                    progress.update(len(part))
                    continue
                self._encode(part, rows, progress)
                if path is not None:
                    _write_cached(path, rows)
                    self._written += rows.nbytes
                    if self._written > self._disk // 8:
                        _remove_oldest(path.parent, self._disk)
                        self._written = 0
        return embeddings

    def _key(self, words: list[str]) -> str:
        parts = [self._clip.name, self._text_sha256, self._templates, words]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @functools.cached_property
    def _text_sha256(self) -> str:
        return self._clip.text_sha256()

    @torch.no_grad()
    def _encode(self, words: list[str], embeddings: Tensor, progress: tqdm) -> None:
        """Fills [S, E]. In full precision under autocast too: what is cached mustn't depend on who asked first."""
        at_once = max(1, _SENTENCES_AT_ONCE // len(self._templates))
        with torch.autocast(self._clip.clip.logit_scale.device.type, enabled=False):
            for start in range(0, len(words), at_once):
                chunk = words[start : start + at_once]
                sentences = [template.format(word) for word in chunk for template in self._templates]
                encoded = self._clip.encode_text(sentences).float().unflatten(0, (len(chunk), len(self._templates)))
                embeddings[start : start + len(chunk)] = F.normalize(encoded.mean(1), dim=-1)
                progress.update(len(chunk))


def _read_cached(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The embeddings of a cache file; None where there is none, or one that is damaged."""
    if not os.path.isfile(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            embeddings, checksum = file.get_tensor("embeddings"), (file.metadata() or {}).get("sha256")
    except FileNotFoundError:  # another process has just removed it
        return None
    except (SafetensorError, OSError) as error:
        logger.warning("%s is damaged (%s); its text embeddings are computed anew", path, error)
        return None
    if embeddings.shape != shape or checksum != state_sha256({"embeddings": embeddings}):
        logger.warning("%s is damaged; its text embeddings are computed anew", path)
        return None
    with contextlib.suppress(OSError):  # the folder may be read-only
        os.utime(path)  # it was used just now
    return embeddings


def _write_cached(path: Path, embeddings: Tensor) -> None:
    """A cache that can't be written (a full disk, a read-only home) costs time in later runs, not this run."""
    tensors = {"embeddings": embeddings.contiguous()}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"sha256": state_sha256(tensors)})
    except (UserError, SafetensorError) as error:
        logger.warning("text embeddings are not cached: %s", error)


def _remove_oldest(folder: Path, limit: int) -> None:
    """Removes cache files, the least recently used first, until the others take at most `limit` bytes; the last one
    stays. Other processes may do the same: what is gone already is as good as removed."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _CACHE_FILE.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
    found.sort()
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in found[:-1]:
        if excess <= 0:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        excess -= size
