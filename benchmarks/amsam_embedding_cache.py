"""How much faster AM-SAM trains because it encodes an image once, and that it learns exactly the same: JSON lines.

    python -m benchmarks.amsam_embedding_cache                 # sizes T and B, 4 shots of worms, 100 epochs
    python -m benchmarks.amsam_embedding_cache --sizes B --shots 8

The weights of SAM are random. First both ways train for a few epochs, and the run ends with status 1 unless every
trained weight is the same to the last bit; so with a cache on disk that another training left. Then times: CPU seconds
of one thread, which other programs hardly change. `ratio` is of whole trainings of as many epochs as asked for, the
validation after each of them included: with the cache measured as such, without it from the epochs that were compared,
which all cost the same. `frozen` and `frozen_ratio` are of what the cache holds alone, embeddings and box tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amsam.amsam import AMSAM
from amsam.config import add_amsam_config, build_amsam, build_bilevel_step
from amsam.data.image_masks import image_masks_spec
from amsam.data.mapper import FewShotMapper
from amsam.data.worms import write_worms
from amsam.embedding_cache import EmbeddingCache
from detectron2_sam.commands.cli import ToolParser, run_tool
from sam_common.config import get_cfg
from sam_common.engine.build import build_optimizer


class NoCache(EmbeddingCache):
    """Computes what it is asked for every time."""

    def __call__(self, key: str, compute: Callable[[], Tensor], device: torch.device | str = "cpu") -> Tensor:
        return compute()


@dataclass
class Training:
    """What a training came to: the trained weights, CPU seconds of all and of the frozen part, encoder passes."""

    weights: dict[str, Tensor]
    seconds: float
    frozen_seconds: float
    passes: int


def train(size: str, entries: list[dict[str, Any]], cache: EmbeddingCache, *, image_size: int, epochs: int) -> Training:
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
    clock = Clock(model)
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
    return Training(weights, seconds, clock.seconds, clock.passes)


@torch.no_grad()
def validate(model: AMSAM, entries: list[dict[str, Any]]) -> None:
    """As after each epoch: an image at a time."""
    model.eval()
    for entry in entries:
        model([entry])
    model.train()


class Clock:
    """Measures the frozen part of a model."""

    def __init__(self, model: AMSAM) -> None:
        self.seconds, self.passes = 0.0, 0
        encode, embed = model.encode, model.embed

        def timed(entry: dict[str, Any]) -> Any:
            start = time.process_time()
            encoded = encode(entry)
            self.seconds += time.process_time() - start
            return encoded

        def counted(image: Tensor) -> Tensor:
            self.passes += 1
            return embed(image)

        model.encode, model.embed = timed, counted  # type: ignore[method-assign]


def compare(size: str, entries: list[dict[str, Any]], *, image_size: int, epochs: int, compared: int) -> dict[str, Any]:
    """One line of the report."""
    options = {"image_size": image_size, "epochs": compared}
    uncached = train(size, entries, NoCache(), **options)
    cached = train(size, entries, EmbeddingCache(), **options)
    whole = train(size, entries, EmbeddingCache(), image_size=image_size, epochs=epochs)
    with tempfile.TemporaryDirectory() as folder:
        train(size, entries, EmbeddingCache(Path(folder)), image_size=image_size, epochs=1)
        disk = train(size, entries, EmbeddingCache(Path(folder)), **options)
        whole_disk = train(size, entries, EmbeddingCache(Path(folder)), image_size=image_size, epochs=epochs)
    factor = epochs / compared
    seconds = {"uncached": uncached.seconds * factor, "cached": whole.seconds, "from_disk": whole_disk.seconds}
    frozen = {"uncached": uncached.frozen_seconds * factor, "cached": whole.frozen_seconds}
    return {
        "size": size,
        "image_size": image_size,
        "shots": len(entries),
        "epochs": epochs,
        "identical": _same(uncached, cached),
        "identical_from_disk": _same(uncached, disk),
        "encoder_passes": {
            "uncached": round(uncached.passes * factor),
            "cached": whole.passes,
            "from_disk": whole_disk.passes,
        },
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
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["T", "B"], choices=["T", "B", "L", "H"], metavar="SIZE")
    parser.add_argument("--shots", type=int, default=4, help="an even number (4)")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--compared", type=int, default=2, help="epochs that are trained both ways (2)")
    parser.add_argument("--image-size", type=int, default=256, help="side of the input in pixels (256)")
    args = parser.parse_args(argv)

    torch.set_num_threads(1)
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
