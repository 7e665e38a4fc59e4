"""What a model found in one picture, the files it becomes, and what a command that predicts asks of a method."""

from __future__ import annotations

import argparse
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from PIL import Image
from torch import Tensor

from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.io.inputs import Input


@dataclass
class Prediction(ABC):
    """What a model found in one picture; tensors on the CPU.

    Attributes:
        image: uint8 RGB [3, H, W].
        file_name: the path it was read from; "" where it was given as pixels.
    """

    image: Tensor
    file_name: str

    @abstractmethod
    def draw(self) -> Image.Image:
        """The picture under what was found in it; a small one is enlarged by a whole number."""

    @abstractmethod
    def describe(self) -> str:
        """What was found, in words: "2 dogs, sky"."""

    @abstractmethod
    def to_coco(self) -> list[dict[str, Any]]:
        """A dictionary for each segment or object that was found, for JSON, its mask as COCO's RLE."""

    @abstractmethod
    def files(self, folder: Path) -> PredictionFiles:
        """What writes predictions of this kind below a folder."""

    def save(self, folder: str | os.PathLike) -> list[Path]:
        """Writes what `detectron2-sam predict` writes for this one picture, called `image` if it has no path.

        Returns:
            The files of the picture, the drawn one first; the JSON files beside them describe what is in them.

        Raises:
            UserError: a file cannot be written, or would take the place of the picture itself.
        """
        path = Path(self.file_name or "image")
        source = Input(path, path.name, path.stem)
        files = self.files(Path(folder))
        refuse_to_overwrite([source], files.written)
        files.add(1, source, self)
        files.finish()
        return files.written(source)


P = TypeVar("P", bound=Prediction)


class PredictionFiles(Generic[P]):
    """Writes the predictions of a run below `folder`: each drawn picture at once, the JSON of all at the end.

    Attributes:
        summaries: names of the files about all images, which `finish` writes.
    """

    summaries: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: list[dict[str, Any]] = []  # as COCO's files list them

    def written(self, source: Input) -> list[Path]:
        """The files that an input becomes, the picture or video first."""
        if source.is_video:
            return [self.folder / f"{source.name}.mp4", self.folder / f"{source.name}.jsonl"]
        return [self.folder / f"{source.name}.png", *self.maps(source)]

    def add(self, number: int, source: Input, prediction: P) -> None:
        """Writes the files of an image and remembers the rest for `finish`; `number` is its id."""
        with atomic_path(self.written(source)[0]) as path:
            prediction.draw().save(path)
        height, width = prediction.image.shape[1:]
        image = {"id": number, "file_name": source.relative, "height": height, "width": width}
        self.add_found(image, source, prediction)
        self.images.append(image)  # last: one whose files could not be written is not listed

    def finish(self) -> None:
        """Writes the JSON of all images, where there are any."""
        if self.images:
            self.write_json()

    def maps(self, source: Input) -> list[Path]:
        """The files of an image beside the drawn one."""
        return []

    def add_found(self, image: dict[str, Any], source: Input, prediction: P) -> None:
        """Writes the maps of an image, or remembers what was found; `image` becomes its entry of `images`."""

    def write_json(self) -> None:
        """Writes what was remembered."""


class Task(Protocol):
    """Looks at pictures and keeps what it found. Made before anything costs time, so that mistakes show at once."""

    name: str

    @property
    def files(self) -> PredictionFiles[Any]:
        """What writes its predictions."""

    def load(self) -> None:
        """Builds the model."""

    def look(self, image: Tensor, source: Input) -> Prediction:
        """Raises UserError where this picture cannot be predicted; the others may still."""

    def describe_video(self) -> dict[str, Any]:
        """What the first line of a video's results says beside the video itself."""


def refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raises UserError where an argument was given that this kind of model has no use for."""
    for name in names:
        if getattr(args, name) not in (None, ""):
            raise UserError(f"--{name.replace('_', '-')} {why}")


def refuse_to_overwrite(inputs: Sequence[Input], written: Callable[[Input], list[Path]]) -> None:
    """Raises UserError where a result would take the place of an input, or of another result.

    Args:
        written: an input -> the files that it becomes.
    """
    sources = {os.path.realpath(source.path) for source in inputs}
    owner: dict[Path, Input] = {}
    for source in inputs:
        for path in written(source):
            if os.path.realpath(path) in sources:
                raise UserError(f"the result of {source.path} would overwrite the input {path}; choose another folder")
            if path in owner:
                raise UserError(
                    f"{source.path} and {owner[path].path} would both write {path}; predict one of them apart"
                )
            owner[path] = source
