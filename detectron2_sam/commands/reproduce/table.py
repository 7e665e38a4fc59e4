"""A table of runs: what is trained and tested in its rows, and what the paper says of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from sam_common.config import find_config
from sam_common.errors import UserError
from sam_common.io.plain_yaml import NotPlain, read_yaml

FOLDER = "configs/tables"
EMBEDDED = (
    *(f"embedded-possam-{number}" for number in (4, 5, 6, 7)),
    *(f"embedded-plug-{number}" for number in (2, 3)),
    *("embedded-amsam-4", "embedded-amsam-figure5", "embedded-amsam-figure6"),
)
"""The papers' ablations on the embedded world."""
TEST_KEYS = ("MODEL.POSSAM.ENSEMBLE.", "MODEL.POSSAM.TEST.", "MODEL.PLUG.TEST.")
"""Beginnings of the keys that no training reads."""

Options = tuple[str, ...]
"""KEY, VALUE, …, in the order of their keys."""


@dataclass(frozen=True)
class Training:
    """What is trained once, however many rows are tests of it; without `trains` it is tested as it is."""

    config: str
    options: Options
    seed_keys: tuple[str, ...]
    trains: bool
    seed: int = 0

    @property
    def folder(self) -> str:
        """Another one for every configuration and seed."""
        return f"{Path(self.config).stem}-{_name(self.options, self.config)}-seed{self.seed}"


@dataclass(frozen=True)
class Row:
    """A training, and overrides for testing it: none for what it ends with itself."""

    training: Training
    tests: Options = ()

    def at(self, seed: int) -> Row:
        """The row with a seed; what is not trained has but one."""
        return replace(self, training=replace(self.training, seed=seed if self.training.trains else 0))

    @property
    def folder(self) -> str:
        return f"{self.training.folder}/tests/{_name(self.tests)}" if self.tests else self.training.folder

    @property
    def settings(self) -> list[str]:
        """KEY, VALUE, …: what it changes of its configuration."""
        seeded = [word for key in self.training.seed_keys for word in (key, str(self.training.seed))]
        return [*seeded, *self.training.options, *self.tests]


def _name(options: Options, config: str = "") -> str:
    """Readable as far as it is short, and no other options have it."""
    pairs = zip(options[::2], options[1::2], strict=True)
    words = "-".join(re.sub(r"\W+", "_", f"{key.rpartition('.')[2]}_{value}") for key, value in pairs)
    known = hashlib.sha256("\n".join([config, *options]).encode()).hexdigest()
    return f"{words[:100]}-{known[:8]}".lstrip("-")


@dataclass(frozen=True)
class Table:
    """A table, by the keys of its YAML file, of which only `metrics` and rows are required.

    Attributes:
        file: where it is read from; no key.
        metrics: the columns, each task/metric of `results.json`.
        title: the name of the file unless told otherwise.
        source: where the paper prints it.
        of: the table that this one has the rows of, smaller.
        config, options: what rows override, and the overrides of every row.
        seeds, seed_keys: how many, and the keys that are given the seed.
        minutes: how long a training takes on one thread; 0 where that is not known.
        trained, untrained: label -> overrides, or a configuration of its own. Untrained rows are tested once.
        variants: label -> overrides with which every trained row is trained; rows become "row, variant".
        tested: label -> overrides with which every row is tested; rows become "row, test".
        paper: row -> column -> number. A column is a metric, or a heading for what cannot be compared with one.
        orderings, judged: "better row > worse row", and the metrics that it should hold in, the first by default.
        figure: a line chart of the first metric, `x` the name of its axis, `lines` name -> row -> x.
        remarks: sentences for the report.
        rows: name -> row with seed 0, as the other keys tell them; no key.
    """

    file: str
    metrics: list[str]
    title: str = ""
    source: str = ""
    of: str = ""
    config: str = ""
    options: list[Any] = field(default_factory=list)
    seeds: int = 3
    seed_keys: list[str] = field(default_factory=lambda: ["SEED"])
    minutes: float = 0.0
    untrained: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=lambda: {"": []})
    tested: dict[str, Any] = field(default_factory=lambda: {"": []})
    paper: dict[str, dict[str, Any]] = field(default_factory=dict)
    orderings: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    figure: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)


def table_names() -> list[str]:
    """The names of all tables that ship, sorted."""
    return sorted(path.stem for path in find_config(f"{FOLDER}/{EMBEDDED[0]}.yaml").parent.glob("*.yaml"))


def read_table(name: str, more: Sequence[str] = ()) -> Table:
    """Reads a table that ships, by its name, or a YAML file; `more` overrides every row.

    Raises:
        UserError: there is no such table, the file is not like `Table`, or a key is set that the runner gives, or that
            the variants or the tests differ in.
    """
    if not name.endswith(".yaml"):
        if name not in table_names():
            known = ", ".join(table_names())
            raise UserError(f"there is no table {name!r}; choose one of embedded, {known}, or give a YAML file")
        name = f"{FOLDER}/{name}.yaml"
    file = find_config(name)
    try:
        return _table(read_yaml(file), name, more)
    except NotPlain as error:
        raise UserError(f"{name} cannot be read as plain YAML: {error}") from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _table(content: Any, file: str, more: Sequence[str]) -> Table:
    _check(isinstance(content, dict), f"a table gives keys values, it is {content!r}")
    table = Table(file, [], title=Path(file).stem)
    known = vars(table).keys() - {"file", "rows"}
    for key, value in content.items():
        _check(key in known, f"there is no key {key}; a table has {', '.join(sorted(known))}")
        kind = type(getattr(table, key))
        right = isinstance(value, kind) or (kind is float and isinstance(value, int))
        _check(right, f"{key} must be of type {kind.__name__}, not {value!r}")
    table = replace(table, **{"judged": content.get("metrics", [])[:1], **content})
    for words in (table.metrics, table.seed_keys, table.orderings, table.judged, table.remarks):
        _check(all(isinstance(word, str) for word in words), f"{words} must be a list of words")
    named = all(metric.count("/") == 1 for metric in table.metrics)
    _check(named, f"a metric is task/metric, such as panoptic_seg/PQ, not {', '.join(table.metrics)}")
    _check(table.metrics and table.seed_keys and table.seeds > 0, "metrics, seed_keys and seeds must be at least one")
    _check({*table.judged} <= {*table.metrics}, f"judged must be among the metrics, not {', '.join(table.judged)}")
    rows, lines = _rows(table, more), table.figure.get("lines", {})
    _check(_has_nodes(table.paper), "paper must give rows the numbers of columns")
    for row, column in ((row, column) for row, numbers in table.paper.items() for column in numbers):
        right = row in rows and (column in table.metrics or not re.fullmatch(r"\w+/\w+", column))
        _check(right, f"paper has a number of {row}, {column}: no row, or no metric, is called that")
    for text in table.orderings:
        _check({*text.partition(" > ")[::2]} <= {*rows}, f"an ordering is two rows, BETTER > WORSE, not {text!r}")
    right = {*table.figure} == {"x", "lines"} and _has_nodes(lines)
    _check(right or "figure" not in content, "figure is told by x and lines")
    for row, x in ((row, x) for line in lines.values() for row, x in line.items()):
        _check(row in rows and isinstance(x, int | float), f"a figure gives rows a number, their x, not {row} {x!r}")
    return replace(table, rows=rows, options=[*table.options, *more])


def _rows(table: Table, more: Sequence[str]) -> dict[str, Row]:
    """The rows by name: what is not trained, then what is, with each variant; tested in every way."""
    given = dict.fromkeys(table.seed_keys, "each seed in turn (see --seeds)")
    given |= {"OUTPUT_DIR": "a folder of --output", "MODEL.DEVICE": "the --device"}
    first, last = _pairs(table.options, "options"), _pairs(list(more), "overrides")
    variants, tested = (
        {str(label): _pairs(words, f"{part}, {label}") for label, words in getattr(table, part).items()}
        for part in ("variants", "tested")
    )
    for part, ways in (("variants", variants), ("tested", tested)):
        both = {key for pairs in ways.values() for key in pairs} & set(last)
        _check(not both, f"{', '.join(both)} is what its {part} differ in; it cannot be overridden for all rows")
    rows: dict[str, Row] = {}
    for part, labels, times in (("untrained", table.untrained, {"": {}}), ("trained", table.trained, variants)):
        for variant, (label, entry), test in product(times, labels.items(), tested):
            name = ", ".join(filter(None, (str(label), variant, test)))
            config, words = (entry, []) if isinstance(entry, str) else (table.config, entry)
            _check(config, f"{part}, {label}: give the name of a configuration, or a config that it overrides")
            pairs = {**first, **_pairs(words, f"{part}, {label}"), **times[variant], **last}
            for key in given.keys() & {*pairs, *tested[test]}:
                raise UserError(f"{name} sets {key}, which is given {given[key]}; leave it out")
            _check(name not in rows, f"two rows are called {name}")
            tests = {key: value for key, value in pairs.items() if key.startswith(TEST_KEYS)}
            options = _words({key: value for key, value in pairs.items() if key not in tests})
            training = Training(config, options, tuple(table.seed_keys), part == "trained")
            rows[name] = Row(training, _words({**tests, **tested[test]}))
    _check(rows, "there is no row; trained, variants and tested must have at least one label each")
    return rows


def _check(right: object, otherwise: str) -> None:
    if not right:
        raise UserError(otherwise)


def _has_nodes(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(node, dict) for node in value.values())


def _pairs(words: Any, where: str) -> dict[str, str]:
    _check(isinstance(words, list) and len(words) % 2 == 0, f"{where}: give a list of KEY, VALUE, ..., not {words!r}")
    return dict(zip(map(str, words[::2]), map(str, words[1::2]), strict=True))


def _words(pairs: Mapping[str, str]) -> Options:
    return tuple(word for key in sorted(pairs) for word in (key, pairs[key]))
