"""Loaders: what they yield is a function of (seed, iteration), whatever the processes."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch

from sam_common.data.loader import build_test_loader, build_train_loader, item_seed
from sam_common.errors import UserError


def _records(count: int) -> list[dict]:
    return [{"image_id": index, "segments_info": [{"id": index}]} for index in range(count)]


def _identity(record: dict, seed: int) -> dict:
    return record | {"seed": seed}


def _fails_on_three(record: dict, seed: int) -> dict:
    if record["image_id"] == 3:
        raise UserError("three.jpg cannot be read")
    return record


def _train(count: int, iterations: int, **options) -> list[list[tuple[int, int]]]:
    loader = build_train_loader(_records(count), _identity, **{"seed": 7, "batch_size": 4, **options})
    return [[(item["image_id"], item["seed"]) for item in batch] for batch in islice(loader, iterations)]


def test_every_epoch_shows_every_record_once_in_its_own_order():
    """Edge case: batches straddle epochs (4 does not divide 10); ten records, five epochs, each record five times."""
    ids = [image_id for batch in _train(10, 13) for image_id, _ in batch][:50]
    epochs = [ids[start : start + 10] for start in range(0, 50, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_resuming_equals_not_stopping():
    """Invariant: starting at iteration k yields what iteration k yields, seeds included."""
    assert _train(10, 9)[5:] == _train(10, 4, start_iteration=5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_and_workers_change_nothing(num_workers):
    """Invariant: two ranks' batches, joined, are the batches of one; so with worker processes."""
    halves = [_train(10, 6, rank=rank, world_size=2, num_workers=num_workers) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == _train(10, 6)


def test_seeds_differ_and_stay_what_they_are():
    """Seeds fit 63 bits, differ by seed, iteration and image, and are the same on every machine and Python run.

    The value is `printf '[0, 0, 1]' | b2sum -l 64`, eight bytes, little-endian, without the lowest bit.
    """
    seeds = [item_seed(s, i, image) for s in range(3) for i in range(20) for image in (*range(20), "a", "1")]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    assert item_seed(0, 0, 1) == int.from_bytes(bytes.fromhex("6f0c3f2b579f58b6"), "little") >> 1


def test_loaders_leave_the_global_generator_alone():
    """Invariant: starting a loader draws nothing from torch's global generator, so resuming cannot shift it."""
    before = torch.get_rng_state()
    _train(4, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_test_loader_shows_every_record_exactly_once(world_size):
    """Edge case: seven records over 1 to 3 ranks, in batches of one: no duplicate, nothing left out, order kept."""
    seen = []
    for rank in range(world_size):
        loader = build_test_loader(_records(7), _identity, rank=rank, world_size=world_size)
        ids = [item["image_id"] for batch in loader for item in batch]
        assert ids == sorted(ids) and len(loader) == len(ids)
        seen += ids
    assert Counter(seen) == Counter(range(7))


def test_more_ranks_than_records():
    """Edge case: a rank without records iterates over nothing."""
    assert list(build_test_loader(_records(1), _identity, rank=1, world_size=2)) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_user_errors_stay_one_line(num_workers):
    """A UserError inside a worker reaches the caller as that error, without the worker's traceback in its message."""
    loader = build_test_loader(_records(5), _fails_on_three, num_workers=num_workers)
    with pytest.raises(UserError, match=r"^three\.jpg cannot be read$"):
        list(loader)


def test_wrong_sizes_are_refused():
    """Error: an empty training set; a global batch that two processes cannot share."""
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN"):
        build_train_loader([], _identity, seed=0, batch_size=1)
    with pytest.raises(UserError, match=r"IMS_PER_BATCH 3 .* 2 processes"):
        build_train_loader(_records(5), _identity, seed=0, batch_size=3, world_size=2)


def test_each_iteration_has_a_batch_of_every_level():
    """Two levels of 3 and 4 records, batches of 2: both cycle, each in its own order, over all they have."""
    records = [{"image_id": i, "level": 1 + (i >= 3)} for i in range(7)]
    loader = build_train_loader(records, _identity, seed=7, batch_size=2)
    batches = [[item["image_id"] for item in batch] for batch in islice(loader, 12)]
    assert all(max(batch[:2]) < 3 <= min(batch[2:]) and len(batch) == 4 for batch in batches)
    lower, upper = ([i for batch in batches for i in batch[part]] for part in (slice(2), slice(2, 4)))
    assert all(sorted(lower[k : k + 3]) == [0, 1, 2] for k in range(0, 24, 3))
    assert all(sorted(upper[k : k + 4]) == [3, 4, 5, 6] for k in range(0, 24, 4))
    assert len({tuple(batch[2:]) for batch in batches}) > 2


def test_levels_resume_too():
    """Starting at iteration k yields what iteration k yields, at every level."""
    records = [{"image_id": i, "level": 1 + i % 2} for i in range(5)]
    whole = list(islice(build_train_loader(records, _identity, seed=3, batch_size=1), 8))
    assert list(islice(build_train_loader(records, _identity, seed=3, batch_size=1, start_iteration=5), 3)) == whole[5:]
