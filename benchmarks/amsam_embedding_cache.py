"""How much faster AM-SAM trains because it encodes an image once, and that it learns exactly the same: JSON lines.

    python -m benchmarks.amsam_embedding_cache                 # sizes T and B, 4 shots of worms, 100 epochs
    python -m benchmarks.amsam_embedding_cache --sizes B --shots 8     # an even number

The weights of SAM are random. First both ways train for a few epochs, and the run ends with status 1 unless every
trained weight is the same to the last bit; so with a cache on disk that another training left. Then times: CPU seconds
of one thread, which other programs hardly change. `ratio` is of whole trainings of as many epochs as asked for, the
validation after each of them included: with the cache measured as such, without it from the --compared epochs, which
all cost the same. `frozen` and `frozen_ratio` are of what the cache holds alone, embeddings and box tokens.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from amsam.amsam import AMSAM
from amsam.config import add_amsam_config, build_amsam, build_bilevel_step
from amsam.data.image_masks import image_masks_spec
from amsam.data.mapper import FewShotMapper
from amsam.data.worms import write_worms
from amsam.embedding_cache import EmbeddingCache
from benchmarks.side_by_side import Parser, Stopwatch, staged
from detectron2_sam.commands.cli import run_tool
from sam_common.config import get_cfg
from sam_common.engine.build import build_optimizer


def no_cache(key: str, compute: Callable[[], Tensor], device: torch.device) -> Tensor:
    """Computes what it is asked for every time."""
    return compute()


class Training(NamedTuple):
    """What a training came to: the trained weights, CPU seconds of all and of the frozen part, encoder passes."""

    weights: dict[str, Tensor]
    seconds: float
    frozen_seconds: float
    passes: int


def train(size: str, entries: list[dict[str, Any]], cache: Any, *, image_size: int, epochs: int) -> Training:
    """Trains from the same start, an entry of each half of the shots at a time."""
    cfg = get_cfg()
    add_amsam_config(cfg)
    cfg.merge_from_file("configs/amsam_base.yaml")
    cfg.merge_from_list(
        ["MODEL.SAM.SIZE", size, "MODEL.SAM.WEIGHTS", "random", "MODEL.AMSAM.IMAGE_SIZE", str(image_size)]
    )
    torch.manual_seed(0)
    model = build_amsam(cfg).train()
    model.cache = cache
    watch = Stopwatch(time.process_time)
    staged(model, "encode", "frozen", watch)
    staged(model, "embed", "encoder", watch)
    optimizer = build_optimizer(cfg, model)
    step = build_bilevel_step(cfg, model, optimizer)
    half = len(entries) // 2
    start = time.process_time()
    for _ in range(epochs):
        for first, second in zip(entries[:half], entries[half:], strict=True):
            step([first | {"level": 1}, second | {"level": 2}])
            optimizer.step()
        validate(model, entries[half:])
    seconds = time.process_time() - start
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    return Training(weights, seconds, sum(watch.taken["frozen"]), len(watch.taken["encoder"]))


@torch.no_grad()
def validate(model: AMSAM, entries: list[dict[str, Any]]) -> None:
    """As after each epoch: an image at a time."""
    model.eval()
    for entry in entries:
        model([entry])
    model.train()


def compare(size: str, entries: list[dict[str, Any]], *, image_size: int, epochs: int, compared: int) -> dict[str, Any]:
    """One line of the report."""
    run = partial(train, size, entries, image_size=image_size)
    uncached, cached = run(no_cache, epochs=compared), run(EmbeddingCache(), epochs=compared)
    whole = run(EmbeddingCache(), epochs=epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(EmbeddingCache(folder), epochs=1)
        disk, whole_disk = run(EmbeddingCache(folder), epochs=compared), run(EmbeddingCache(folder), epochs=epochs)
    factor = epochs / compared
    seconds = {"uncached": uncached.seconds * factor, "cached": whole.seconds, "from_disk": whole_disk.seconds}
    frozen = {"uncached": uncached.frozen_seconds * factor, "cached": whole.frozen_seconds}
    passes = {"uncached": round(uncached.passes * factor), "cached": whole.passes, "from_disk": whole_disk.passes}
    return {
        "case": f"AM-SAM, {size}, {epochs} epochs of {len(entries)} shots",
        "size": size,
        "image_size": image_size,
        "shots": len(entries),
        "epochs": epochs,
        "identical": _same(uncached, cached),
        "identical_from_disk": _same(uncached, disk),
        "encoder_passes": passes,
        "seconds": {way: round(value, 1) for way, value in seconds.items()},
        "frozen_seconds": {way: round(value, 1) for way, value in frozen.items()},
        "ratio": round(seconds["uncached"] / seconds["cached"], 1),
        "ratio_from_disk": round(seconds["uncached"] / seconds["from_disk"], 1),
        "frozen_ratio": round(frozen["uncached"] / frozen["cached"], 1),
    }


def _same(one: Training, other: Training) -> bool:
    return all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where the cache changes what is learned."""
    parser = Parser(__doc__, shots=4, epochs=100, compared=2, image_size=256)
    parser.add_argument("--sizes", nargs="+", default=["T", "B"], choices=["T", "B", "L", "H"], metavar="SIZE")
    args = parser.parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        write_worms(Path(folder), seed=0, first_index=0, count=args.shots, size=256)
        records = image_masks_spec("worms", images=Path(folder, "images"), masks=Path(folder, "masks")).load()
        mapper = FewShotMapper(training=True)
        entries = [mapper(record) for record in records]
    identical = True
    for size in args.sizes:
        line = compare(size, entries, image_size=args.image_size, epochs=args.epochs, compared=args.compared)
        print(json.dumps(line), flush=True)
        identical &= line["identical"] and line["identical_from_disk"]
    return 0 if identical else 1


if __name__ == "__main__":
    sys.exit(run_tool(main))
