"""Configuration: yacs nodes with Detectron2's keys and types, so that one YAML works under both engines.

`get_cfg()` holds the keys that every method shares; a method adds its own. Only `config.py` files and what builds a run
read a cfg; everything else takes explicit arguments.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import BASE_KEY
from fvcore.common.config import CfgNode as _CfgNode

from sam_common.errors import UserError
from sam_common.io.plain_yaml import NotPlain, read_yaml
from sam_common.io.resources import names_in, resource
from sam_common.text import nearest, shown

UNTRAINED = "random"
"""As `MODEL.WEIGHTS`: what trains stays as it is initialised."""

_MOST_BASES = 32
_NAMES = ("DATASETS.TRAIN", "DATASETS.TEST")


class UnknownKeyError(UserError):
    """A configuration holds a key that nothing reads."""


class CfgNode(_CfgNode):
    """fvcore's node: `_BASE_` inheritance, safe YAML only, and errors that name the nearest known key."""

    def merge_from_file(self, cfg_filename: str | os.PathLike, allow_unsafe: bool = False) -> None:
        """Merges a YAML file. `allow_unsafe` exists for Detectron2's signature and must stay False.

        Raises:
            UserError: the file is missing or no plain YAML, or holds an unknown key or a value of another type.
        """
        if allow_unsafe:
            raise UserError("configuration files are read as plain YAML only: allow_unsafe is not supported")
        path = find_config(cfg_filename)
        try:
            loaded = self._load(path, {})
        except RecursionError as error:
            raise UserError(f"{path}: its _BASE_ lead through too many files") from error
        self.merge(loaded, str(path))

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """The content of a file, with what it inherits; see `merge_from_file`."""
        return cls._load(find_config(filename), {})

    @classmethod
    def _load(cls, path: Path, known: dict[Path, dict[str, Any] | None]) -> dict[str, Any]:
        """The content of a file and of each `_BASE_` it names, which lies beside it or is, by its name, a shipped one.

        Args:
            known: what is loaded already, once however often it is named; None while it is being loaded.

        Raises:
            UserError: a file is missing, is no plain YAML, or holds something else than keys with values.
        """
        place = path.resolve()
        if place in known:
            if (found := known[place]) is None:
                raise UserError(f"{path}: its _BASE_ leads back to itself")
            return found
        known[place] = None
        try:
            content = read_yaml(path)
        except NotPlain as error:
            raise UserError(f"{path} is not plain YAML: {error}") from error
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise UserError(f"{path} is no configuration: it must hold lines of KEY: value")
        named = content.pop(BASE_KEY, [])
        bases = named if isinstance(named, list) else [named]
        if not all(isinstance(base, str) for base in bases) or len(bases) > _MOST_BASES:
            raise UserError(
                f"{path}: _BASE_ must be the path of a configuration file, or of up to {_MOST_BASES}; it is {named!r}"
            )
        loaded: dict[str, Any] = {}
        for base in bases:
            loaded = _inherited(loaded, cls._load(_find_base(path, base), known), path)
        known[place] = loaded = _inherited(loaded, content, path)
        return loaded

    def merge_from_list(self, cfg_list: Sequence[str]) -> None:
        """Merges `KEY VALUE KEY VALUE …` from a command line.

        Raises:
            UserError: an odd number of words, an unknown key or a value of another type.
        """
        if len(cfg_list) % 2:
            raise UserError(f"overrides come as KEY VALUE pairs, got {len(cfg_list)} words: {' '.join(cfg_list)}")
        for key, value in zip(cfg_list[::2], cfg_list[1::2], strict=True):
            self._check_known(str(key), "the command line")
            self._check_given(str(key), self._decode_cfg_value(value), "the command line")
        try:
            super().merge_from_list(list(cfg_list))
        except (ValueError, AssertionError) as error:
            raise UserError(f"the command line: {error}") from error
        self._check_numbers("the command line")

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        """What a text means as a Python literal; a text that is none stays one, however deep its brackets are."""
        try:
            return super()._decode_cfg_value(value)
        except (RecursionError, MemoryError, TypeError):
            return value

    def merge(self, content: dict, source: str) -> None:
        """Merges nested keys with their values.

        Raises:
            UserError: a key is unknown, or its value of another type; it names `source`.
        """
        try:
            other = type(self)(content)
            for key in _leaf_keys(other):
                self._check_known(key, source)
                self._check_given(key, _at(other, key), source)
            self.merge_from_other_cfg(other)
        except UserError:
            raise
        except KeyError as error:
            raise UserError(f"{source}: {error} is no section; write SECTION: and, indented, KEY: value") from error
        except (ValueError, AssertionError) as error:
            raise UserError(f"{source}: {error}") from error
        self._check_numbers(source)

    def _check_given(self, key: str, value: Any, source: str) -> None:
        if value is None and _at(self, key) is not None:  # yacs takes it for a value of any type
            raise UserError(f"{source}: {key} is given no value; give one, or leave the key out")
        if not isinstance(value, list | tuple):
            return
        known = _at(self, key)
        kinds = str if key in _NAMES else int | float if known and isinstance(known[0], int | float) else object
        if wrong := [one for one in value if not isinstance(one, kinds)]:
            what = "names" if kinds is str else "numbers"
            raise UserError(f"{source}: {key} is a list of {what}; {shown(wrong[0])} is none")

    def _check_numbers(self, source: str) -> None:
        for key in _leaf_keys(self):
            value = _at(self, key)
            for number in value if isinstance(value, list | tuple) else [value]:
                if number != number or (isinstance(number, int) and not -(2**63) <= number < 2**63):
                    raise UserError(f"{source}: {key} is {value!r}; give a number, of 64 bits where it is whole")

    def _check_known(self, key: str, source: str) -> None:
        node: object = self
        for depth, part in enumerate(parts := key.split("."), 1):
            if self.key_is_deprecated(".".join(parts[:depth])):
                return  # yacs leaves it out, and logs that it does
            if not isinstance(node, dict) or part not in node:
                known = difflib.get_close_matches(key, list(_leaf_keys(self)), n=1, cutoff=0.0)
                message = f"{source}: unknown configuration key {key}; the nearest known one is {known[0]}"
                raise UnknownKeyError(message)
            node = node[part]
        if isinstance(node, dict):
            example = next(_leaf_keys(node, f"{key}."))
            raise UserError(f"{source}: {key} is a section; give values to its keys, such as {example}")


def _find_base(path: Path, base: str) -> Path:
    file = path.parent / os.path.expanduser(base)
    shipped = file.name if file.suffix in (".yaml", ".yml") else f"{file.name}.yaml"
    return file if os.path.isfile(file) else find_config(Path("configs", shipped), asked=file)


def _inherited(base: Mapping[str, Any], content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A section in place of those that both have, filled from both; of other keys `content` decides."""
    merged = dict(base)
    for key, value in content.items():
        if isinstance(value, dict) and key in merged:
            if not isinstance(merged[key], dict):
                raise UserError(f"{path}: {key} has keys of its own, but one value in its _BASE_; give it one value")
            merged[key] = _inherited(merged[key], value, path)
        else:
            merged[key] = value
    return merged


def _at(node: CfgNode, key: str) -> Any:
    return functools.reduce(dict.__getitem__, key.split("."), node)


def _leaf_keys(node: dict, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaf_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def find_config(name: str | os.PathLike, *, asked: Path | None = None) -> Path:
    """A configuration file by path, or by its name among the shipped ones: `NAME`, `NAME.yaml`, `configs/NAME.yaml`.

    Raises:
        UserError: there is no such file; it is called `asked` where that is given.
    """
    path = Path(name)
    if os.path.isfile(path):
        return path
    for shipped in (path, Path("configs", path), Path("configs", f"{path}.yaml")):
        with contextlib.suppress(UserError):
            return resource(str(shipped))
    known = names_in(f"configs/{path.parent}") or names_in("configs")
    raise UserError(f"there is no configuration file {asked or path}{nearest(path.stem, known)}")


def resolve_device(name: str) -> torch.device:
    """`MODEL.DEVICE` as a device: `auto` is CUDA where there is a GPU, else the CPU.

    Raises:
        UserError: the name is another one, or names a CUDA device that is not there.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if num_gpus else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (":" in name and not index.isdecimal()):
        raise UserError(f"MODEL.DEVICE is {name!r}; choose auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= num_gpus:
        raise UserError(f"MODEL.DEVICE is {name} but torch sees {num_gpus} CUDA devices; use MODEL.DEVICE cpu")
    return torch.device(name)


def add_missing(node: CfgNode, values: Mapping[str, Any]) -> None:
    """Adds keys with their defaults where a node has none of that name; sections are made and filled likewise."""
    for key, value in values.items():
        if key not in node:
            node[key] = type(node)(value) if isinstance(value, dict) else value
        elif isinstance(value, dict):
            add_missing(node[key], value)


def defaults(make: Callable[..., Any]) -> dict[str, Any]:
    """The defaults of a constructor, by the names that keys have: the one home of a default is where it is used."""
    known = inspect.signature(make).parameters.values()
    return {one.name.upper(): one.default for one in known if one.default is not inspect.Parameter.empty}


def one_of(key: str, value: str, known: Iterable[str]) -> None:
    """Raises UserError where the value of a key is none of those known."""
    if value not in known:
        raise UserError(f"{key} is {value!r}; choose one of {', '.join(known)}")


def get_cfg() -> CfgNode:
    """The keys every method shares, with Detectron2's names and types and this project's defaults."""
    cfg = CfgNode()
    cfg.VERSION = 2
    cfg.SEED = 0  # one seed makes a run repeatable on CPU
    cfg.OUTPUT_DIR = "./output"

    cfg.MODEL = CfgNode()
    cfg.MODEL.META_ARCHITECTURE = ""
    cfg.MODEL.WEIGHTS = ""  # a checkpoint of this project: the trained part only | random: untrained
    cfg.MODEL.DEVICE = "auto"  # auto | cpu | cuda
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]  # RGB, 0..255: SAM's
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]

    cfg.MODEL.SAM = CfgNode()
    cfg.MODEL.SAM.SIZE = "B"  # T | B | L | H
    cfg.MODEL.SAM.WEIGHTS = "sam_vit_b"  # official name | path | embedded (size T) | random
    cfg.MODEL.SAM.COMPILE = False  # True: torch.compile for the image encoder; slow for the first image of each size

    cfg.INPUT = CfgNode()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.IMAGE_SIZE = 1024  # training crop, pixels; images are padded to this square
    cfg.INPUT.MIN_SCALE = 0.1  # large-scale jitter
    cfg.INPUT.MAX_SCALE = 2.0
    cfg.INPUT.RANDOM_FLIP = "horizontal"  # horizontal | none
    cfg.INPUT.COLOR_AUG_SSD = False  # brightness, contrast, saturation, hue
    cfg.INPUT.MIN_SIZE_TEST = 1024  # shortest side
    cfg.INPUT.MAX_SIZE_TEST = 1024  # longest side; equal to MIN_SIZE_TEST it makes the longest side that long

    cfg.DATASETS = CfgNode()
    cfg.DATASETS.TRAIN = ()
    cfg.DATASETS.TEST = ()
    # The user's own: [{NAME: mine, FORMAT: coco_instance, JSON: a.json, IMAGES: images}, …], see docs/custom_data.md
    cfg.DATASETS.REGISTER = []

    cfg.DATALOADER = CfgNode()
    cfg.DATALOADER.NUM_WORKERS = 4

    cfg.SOLVER = CfgNode()
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.SOLVER.BASE_LR = 1e-4
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    cfg.SOLVER.IMS_PER_BATCH = 16  # per iteration, over all processes
    cfg.SOLVER.ACCUMULATE = 1  # parts in which a process does its share of the batch, one after the other: less memory
    cfg.SOLVER.MAX_ITER = 250_000
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"  # or WarmupCosineLR, WarmupPolyLR
    cfg.SOLVER.STEPS = (150_000, 200_000)
    cfg.SOLVER.GAMMA = 0.1
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.SOLVER.WARMUP_ITERS = 10
    cfg.SOLVER.WARMUP_FACTOR = 1.0 / 1000
    cfg.SOLVER.CHECKPOINT_PERIOD = 5000
    cfg.SOLVER.CLIP_GRADIENTS = CfgNode()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"  # one norm over all gradients
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = 2.0
    cfg.SOLVER.AMP = CfgNode()
    cfg.SOLVER.AMP.ENABLED = True
    cfg.SOLVER.AMP.PRECISION = "auto"  # bf16 | fp16 | auto: bf16 where the GPU has it, else fp16; float32 on a CPU

    cfg.TEST = CfgNode()
    cfg.TEST.EVAL_PERIOD = 0  # iterations; 0: at the end only
    cfg.TEST.EVALUATORS = "auto"  # auto: this project's | detectron2: Detectron2's, with --engine detectron2
    return cfg
