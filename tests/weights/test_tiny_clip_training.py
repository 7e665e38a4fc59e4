"""weights/tiny_encoders/clip.py: its loss, its data, and the file it writes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from possam.clip_encoder import build_clip
from possam.local_discriminative_pooling import binary_masks
from possam.text_embeddings import VILD_TEMPLATES
from sam_common.data.generated.vocabulary import world_vocabulary
from weights.tiny_encoders import clip as tiny_clip
from weights.tiny_encoders import clip_data
from weights.tiny_encoders.clip_data import Sentences, load_batch, loosen


def test_the_contrastive_loss_by_hand() -> None:
    """Two regions of class 0, none of class 1, logits 0: rows and column 0 cost log 2 each; column 1 doesn't count."""
    positives = torch.tensor([[True, False], [True, False]])
    assert tiny_clip.contrastive(torch.zeros(2, 2), positives).item() == pytest.approx(math.log(2))
    # A logit of ln 3 for the right class: rows cost log(4/3); column 0 is still a choice between two equals.
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert tiny_clip.contrastive(logits, positives).item() == pytest.approx(expected)


def test_a_batch_holds_every_region_once() -> None:
    """The masks of a scene tile it; what is left of a row is padding; a mirrored scene is the mirror image."""
    batch = load_batch(7, range(3), size=64)
    assert batch.images.shape == (3, 3, 64, 64) and batch.masks.shape[2:] == (16, 16)
    covered = ((batch.masks + 1) / 2).sum(1)
    torch.testing.assert_close(covered, torch.ones(3, 16, 16))
    assert (batch.masks[batch.classes < 0] == -1).all()

    class Always(np.random.Generator):
        def random(self, *_, **__):
            return np.zeros(3)

    mirrored = load_batch(7, range(3), size=64, flips=Always(np.random.PCG64()))
    assert torch.equal(mirrored.images, batch.images.flip(-1))
    assert torch.equal(mirrored.masks, batch.masks.flip(-1))


def test_loosening_moves_borders_and_keeps_half_of_the_masks() -> None:
    """About half of 400 masks stay as they are; the others still overlap them, on average by far more than half."""
    masks = torch.full((1, 400, 64, 64), -1.0)
    masks[..., 20:44, 20:44] = 1.0
    loose = loosen(masks, torch.Generator().manual_seed(0))
    same = (loose == masks).all(-1).all(-1)
    assert 0.4 < same.float().mean() < 0.6
    before, after = binary_masks(masks, (64, 64)), binary_masks(loose, (64, 64))
    iou = (before & after).sum((-2, -1)) / (before | after).sum((-2, -1))
    assert 0.6 < iou[~same].mean() < 0.95


def test_sentences_mean_the_same_through_the_compact_table() -> None:
    """With the table cut to the rows in use, open_clip encodes compact ids as it encodes the full ones."""
    encoder = build_clip("tiny", "random")
    sentences = Sentences(encoder)
    name = world_vocabulary()[3].name
    full = encoder.encode_text([template.format(name) for template in VILD_TEMPLATES]).mean(0)
    rows = encoder.clip.token_embedding.weight[sentences.token_ids].clone()
    encoder.clip.token_embedding = torch.nn.Embedding.from_pretrained(rows)
    compact = sentences.class_embeddings(encoder)[3]
    torch.testing.assert_close(compact, full / full.norm())


def test_captions_fit_the_scenes_that_show_what_they_list() -> None:
    """Each caption fits its own scene; one that lists class 1 doesn't fit a scene of classes 0 and 2."""
    sentences = Sentences(build_clip("tiny", "random"))
    _, fits = sentences.of_scenes(torch.tensor([[0, 2, -1], [0, 1, 2]]), np.random.default_rng(0))
    assert fits.tolist() == [[True, False], [True, True]]


def test_a_short_training_writes_a_file_that_loads(tmp_path: Path, monkeypatch) -> None:
    """A step of the first two stages, then, going on from its file, one of the third: it loads."""
    small = {"_SIZE": 64, "_SMALL": 96, "_BATCH": 2, "_TEST_SCENES": 2, "_SMALL_SHARE": 1.0, "_WORD_STEPS": 1}
    for name, value in small.items():
        monkeypatch.setattr(tiny_clip, name, value)
    monkeypatch.setattr(clip_data, "VILD_TEMPLATES", VILD_TEMPLATES[:1])
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    accuracy = tiny_clip.train_tiny_clip(first, seed=0, minutes=1e-6)
    assert set(accuracy) == {"all", "seen", "unseen", "things", "stuff"}
    tiny_clip.train_tiny_clip(second, seed=1, minutes=1e-6, start=first)
    encoder = build_clip("tiny", str(second))
    assert encoder.unknown_words(["plain red disc", "giraffe"]) == ["giraffe"]
    with safe_open(second, framework="pt") as file:
        assert file.metadata()["command"].count("--only clip --seed") == 2
