"""What `detectron2-sam fewshot` was asked for: images and masks, who is learned from and tested on, configurations."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from amsam.data.image_masks import IGNORE, choose_shots, image_masks_spec, read_labels
from amsam.structures import MaskRecord, name_of
from detectron2_sam.methods import full_cfg
from sam_common.config import CfgNode
from sam_common.errors import UserError
from sam_common.io.files import write_text
from sam_common.io.weights import OFFICIAL, cache_folder, verified_file
from sam_common.reporting.run_files import read_json
from sam_common.structures import Vocabulary
from sam_common.text import some

POOL, TEST = "few_shot_pool", "few_shot_test"
EPOCHS = 100
SETTINGS = "fewshot.json"
OWN = {
    "DATASETS": "--images, --masks, --shots and --pool",
    "OUTPUT_DIR": "--output",
    "SEED": "--seeds",
    "INPUT.BOXES.SOURCE": "--boxes",
    "MODEL.META_ARCHITECTURE": "the command",
    "MODEL.AMSAM.NUM_CLASSES": "--classes",
}
"""Keys that the command sets, and by what."""

_THREADS = 4
_SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        images, masks: the folders; classes: a vocabulary file, or ""; mask_suffix, mask_threshold: see `image_masks`.
        shots: how many images are learned from; pool: of how many, by name, they are drawn; 0: of all.
        boxes: where boxes come from, as `INPUT.BOXES.SOURCE` has it.
        config_file, options: what is trained; KEY, VALUE, ….
    """

    images: str
    masks: str
    classes: str
    mask_suffix: str
    shots: int
    pool: int
    boxes: str
    config_file: str
    options: list[str]
    output: Path = field(compare=False)
    mask_threshold: int | None = None

    def entry(self, name: str, names: str | Path) -> dict[str, str]:
        """Of `DATASETS.REGISTER`: the part of the folder that a file names."""
        files = {"IMAGES": self.images, "MASKS": self.masks, "NAMES": str(names)}
        threshold = str(self.mask_threshold or "")
        more = {"CLASSES": self.classes, "MASK_SUFFIX": self.mask_suffix, "MASK_THRESHOLD": threshold}
        return {"NAME": name, "FORMAT": "image_masks", **files, **{key: value for key, value in more.items() if value}}

    def base(self) -> CfgNode:
        """The configuration file with the options.

        Raises:
            UserError: it is none of a few-shot model, or an option sets what the command sets.
        """
        for key in self.options[::2]:
            owner = next((by for own, by in OWN.items() if key == own or key.startswith(f"{own}.")), None)
            if owner is not None:
                raise UserError(f"{key} is set by {owner}; leave it out")
        cfg = full_cfg(self.config_file)
        if cfg.MODEL.META_ARCHITECTURE != "AMSAM":
            raise UserError(f"{self.config_file} is for {cfg.MODEL.META_ARCHITECTURE}; give one of AMSAM")
        half = (self.shots + 1) // 2
        cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD = EPOCHS * half, half
        cfg.MODEL.AMSAM.CACHE = str(self.output / "embeddings")  # of each image once, whatever the seed
        cfg.merge_from_list(self.options)
        return cfg

    def cfg(self, run: Path, *, seed: int, test: Path, source: str, num_classes: int) -> CfgNode:
        """Of one run, into the folder `run`; `test` names the images it is tested on."""
        cfg = self.base()
        pool = self.entry(POOL, self.output / "names" / "pool.txt")
        cfg.DATASETS.REGISTER = [pool, self.entry(TEST, test)]
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (POOL,), (TEST,)
        cfg.DATASETS.SHOTS, cfg.DATASETS.SHOTS_SEED, cfg.SEED = self.shots, seed, seed
        cfg.INPUT.BOXES.SOURCE = source
        cfg.MODEL.AMSAM.NUM_CLASSES = num_classes
        cfg.OUTPUT_DIR = str(run)
        return cfg


@dataclass(frozen=True)
class Split:
    """Who is learned from and tested on.

    Attributes:
        records: of all images, by name.
        vocabulary: the classes.
        pool: records that shots are drawn from.
        shots: seed -> the records it learns from.
        tested: seed -> the ids of the images that it is tested on.
        empty: ids of images whose mask shows nothing.
    """

    records: Sequence[MaskRecord]
    vocabulary: Vocabulary
    pool: Sequence[MaskRecord]
    shots: list[list[MaskRecord]]
    tested: list[list[str]]
    empty: list[str]


def default_config() -> str:
    """SAM ViT-B's where its weights are on this machine, or else that of the embedded tiny SAM.

    Raises:
        UserError: the weights are damaged.
    """
    official = OFFICIAL["sam_vit_b"]
    if not os.path.exists(cache_folder() / official.file_name):
        return "configs/amsam_T.yaml"
    verified_file(official, "sam_vit_b")  # before anything is read or printed
    return "configs/amsam_B.yaml"


def split(plan: Plan, seeds: int) -> Split:
    """Reads every mask, and draws the shots of every seed as the trainings will.

    Raises:
        UserError: files are missing or lonely, masks cannot be used, or there are too few images; all are named.
    """
    for option, folder in (("images", plan.images), ("masks", plan.masks)):
        if not Path(folder).is_dir():
            raise UserError(f"--{option} {folder} is no folder")
        if plan.output.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(f"--output {plan.output} lies in --{option}, which it would fill; choose another")
    spec = image_masks_spec(
        "of --images and --masks",
        images=plan.images,
        masks=plan.masks,
        classes=plan.classes or None,
        mask_suffix=plan.mask_suffix,
        mask_threshold=plan.mask_threshold,
    )
    records = spec.load()
    if plan.pool > len(records) - 1:
        raise UserError(f"--pool {plan.pool}: of {len(records)} images none is left to test on")
    shown = _look(records)
    empty = [name_of(record) for record in records if not shown[name_of(record)]]
    pool = [record for record in records[: plan.pool or None] if shown[name_of(record)]]
    most = len(pool) if plan.pool else min(len(pool), len(records) - 1)
    if not 2 <= plan.shots <= most:
        told = f"--shots {plan.shots}: {most} of {len(records)} images may be drawn"
        why = f" ({len(empty)} masks show nothing: {some(empty, _SHOWN)})" if empty else ""
        raise UserError(f"{told}{why}, one is left to test on at least; give 2 to {most}, or more images")
    shots = [choose_shots(pool, plan.shots, seed) for seed in range(seeds)]
    ids = [name_of(record) for record in records]
    drawn = [{name_of(record) for record in chosen} for chosen in shots]
    tested = [ids[plan.pool :] if plan.pool else [name for name in ids if name not in own] for own in drawn]
    return Split(records, spec.load_vocabulary(), pool, shots, tested, empty)


def _look(records: Sequence[MaskRecord]) -> dict[str, set[int]]:
    """The labels of each mask beside the background. Raises UserError with all masks that cannot be used."""

    def look(record: MaskRecord) -> set[int] | str:
        try:
            return set(read_labels(record).unique().tolist()) - {0, IGNORE}
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(tqdm(threads.map(look, records), "masks", len(records), leave=False, disable=None))
    faults = [each for each in found if isinstance(each, str)]
    if faults:
        told = some(faults, _SHOWN, between="; ")
        raise UserError(f"{len(faults)} of {len(records)} masks cannot be used: {told}")
    labels = [each for each in found if not isinstance(each, str)]
    return {name_of(record): each for record, each in zip(records, labels, strict=True)}


def check_output(plan: Plan, of: Split) -> None:
    """Makes sure that the folder is new, or of the same command; of another one that had trained nothing it takes over.

    Raises:
        UserError: the folder holds something else, or trainings of another command.
    """
    path = plan.output / SETTINGS
    if not path.is_file():
        if plan.output.is_dir() and any(not entry.name.startswith(".") for entry in plan.output.iterdir()):
            raise UserError(f"--output {plan.output} is not empty and holds no few-shot run; choose another")
        return
    before, asked = read_json(path), _asked(plan, of)
    if not isinstance(before, dict):
        raise UserError(f"{path} is damaged; choose another --output")
    changes = "; ".join(
        f"{key} was {before.get(key)!r}, is {asked[key]!r}" for key in asked if before.get(key) != asked[key]
    )
    if not changes:
        return
    if any(plan.output.glob("seed*/model_*.pth")):
        raise UserError(f"{plan.output} is of another command ({changes}); choose another --output")
    (plan.output / "boxes.json").unlink(missing_ok=True)


def _asked(plan: Plan, of: Split) -> dict[str, Any]:
    """With the hashes of the files: numbers of an earlier content are not those of this command."""
    asked = {key: getattr(plan, key) for key in plan.__dataclass_fields__ if key != "output"}
    told = [path for path in (plan.classes, plan.boxes) if path and Path(path).is_file()]
    return asked | {
        "images in the folder": f"{len(of.records)}, {_sha256([name_of(record).encode() for record in of.records])}",
        "content of images": _content(record["file_name"] for record in of.records),
        "content of masks": _content(record["mask_file_name"] for record in of.records),
        "content of the configuration": _sha256([full_cfg(plan.config_file).dump().encode()]),
        "content of the classes and the boxes": _content(told),
    }


def _content(paths: Iterable[str]) -> str:
    return _sha256(Path(path).read_bytes() for path in paths)


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


def remember(plan: Plan, of: Split) -> None:
    """Writes what was asked for, and who is drawn from and tested on."""
    write_text(plan.output / SETTINGS, json.dumps(_asked(plan, of), indent=1, ensure_ascii=False))
    names = {
        "pool": [name_of(record) for record in of.pool],
        "all": [name_of(record) for record in of.records[plan.pool :]],
    }
    names |= {f"test_seed{seed}": tested for seed, tested in enumerate(of.tested)}
    for name, lines in names.items():
        write_text(plan.output / "names" / f"{name}.txt", "".join(f"{line}\n" for line in lines))
