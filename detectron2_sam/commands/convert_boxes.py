"""Convert a pickled file of boxes to JSON without unpickling it, so that nothing in the file can run.

    detectron2-sam convert-boxes boxes.pkl --output boxes.json

The pickle may hold lists, dictionaries, numbers, strings and NumPy arrays, arranged in one of two ways:
    {"street.jpg": [[x0, y0, x1, y1], …], …}    a fifth number is the score; with --xywh: x, y, width, height
    [{"image_id": 7, "bbox": [x, y, width, height], "score": 0.9, …}, …]    COCO results
Anything else is refused by name. `detectron2-sam predict --boxes` and INPUT.BOXES.SOURCE read the JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from detectron2_sam.commands.cli import command_line
from sam_common.errors import UserError

_DEEPEST = 8  # lists within lists; a pickle may hold one that contains itself
_MOST = 10_000_000  # values; a pickle holds a list once that stands in a thousand places


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_line("convert-boxes", __doc__)
    parser.add_argument("file", metavar="FILE", help="the pickled file")
    parser.add_argument("--output", required=True, metavar="FILE.json", help="the JSON file to write")
    parser.add_argument("--xywh", action="store_true", help="boxes in a dictionary are x, y, width, height")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Writes the JSON, once it has been read back as a box file."""
    args = parse(argv)
    from sam_common.boxes.box_files import read_box_file
    from sam_common.io.files import atomic_path
    from sam_common.io.plain_pickle import read_plain_pickle

    output = Path(args.output)
    if output.suffix.lower() != ".json":
        raise UserError(f"--output {output}: what is written is JSON; give a name that ends with .json")
    content = to_json(read_plain_pickle(args.file), args.file, iter(range(_MOST)))
    if isinstance(content, dict):
        content = {str(name): _rows(rows, args.xywh, f"{args.file}, {name!r}") for name, rows in content.items()}
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        try:
            found = read_box_file(temporary)
        except UserError as error:
            raise UserError(str(error).replace(str(temporary), args.file)) from error
    print(f"{sum(map(len, found.values()))} boxes of {len(found)} images → {output}")


def to_json(value: Any, source: str, left: Iterator[int], depth: int = 0) -> Any:
    """Plain data as JSON holds it: arrays and tuples as lists.

    Args:
        left: ends after as many values as there may be.

    Raises:
        UserError: it has bytes, keys that are neither texts nor numbers, too many levels or values.
    """
    import numpy as np

    if next(islice(left, value.size if isinstance(value, np.ndarray) else 0, None), None) is None:
        raise UserError(f"{source} holds more than {_MOST:,} values; split it")
    if depth > _DEEPEST:
        raise UserError(f"{source} holds lists within lists, more than {_DEEPEST} levels deep; boxes need few")
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [to_json(each, source, left, depth + 1) for each in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) for key in value):
            raise UserError(f"{source} holds a dictionary whose keys are neither texts nor numbers")
        return {key: to_json(each, source, left, depth + 1) for key, each in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise UserError(f"{source} holds {type(value).__name__}, which no box file needs")


def _rows(rows: Any, xywh: bool, where: str) -> Any:
    """Rows x0, y0, x1, y1 (and a score) of rows that may be x, y, width, height."""
    if not xywh:
        return rows
    try:
        return [[x, y, x + width, y + height, *score] for x, y, width, height, *score in rows]
    except (TypeError, ValueError):
        raise UserError(f"{where} is no list of boxes x, y, width, height") from None
