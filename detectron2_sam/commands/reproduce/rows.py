"""The rows of an ablation, as a file of `configs/ablations/` tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sam_common.config import find_config
from sam_common.errors import UserError


@dataclass(frozen=True)
class Row:
    """A configuration file and overrides of it, KEY, VALUE, …"""

    config: str
    options: list[str]


@dataclass(frozen=True)
class Rows:
    """What is compared.

    Attributes:
        metrics: the columns, each "task/metric" of `results.json`.
        trained: label -> a row that needs a training of its own for every seed.
        untrained: label -> a row that is tested as it is, once.
        tested: label -> overrides for testing a row.
        seed_keys: the keys of the configuration that are given the seed.
        minutes: how long a training takes; tells the time that is left.
        about: what `tools/ablations.py` tells beside the numbers: `title`, `of`, `paper`,
            `orderings`, `judged`, `figure`, `remarks`.
    """

    metrics: list[str]
    trained: dict[str, Row]
    untrained: dict[str, Row]
    tested: dict[str, list[str]]
    seed_keys: list[str]
    minutes: float = 1.0
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        return [*self.untrained, *self.trained]


def read_rows(path: str, more: Sequence[str] = ()) -> Rows:
    """Reads the YAML of an ablation: `metrics`, `trained`, and where needed `config`, `untrained` and these:

        tested: label -> overrides for testing a row.
        variants: label -> overrides with which each trained row is trained; rows become "row, variant".
        seed_keys: what is given the seed; [SEED] unless told otherwise.
        minutes, title, of, paper, orderings, judged, figure, remarks: see `Rows`.

    A row is a list of overrides of `config`, or the name of a configuration file of its own. `more`
    overrides every row.

    Raises:
        UserError: the file is missing, is not plain YAML, has other keys or values, or a key is set that the
            tools give, or that the variants or the tests differ in.
    """
    file = find_config(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no plain YAML: {' '.join(str(error).split())}") from error
    return parse_rows(content, file, more)


def parse_rows(content: Any, file: Path, more: Sequence[str] = ()) -> Rows:
    """What `read_rows` makes of the content of `file`."""
    about = ("title", "of", "paper", "orderings", "judged", "figure", "remarks")
    known = {"config", "metrics", "trained", "untrained", "tested", "variants", "seed_keys", "minutes", *about}
    if not (isinstance(content, dict) and set(content) <= known):
        strange = ", ".join(map(str, set(content) - known)) if isinstance(content, dict) else repr(content)
        raise UserError(f"{file}: rows are given as {', '.join(sorted(known))}, not {strange}")
    metrics, seed_keys = content.get("metrics"), content.get("seed_keys", ["SEED"])
    if not (isinstance(metrics, list) and metrics and all(isinstance(m, str) and m.count("/") == 1 for m in metrics)):
        raise UserError(f"{file}: metrics must list at least one task/metric, such as panoptic_seg/PQ")
    if not (isinstance(seed_keys, list) and seed_keys and all(isinstance(key, str) for key in seed_keys)):
        raise UserError(f"{file}: seed_keys must list at least one key, such as SEED")
    minutes = content.get("minutes", 1.0)
    if not (isinstance(minutes, int | float) and minutes > 0):
        raise UserError(f"{file}: minutes must be how long a training takes, it is {minutes!r}")
    tested, variants = (_overrides(content, key, str(file)) for key in ("tested", "variants"))
    trained, untrained = (
        _rows(content.get(key, {}), content.get("config"), f"{file}: {key}") for key in ("trained", "untrained")
    )
    if not trained | untrained:
        raise UserError(f"{file}: trained must give at least one label a row")
    if twice := trained.keys() & untrained.keys():
        raise UserError(f"{file}: {', '.join(twice)} is in trained and in untrained; give each row one label")
    _check_overrides(more, {"variants": variants, "tested": tested})
    trained = {
        f"{label}, {variant}" if variant else label: Row(row.config, [*row.options, *options])
        for variant, options in variants.items()
        for label, row in trained.items()
    }
    for label, row in (trained | untrained).items():
        row.options.extend(more)
        _check_keys(row.options[::2], seed_keys, f"{file}: {label}")
    about_it = {key: content[key] for key in about if key in content}
    return Rows(metrics, trained, untrained, tested, seed_keys, float(minutes), about_it)


def _check_keys(keys: Sequence[str], seed_keys: Sequence[str], where: str) -> None:
    """Raises UserError for keys that the tools themselves give."""
    given = {key: "each seed in turn (see --seeds)" for key in seed_keys}
    given |= {"OUTPUT_DIR": "a folder of --output", "MODEL.DEVICE": "the --device"}
    for key in given.keys() & set(keys):
        raise UserError(f"{where} sets {key}, which is given {given[key]}; leave it out")


def _check_overrides(more: Sequence[str], parts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Raises UserError for overrides that would make variants, or tests, alike, or that these would override."""
    for part, options in parts.items():
        if strange := {key for words in options.values() for key in words[::2]} & set(more[::2]):
            raise UserError(f"{', '.join(strange)} is what its {part} differ in; it cannot be overridden for all rows")


def _overrides(content: dict[str, Any], key: str, file: str) -> dict[str, list[str]]:
    """label -> KEY, VALUE, …; without the key one label, "", that overrides nothing."""
    given = content.get(key, {"": []})
    if not (isinstance(given, dict) and given and all(map(_are_pairs, given.values()))):
        raise UserError(f"{file}: {key} must give at least one label a list of KEY, VALUE, ...")
    return {str(label): [str(word) for word in words] for label, words in given.items()}


def _are_pairs(words: object) -> bool:
    return isinstance(words, list) and len(words) % 2 == 0


def _rows(entries: object, config: str | None, where: str) -> dict[str, Row]:
    if not isinstance(entries, dict):
        raise UserError(f"{where} must give labels to rows")
    rows = {}
    for label, entry in entries.items():
        if isinstance(entry, str):
            rows[str(label)] = Row(entry, [])
        elif _are_pairs(entry) and config:
            rows[str(label)] = Row(config, [str(word) for word in entry])
        else:
            raise UserError(
                f"{where}, {label}: give the name of a configuration, or a list of KEY, VALUE, ... to config"
            )
    return rows
