"""The generated data sets: `generated_train_*` show seen classes only, `generated_test_*` all; panoptic and amodal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from amsam.data.image_masks import image_masks_spec
from amsam.data.worms import write_worms
from plug.data.coco_amodal import coco_amodal_spec
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary
from sam_common.data.generated.writer import Split, write_split
from sam_common.errors import UserError

FOLDER = "generated"
_FIRST_TEST_INDEX = 10_000_000  # of the same world, beyond any training split
_WORMS = {"train": (0, 32), "test": (1000, 50)}  # split -> first picture, and how many

T = TypeVar("T")


def prepare(root: Path, *, train: int, test: int, seed: int = 0, size: int = 256, workers: int = 2) -> None:
    """Writes `root`/generated: `train` scenes of seen classes, `test` scenes of all, and the pictures of `worms`.

    What is complete is kept.

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
    write_split(Split(folder, "train", seed, 0, train, size, seen_vocabulary()), workers=workers)
    write_split(Split(folder, "test", seed, _FIRST_TEST_INDEX, test, size, world_vocabulary()), workers=workers)
    for split, (first_index, count) in _WORMS.items():
        write_worms(folder / f"worms_{split}", seed=seed, first_index=first_index, count=count, size=size)


def generated_specs(root: Path) -> list[DatasetSpec]:
    """The panoptic, amodal and few-shot specs of both splits under `root`/generated. Nothing is read before use."""
    folder = root / FOLDER
    specs = []
    for split in ("train", "test"):
        images = folder / "images" / split
        specs += [
            coco_panoptic_spec(
                f"generated_{split}_panoptic",
                json_file=folder / f"panoptic_{split}.json",
                images=images,
                panoptic=folder / f"panoptic_{split}",
            ),
            coco_amodal_spec(f"generated_{split}_amodal", json_file=folder / f"amodal_{split}.json", images=images),
        ]
        specs.append(
            image_masks_spec(
                f"generated_worms_{split}",
                images=folder / f"worms_{split}" / "images",
                masks=folder / f"worms_{split}" / "masks",
            )
        )
    return [_with_command(spec, f"python datasets/prepare_generated.py --root {root}") for spec in specs]


def _with_command(spec: DatasetSpec, command: str) -> DatasetSpec:
    """The same data set; where its JSON or folder is missing, the error says which command makes it."""
    needed = Path(spec.files["json"] if "json" in spec.files else spec.files["masks"])

    def if_prepared(read: Callable[[], T]) -> Callable[[], T]:
        def checked() -> T:
            if not needed.exists():
                raise UserError(f"data set {spec.name}: there is no {needed}; make it with: {command}")
            return read()

        return checked

    return replace(spec, load=if_prepared(spec.load), load_vocabulary=if_prepared(spec.load_vocabulary))
