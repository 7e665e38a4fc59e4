"""The splits of the generated world and their panoptic data sets: `generated_train_panoptic` shows seen classes only,
`generated_test_panoptic` all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec, Source
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary
from sam_common.data.generated.writer import Split, write_split
from sam_common.errors import UserError

FOLDER = "generated"
SPLITS = ("train", "test")
_FIRST_TEST_INDEX = 10_000_000  # of the same world, beyond any training split

T = TypeVar("T")


def draw_scenes(
    root: Path, *, train: int, test: int, seed: int = 0, size: int = 256, workers: int = 2
) -> tuple[Split, Split]:
    """Draws `train` scenes of seen classes and `test` scenes of all into `root`/generated; what is complete is kept.

    Args:
        root: the folder that holds the data sets.
        train, test: scenes, at least one each.
        seed: of the world, at least 0.
        size: side of the pictures in pixels, at least 64.
        workers: threads.

    Raises:
        UserError: a value is out of range, or the folder cannot be written to.
    """
    limits = {"train": (train, 1), "test": (test, 1), "seed": (seed, 0), "size": (size, 64), "workers": (workers, 1)}
    for name, (value, least) in limits.items():
        if value < least:
            raise UserError(f"--{name} must be at least {least}, it is {value}")
    folder = root / FOLDER
    splits = (
        Split(folder, "train", seed, 0, train, size, seen_vocabulary()),
        Split(folder, "test", seed, _FIRST_TEST_INDEX, test, size, world_vocabulary()),
    )
    for split in splits:
        write_split(split, workers)
    return splits


def scene_specs(root: Path) -> list[DatasetSpec]:
    """The panoptic specs of both splits under `root`/generated. Nothing is read before use."""
    folder = root / FOLDER
    return [
        with_command(
            coco_panoptic_spec(
                f"generated_{split}_panoptic",
                json_file=folder / f"panoptic_{split}.json",
                images=folder / "images" / split,
                panoptic=folder / f"panoptic_{split}",
            ),
            root,
        )
        for split in SPLITS
    ]


def with_command(spec: DatasetSpec, root: Path) -> DatasetSpec:
    """The same data set; where its JSON or folder is missing, the error names the command that makes it."""
    needed = Path(spec.files["json"] if "json" in spec.files else spec.files["masks"])

    def if_prepared(read: Callable[[], T]) -> Callable[[], T]:
        def checked() -> T:
            if not needed.exists():
                command = f"detectron2-sam prepare generated --root {root}"
                raise UserError(f"data set {spec.name}: there is no {needed}; make it with: {command}")
            return read()

        return checked

    return replace(
        spec,
        load=if_prepared(spec.load),
        load_vocabulary=if_prepared(spec.load_vocabulary),
        source=Source((), "generated"),
    )
