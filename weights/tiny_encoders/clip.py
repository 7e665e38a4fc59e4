"""Trains the tiny CLIP (size T) on generated scenes: regions against sentences.

Whole scenes go through the image tower; its features are pooled in ground-truth masks the way PosSAM pools them, and
each region's embedding must find the sentence of its class among those of all classes, and each sentence its regions
(a multi-positive contrastive loss). Crops alone gave features that no mask could be pooled from. So this CLIP was
taught with masks, and it has met every word of the world.

Three stages: the text tower alone tells the classes apart; the image tower alone learns these embeddings on scenes of
half the size, a quarter of the cost; then both learn together on full scenes, and a small second term matches whole
scenes to captions.

Symbols: R regions, N scenes or regions and M sentences in general, C classes, E width of the joint embedding.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from possam.clip_encoder import ClipEncoder, build_clip
from possam.local_discriminative_pooling import masked_average_pool
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary
from sam_common.evaluation.class_groups import seen_classes

from .clip_data import Batch, Sentences, load_batch, loosen
from .training import build_optimizer, in_words, metadata_of, update, write

_WORLD, _TEST_WORLD = 1_000_000, 5_000_000  # far from the seeds of data sets
_SIZE, _SMALL = 256, 128
_SMALL_SHARE = 0.45  # of the time
_BATCH = 16
_LEARNING_RATE = 2e-3
_EPSILON = 1e-6  # of AdamW
_WARMUP = 200
_WORD_STEPS = 100
_SCENE_WEIGHT = 0.1
_TEST_SCENES = 200
_REPORT_MINUTES = 2.0

Tensors = tuple[Tensor, ...] | list[Tensor]


def train_tiny_clip(output: Path, *, seed: int = 0, minutes: float = 30, start: Path | None = None) -> dict[str, float]:
    """Trains the tiny CLIP; writes it at every report (float16 safetensors) and returns its last accuracies.

    Args:
        output: the file to write.
        seed: of the weights and of all draws. The stages follow the clock, so two runs with one seed aren't equal.
        minutes: of training; the learning rate reaches zero then.
        start: a file of an earlier run, with another seed, to go on from: the third stage only, at half the rate.
    """
    torch.manual_seed(seed)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    encoder, sentences = _begin(start, rng)
    with torch.no_grad():
        words = sentences.class_embeddings(encoder)
    peak, small_share = (_LEARNING_RATE, _SMALL_SHARE) if start is None else (_LEARNING_RATE / 2, 0.0)
    optimizer = build_optimizer(encoder, peak, eps=_EPSILON)
    average = AveragedModel(encoder, multi_avg_fn=_lengthening_average)
    begun, reported, step, done = time.monotonic(), 0.0, 0, 0.0
    while done < 1:
        for group in optimizer.param_groups:  # rises over the first steps, then falls along a cosine to zero
            group["lr"] = peak * min(1, (step + 1) / _WARMUP) * (1 + math.cos(math.pi * done)) / 2
        size = _SMALL if done < small_share else _SIZE
        batch = load_batch(seed + _WORLD, range(step * _BATCH, (step + 1) * _BATCH), size=size, flips=rng)
        if size == _SMALL:
            loss = region_loss(encoder, batch, words, generator)
        else:
            loss = joint_loss(encoder, batch, sentences, rng, generator)
        update(encoder, optimizer, loss)
        with torch.no_grad():
            encoder.clip.logit_scale.clamp_(max=math.log(100))  # as CLIP does
        average.update_parameters(encoder)
        step, elapsed = step + 1, (time.monotonic() - begun) / 60
        done = elapsed / minutes
        if elapsed - reported >= _REPORT_MINUTES or done >= 1:
            reported = elapsed
            averaged = cast(ClipEncoder, average.module)
            current = sentences.class_embeddings(averaged)
            accuracy = region_accuracy(averaged, current, world=_TEST_WORLD, size=size, scenes=_TEST_SCENES)
            print(f"{elapsed:5.1f} min  step {step}  loss {loss:.3f}  accuracy {in_words(accuracy)}", flush=True)
            trained = f"{step} steps of {_BATCH} scenes, {elapsed:.1f} minutes of one thread"
            write(output, _state(averaged, sentences), _metadata(seed, minutes, trained, accuracy, start))
    return accuracy


def _begin(start: Path | None, rng: np.random.Generator) -> tuple[ClipEncoder, Sentences]:
    """The encoder to train, of the token table only the rows in use; its text tower taught already."""
    encoder = build_clip("tiny", str(start or "random")).to(memory_format=torch.channels_last).requires_grad_(True)
    sentences = Sentences(encoder)
    rows = encoder.clip.token_embedding.weight[sentences.token_ids].detach().clone()
    encoder.clip.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
    if start is None:
        _initialise(encoder)
        _spread_words(encoder, sentences, rng)
    return encoder, sentences


def contrastive(logits: Tensor, positives: Tensor) -> Tensor:
    """Multi-positive contrastive loss, the mean of both directions; a row or column without positives doesn't count.

    Args:
        logits: [N, M].
        positives: [N, M] bool.
    """
    loss = logits.new_zeros(())
    for scores, right in ((logits, positives), (logits.T, positives.T)):
        scores, right = scores[right.any(1)], right[right.any(1)]
        loss = loss - (scores.log_softmax(1) * right).sum(1).div(right.sum(1)).mean() / 2
    return loss


def region_loss(encoder: ClipEncoder, batch: Batch, words: Tensor, generator: torch.Generator) -> Tensor:
    """Regions against given embeddings [C, E] of all classes: the image tower learns."""
    with torch.autocast("cpu", torch.bfloat16):
        regions = _embed_regions(encoder, encoder.features(batch.images).float(), batch, generator)
    return contrastive(encoder.clip.logit_scale.exp() * regions @ words.T, _is_class(batch))


def joint_loss(
    encoder: ClipEncoder, batch: Batch, sentences: Sentences, rng: np.random.Generator, generator: torch.Generator
) -> Tensor:
    """Regions against a sentence of every class, and whole scenes against captions: both towers learn."""
    captions, fits = sentences.of_scenes(batch.classes, rng)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder.features(batch.images).float()
        text = encoder.clip.encode_text(torch.cat([sentences.one_per_class(rng), captions]), normalize=True).float()
        regions = _embed_regions(encoder, features, batch, generator)
        scenes = F.normalize(encoder.project(features.mean((-2, -1))).float(), dim=-1)
    classes, scale = len(world_vocabulary()), encoder.clip.logit_scale.exp()
    by_region = contrastive(scale * regions @ text[:classes].T, _is_class(batch))
    return by_region + _SCENE_WEIGHT * contrastive(scale * scenes @ text[classes:].T, fits)


def _embed_regions(encoder: ClipEncoder, features: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
    """[R, E], normalised."""
    pooled = masked_average_pool(features, loosen(batch.masks, generator))[batch.classes >= 0]
    return F.normalize(encoder.project(pooled).float(), dim=-1)


def _is_class(batch: Batch) -> Tensor:
    """[R, C] bool."""
    return F.one_hot(batch.classes[batch.classes >= 0], len(world_vocabulary())).bool()


@torch.no_grad()
def region_accuracy(encoder: ClipEncoder, words: Tensor, *, world: int, size: int, scenes: int) -> dict[str, float]:
    """Share of regions whose embedding, pooled in the ground-truth mask, is nearest to its class among all C.

    Args:
        words: [C, E] normalised embeddings of all classes.
        world: seed of the test scenes.
        size: S of the scenes.

    Returns:
        For the groups all, seen, unseen, things, stuff: 0..1.
    """
    hits, truth = [], []
    for start in range(0, scenes, 20):
        batch = load_batch(world, range(start, min(start + 20, scenes)), size=size)
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder.features(batch.images)
        best = (encoder.project(masked_average_pool(features.float(), batch.masks)) @ words.T).argmax(-1)
        given = batch.classes >= 0
        hits.append((best == batch.classes)[given])
        truth.append(batch.classes[given])
    hit, classes = torch.cat(hits).float(), torch.cat(truth)
    seen = seen_classes(world_vocabulary(), seen_vocabulary())[classes]
    thing = torch.tensor([category.is_thing for category in world_vocabulary()])[classes]
    groups = {"all": thing | ~thing, "seen": seen, "unseen": ~seen, "things": thing, "stuff": ~thing}
    return {name: hit[group].mean().item() for name, group in groups.items()}


def _initialise(encoder: ClipEncoder) -> None:
    """Weights that keep the spread of their input. timm's (0.02 everywhere) make narrow layers nearly linear."""
    for module in encoder.clip.visual.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")


def _spread_words(encoder: ClipEncoder, sentences: Sentences, rng: np.random.Generator) -> None:
    """Teaches the text tower alone to tell the classes apart, whatever the template and the synonym.

    Sentences that differ in one word start with nearly equal embeddings. Then neither tower has a reason to tell
    shapes apart before the other does, and a joint training stalls there for many minutes.
    """
    optimizer = build_optimizer(encoder, 1e-3, eps=_EPSILON)
    same = torch.eye(len(world_vocabulary()), dtype=torch.bool)
    for _ in range(_WORD_STEPS):
        tokens = torch.cat([sentences.one_per_class(rng), sentences.one_per_class(rng)])
        with torch.autocast("cpu", torch.bfloat16):
            one, other = encoder.clip.encode_text(tokens, normalize=True).float().chunk(2)
        loss = contrastive(one @ other.T / 0.07, same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _lengthening_average(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
    """Exponential moving average whose window grows to 300 steps."""
    torch._foreach_lerp_(averaged, current, max(1 / 300, 5 / (5 + int(updates))))


def _metadata(
    seed: int, minutes: float, trained: str, accuracy: dict[str, float], start: Path | None
) -> dict[str, str]:
    command = f"python -m weights.tiny_encoders --only clip --seed {seed} --clip-minutes {minutes:g}"
    if start is not None:
        before = metadata_of(start)
        command, trained = f"{before['command']}; then {command} --clip-start", f"{before['trained']}; then {trained}"
    return {
        "content": "tiny CLIP of the generated world, taught with ground-truth masks and with all of its words",
        "command": command,
        "trained": trained,
        "score": f"accuracy {in_words(accuracy)}: of regions of {_TEST_SCENES} scenes, ground-truth masks, 56 words",
    }


def _state(encoder: ClipEncoder, sentences: Sentences) -> dict[str, Tensor]:
    """Half-precision weights, of the token table only the rows in use."""
    state = {name: value.detach().half() for name, value in encoder.clip.state_dict().items()}
    state["token_rows"] = state.pop("token_embedding.weight")
    return state | {"token_ids": sentences.token_ids}
