"""Loaders that keep no state: what iteration i trains on is a function of (seed, i), for any number of processes.

Training walks through one infinite sequence of positions p = iteration · batch_size + slot. Epoch p // len(records)
has its own permutation, drawn from (seed, epoch); of R ranks, rank r takes the slots r·b … (r+1)·b - 1, where
b = batch_size / R. So a run resumes at any iteration without replay, and the number of processes changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sam_common.contracts import Batch, Mapper, ModelInput, Record
from sam_common.errors import UserError
from sam_common.signals import SIGNALS
from sam_common.text import first_line


class BatchLoader:
    """Yields batches, lists of model inputs. Iterating again starts again; a training loader never ends.

    A UserError raised by the mapper in a worker process reaches the caller as it is, in one line.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            for item in batch:
                if isinstance(item, UserError):
                    raise item
            yield batch

    def __len__(self) -> int:
        """Number of batches of a test loader; a training loader has none (TypeError)."""
        return len(self._loader)


def build_train_loader(
    records: Sequence[Record],
    mapper: Mapper,
    *,
    seed: int,
    batch_size: int,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    parts: int = 1,
    num_workers: int = 0,
) -> BatchLoader:
    """The infinite sequence of this rank's batches, from `start_iteration` on.

    Args:
        records: the training set; where they have a `level`, each iteration has a batch of every level.
        mapper: called with a record and the seed of the item.
        batch_size: images per iteration (and level) over all ranks.
        parts: equal parts that a rank does its batch in.

    Raises:
        UserError: there are no records, or the batch does not divide among the ranks and their parts.
    """
    if not records:
        raise UserError("the training set is empty; check DATASETS.TRAIN")
    if parts < 1:
        raise UserError(f"SOLVER.ACCUMULATE is {parts}; give at least 1")
    if batch_size <= 0 or batch_size % (world_size * parts):
        by = f" times SOLVER.ACCUMULATE {parts}" if parts > 1 else ""
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch_size} must be a positive multiple of the {world_size} processes{by}"
        )
    dataset = MappedRecords(records, mapper, seed)
    levels = [record.get("level", 1) for record in records]
    sampler = LevelBatches(levels, seed, batch_size, start_iteration, rank, world_size)
    return _loader(dataset, sampler, num_workers)


def build_test_loader(
    records: Sequence[Record],
    mapper: Mapper,
    *,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> BatchLoader:
    """Every `world_size`-th record from `rank` on, once, in order and one by one: together the ranks see each record
    exactly once."""
    batches = [[(0, index)] for index in range(rank, len(records), world_size)]
    return _loader(MappedRecords(records, mapper, seed=0), batches, num_workers)


def item_seed(seed: int, iteration: int, image_id: int | str) -> int:
    """The 63-bit seed of everything drawn for one image in one iteration, the same on every machine."""
    return _hash(seed, iteration, image_id)


def epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    """[length] int64: the order in which an epoch visits the records."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(_hash(seed, "epoch", epoch)))


def _hash(*parts: int | str) -> int:
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class LevelBatches:
    """Yields, per iteration, this rank's list of (iteration, index of the record): a batch of every level.

    Each level walks through its own records, in orders of its own.

    Args:
        levels: the level of each record, as a method that learns at several has them; elsewhere it is one for all.
    """

    def __init__(
        self, levels: Sequence[int], seed: int, batch_size: int, start: int, rank: int, world_size: int
    ) -> None:
        self.batch_size, self.start = batch_size, start
        share = batch_size // world_size
        self.slots = range(rank * share, (rank + 1) * share)
        self.members = [[i for i, level in enumerate(levels) if level == wanted] for wanted in sorted(set(levels))]
        self.seeds = [seed, *(_hash(seed, "level", number) for number in range(1, len(self.members)))]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        walks = map(self._walk, self.members, self.seeds)
        for parts in zip(*walks, strict=True):
            yield [item for part in parts for item in part]

    def _walk(self, members: Sequence[int], seed: int) -> Iterator[list[tuple[int, int]]]:
        """The batches of one level, which has these records."""
        epoch, order = -1, torch.empty(0)
        for iteration in count(self.start):
            batch = []
            for slot in self.slots:
                turn, place = divmod(iteration * self.batch_size + slot, len(members))
                if turn != epoch:
                    epoch, order = turn, epoch_order(len(members), seed, turn)
                batch.append((iteration, members[int(order[place])]))
            yield batch


def mapped(mapper: Mapper, record: Record, seed: int) -> ModelInput:
    """What a mapper makes of a record.

    Raises:
        UserError: whatever else the mapper raises, with the name of the picture: a damaged file makes codecs fail in
            ways of their own.
    """
    try:
        return mapper(record, seed)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"{record['file_name']} cannot be used: {kind}: {first_line(error)}") from error


class MappedRecords(Dataset):
    """(iteration, index) -> model input, or the UserError that it met.

    Records are kept as JSON in one flat tensor: as Python objects, reference counting would copy all of them into
    every worker process.
    """

    def __init__(self, records: Sequence[Record], mapper: Mapper, seed: int) -> None:
        packed = [json.dumps(record).encode() for record in records]
        self.ends = torch.tensor([0, *map(len, packed)]).cumsum(0)
        self.bytes = torch.frombuffer(bytearray(b"".join(packed) or b"\0"), dtype=torch.uint8)
        self.mapper, self.seed = mapper, seed

    def __getitem__(self, key: tuple[int, int]) -> ModelInput | UserError:
        iteration, index = key
        start, end = self.ends[index : index + 2].tolist()
        record = json.loads(self.bytes[start:end].numpy().tobytes())
        try:
            return mapped(self.mapper, record, item_seed(self.seed, iteration, record["image_id"]))
        except UserError as error:
            return error

    def __len__(self) -> int:
        """Number of records."""
        return len(self.ends) - 1


def _loader(dataset: MappedRecords, batches: Any, num_workers: int) -> BatchLoader:
    if num_workers < 0:
        raise UserError(f"DATALOADER.NUM_WORKERS is {num_workers}; give at least 0")
    generator = torch.Generator()  # else each start would draw from the global one
    return BatchLoader(
        DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_as_list,
            generator=generator,
            worker_init_fn=_leave_signals_to_the_parent,
        )
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and schedulers signal every process; the parent needs its workers to finish the iteration and save.

    They end when it shuts the loader down, or when they find that it is gone.
    """
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _as_list(items: list) -> list:
    return items
