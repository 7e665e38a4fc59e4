"""An adapter: what a training learned, in one small file that anybody can load.

A safetensors file holds the trained part alone, for ViT-B and one class 2 MB. Its metadata are texts: the settings that
build the model (YAML), the names of the classes, and the SHA-256 of the frozen weights it belongs to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sam_common.engine.checkpoint import frozen_sha256, trained_state
from sam_common.errors import UserError
from sam_common.io.files import atomic_path, refuse_special_file

FORMAT = "amsam-adapter-1"
_ENTRIES = ("format", "settings", "classes", "frozen_sha256")


class Adapter(NamedTuple):
    """The content of a file.

    Attributes:
        content: `model` and `frozen_sha256`, as `sam_common.engine.checkpoint.load_trained` takes them.
        settings: YAML, as `amsam.config.adapter_settings` made it.
        classes: names, in the order of labels 1, 2, ….
    """

    content: dict[str, Any]
    settings: str
    classes: list[str]


def write_adapter(path: str | os.PathLike, model: nn.Module, *, settings: str, classes: Sequence[str]) -> None:
    """Writes what `model` learned. Raises UserError where the file cannot be written."""
    tensors = {name: value for name, value in trained_state(model).items() if isinstance(value, Tensor)}
    texts = (FORMAT, settings, json.dumps(list(classes)), json.dumps(frozen_sha256(model)))
    with atomic_path(path) as temporary:
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            temporary,
            metadata=dict(zip(_ENTRIES, texts, strict=True)),
        )


def read_adapter(path: str | os.PathLike) -> Adapter:
    """The content of an adapter file, tensors on the CPU.

    Raises:
        UserError: there is no such file, or it is damaged or no adapter.
    """
    refuse_special_file(path)
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise UserError(f"there is no adapter {path}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no adapter, or is damaged: {' '.join(str(error).split())}") from error
    if texts.get("format") != FORMAT or not all(key in texts for key in _ENTRIES):
        raise UserError(f"{path} is no adapter of this version: its format is {texts.get('format')!r}, not {FORMAT!r}")
    try:
        classes, frozen = json.loads(texts["classes"]), json.loads(texts["frozen_sha256"])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    are_known = isinstance(classes, list) and isinstance(frozen, dict)
    if not are_known or not all(isinstance(text, str) for text in [*classes, *frozen.values()]):
        raise UserError(f"{path} is damaged: its classes or its SHA-256 are of the wrong kind")
    return Adapter({"model": tensors, "frozen_sha256": frozen}, texts["settings"], classes)
