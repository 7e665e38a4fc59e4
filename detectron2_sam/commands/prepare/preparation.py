"""What preparing data sets shares: convert many files, skip the broken ones, and name them at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError
from sam_common.io.files import atomic_path, refuse_special_file

Item = TypeVar("Item")
Content = TypeVar("Content")
Entry = TypeVar("Entry")


def convert_all(
    items: Sequence[Item],
    read: Callable[[Item], Content],
    write: Callable[[Content], Entry],
    *,
    title: str,
    workers: int,
) -> tuple[list[Entry], list[str]]:
    """Reads and writes every item, in threads, with a progress bar.

    Args:
        read: its UserError means that this item is broken: it is named and skipped.
        write: puts the content into a file and returns what to remember of it. Its UserError ends the work, since a
            full disk will not take the next file either.

    Returns:
        What `write` returned, in the order of the items, and the errors of the items that could not be read.
    """

    def convert(item: Item) -> Entry | UserError:
        try:
            content = read(item)
        except UserError as error:
            return error
        return write(content)

    entries: list[Entry] = []
    broken: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for outcome in tqdm(pool.map(convert, items), title, len(items), unit=" files"):
                if isinstance(outcome, UserError):
                    broken.append(str(outcome))
                    tqdm.write(f"skipped: {outcome}", file=sys.stderr)
                else:
                    entries.append(outcome)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return entries, broken


def convert_images(
    title: str,
    items: Sequence[Item],
    targets: Callable[[Item], Sequence[Path]],
    read: Callable[[Item], Sequence[NDArray[Any]]],
    *,
    workers: int,
) -> list[str]:
    """Makes the images that `targets` names of each item, in this order, from what `read` gives for each of them.

    Items whose images are all there are skipped. Returns the errors of the items that could not be read.
    """

    def write(content: tuple[Sequence[Path], Sequence[NDArray[Any]]]) -> None:
        for path, pixels in zip(*content, strict=True):
            write_image(path, pixels)

    missing = [item for item in items if not all(path.is_file() for path in targets(item))]
    return convert_all(missing, lambda item: (targets(item), read(item)), write, title=title, workers=workers)[1]


def write_image(path: Path, pixels: NDArray[Any]) -> None:
    """Writes pixels [H, W] or [H, W, 3] in the format of the suffix, unless the file is there: then it is whole.

    TIFFs are compressed without loss.
    """
    if not path.is_file():
        options = {"compression": "tiff_deflate"} if path.suffix == ".tif" else {}
        with atomic_path(path) as temporary:
            Image.fromarray(pixels).save(temporary, **options)


def read_names(path: Path) -> list[str]:
    """The names of a split: the first word of each line of a text file.

    Raises:
        UserError: the file cannot be read, holds none, or one that leads to another folder.
    """
    refuse_special_file(path)
    try:
        names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; --help shows what belongs there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not names:
        raise UserError(f"{path} holds no names")
    if strange := [name for name in names if Path(name).name != name]:
        raise UserError(f"{path}: {strange[0]} is a path, not the name of an image")
    return names


def present_splits(name: str, sources: Mapping[str, Path]) -> list[str]:
    """The splits that data set `name` has here, of split -> the file that it needs, or the folder of its JPEG images.

    What is not there is named: not everyone needs all splits.

    Raises:
        UserError: none is there.
    """
    missing = {
        split: f"there {'is no' if path.suffix else 'are no images in'} {path}"
        for split, path in sources.items()
        if not (path.is_file() if path.suffix else any(path.rglob("*.jpg")))
    }
    if len(missing) == len(sources):
        raise UserError(f"{next(iter(missing.values()))}; see detectron2-sam prepare {name} --help")
    for split, fault in missing.items():
        print(f"{fault}: {split} is left out", file=sys.stderr)
    return [split for split in sources if split not in missing]


def tell_count(title: str, found: int, total: int) -> None:
    """Says where a split has another number of images than the official one."""
    if found != total:
        print(f"{title}: {found} images, the official split has {total}", file=sys.stderr)


def check_splits(specs: Sequence[DatasetSpec]) -> None:
    """Reads data sets whose truth is `annotations`, and prints the numbers of each, or what is missing of it.

    A split that is not there is named and skipped: not everyone needs all of them.

    Raises:
        UserError: none of them can be read.
    """
    faults = 0
    for spec in specs:
        try:
            records, classes = spec.load(), len(spec.load_vocabulary())
        except UserError as error:
            print(f"{spec.name}: {error}", file=sys.stderr)
            faults += 1
            continue
        objects = sum(len(record["annotations"]) for record in records)
        print(f"{spec.name}: {len(records)} images, {objects} objects, classes: {classes} ({spec.files['json']})")
    if faults == len(specs):
        raise UserError("none of the data sets is there; --help says where to download them")


def link_folder(source: Path, target: Path) -> None:
    """Makes `target` a link to the folder `source`, unless it is there; its parents are made.

    Raises:
        UserError: there is no such folder, or the link cannot be made.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}")
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source.resolve(), target_is_directory=True)
    except OSError as error:
        raise UserError(f"cannot link {target} to {source}: {error.strerror}") from error


def exit_status(broken: Sequence[str]) -> int:
    """0, or 1 after naming the files that were broken."""
    if not broken:
        return 0
    print("\n".join([f"{len(broken)} broken files were skipped:", *broken]), file=sys.stderr)
    print("fix or remove them and give the command again; what is done is kept", file=sys.stderr)
    return 1
